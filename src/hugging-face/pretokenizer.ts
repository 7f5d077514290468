// The pretokenizer of a byte-level BPE: by its name in GGUF where it is a known one, else as the
// regular expressions of tokenizer.json in JavaScript's syntax.
import { patternRegex, patternText, unknownComponent } from "./components.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import { toJavaScript } from "./regex-syntax.ts";

const contraction = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`;
const tail = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const gpt4 = (digits: string) =>
  String.raw`${contraction}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|${tail}`;
const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
function gpt4o(suffix: string, digits: string): string {
  const head = String.raw`[^\r\n\p{L}\p{N}]?`;
  const words = `${head}${upper}*${lower}+${suffix}|${head}${upper}+${lower}*${suffix}`;
  return String.raw`${words}|${digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${tail}`;
}
/** What ByteLevel splits by where it is told to. */
const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const deepseek3 = [
  String.raw`\p{N}{1,3}`,
  "[一-龥\u3040-ゟ゠-ヿ]+",
  String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+` +
    String.raw`| ?[\p{P}\p{S}]+[\r\n]*|${tail}`,
];
const digit = String.raw`\p{N}`;

interface Known {
  readonly name: string;
  readonly ignoreMerges?: boolean;
  readonly patterns: readonly string[];
}

/** Names that GGUF readers know, by the expressions that the models were published with. */
const knownPretokenizers: readonly Known[] = [
  { name: "llama-bpe", patterns: [gpt4(String.raw`\p{N}{1,3}`)], ignoreMerges: true },
  { name: "dbrx", patterns: [gpt4(String.raw`\p{N}{1,3}`)] },
  { name: "qwen2", patterns: [gpt4(digit)] },
  { name: "gpt-2", patterns: [gpt2] },
  { name: "smollm", patterns: [digit, gpt2] },
  { name: "deepseek-v3", patterns: deepseek3 },
  { name: "gpt-4o", patterns: [gpt4o(`${contraction}?`, String.raw`\p{N}{1,3}`)] },
  { name: "tekken", patterns: [gpt4o("", digit)], ignoreMerges: true },
];

export function pretokenizerMetadata(
  steps: readonly JsonObject[],
  ignoreMerges: boolean,
  values: MetadataValues,
): void {
  const patterns = steps.flatMap(patternsOf);
  const known = knownPretokenizers.find((entry) => {
    const isSame = entry.patterns.length === patterns.length;
    if (!isSame || (entry.ignoreMerges ?? false) !== ignoreMerges) return false;
    return entry.patterns.every((pattern, index) => pattern === patterns[index]);
  });
  if (known !== undefined) {
    values.text("tokenizer.ggml.pre", known.name);
    return;
  }
  values.texts(
    "tokenizer.ggml.pre_patterns",
    patterns.map((pattern) => {
      const translated = toJavaScript(pattern);
      if (translated !== undefined) return translated;
      throw unknownComponent(steps[0]!, "pre_tokenizer", `the expression ${pattern}`);
    }),
  );
  values.bool("tokenizer.ggml.ignore_merges", ignoreMerges);
}

const escapeText = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/** The expressions whose matches, and the gaps between, a component makes words of. */
function patternsOf(step: JsonObject): string[] {
  const type = step.text("type");
  if (type === "ByteLevel") {
    if (step.flag("add_prefix_space")) throw unknownComponent(step, "pre_tokenizer");
    return (step.flag("use_regex") ?? true) ? [gpt2] : [];
  }
  if (type === "Digits") {
    return [step.flag("individual_digits") ? digit : String.raw`\p{N}+`];
  }
  if (type === "Punctuation" && isolates(step, "Isolated"))
    return [String.raw`[\p{P}!-/:-@\[-${"`"}{-~]`];
  if (type === "Punctuation" && step.text("behavior") === "Contiguous") {
    return [String.raw`[\p{P}!-/:-@\[-${"`"}{-~]+`];
  }
  if (type === "Split" && isolates(step, undefined)) {
    const text = patternText(step);
    const pattern = text === undefined ? patternRegex(step) : escapeText(text);
    if (pattern !== undefined) return [pattern];
  }
  throw unknownComponent(step, "pre_tokenizer");
}

/** Matches are words; where all that is no match is removed, nothing is left to remove. */
function isolates(step: JsonObject, usual: string | undefined): boolean {
  const behavior = step.text("behavior") ?? usual;
  const inverts = step.flag("invert") ?? false;
  return (behavior === "Isolated" && !inverts) || (behavior === "Removed" && inverts);
}
