// `tinfer tokenize`: text to token ids and pieces, and back.
import { TinferError } from "../core/errors.ts";
import { openModelText } from "../engine/model-text.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { modelPath, modelPositional } from "./model-flags.ts";
import { dim, out, outJson } from "./terminal.ts";
import { readStdin, stdinLines } from "./text-input.ts";
import { parseTokenIds } from "./token-ids.ts";

export const tokenize: Command = {
  name: "tokenize",
  summary: "Token ids and pieces of a text; --decode for the way back.",
  positionals: [
    {
      ...modelPositional,
      description: `${modelPositional.description}; vocabulary-only files work`,
    },
    {
      name: "TEXT",
      description: "the text, or with --decode token ids; default: stdin",
      required: false,
    },
  ],
  flags: {
    decode: { kind: "boolean", description: "from ids to text", default: false },
    bos: {
      kind: "boolean",
      description: "--no-bos: do not add BOS and other special tokens",
      default: true,
    },
    special: {
      kind: "boolean",
      description: "--no-special: treat the text of special tokens as plain text",
      default: true,
    },
    "json-lines": {
      kind: "boolean",
      description: "read one JSON string per line, write one JSON array of ids per line",
      default: false,
    },
    json: { kind: "boolean", description: "one JSON document", default: false },
  },
  examples: [
    ["tinfer tokenize model.gguf 'Hello world'", "one line per token: id and piece"],
    ["tinfer tokenize model.gguf --decode 1,15043,3186", "the text of three tokens"],
    ["tinfer tokenize vocab.gguf --json-lines --no-bos < lines.jsonl", "many texts at once"],
  ],
  run: tokenizeCommand,
};

async function tokenizeCommand(values: FlagValues): Promise<void> {
  const [model, given] = values.positionals;
  const { tokenizer } = openModelText(modelPath(model));
  const options = { addSpecial: values.boolean("bos"), parseSpecial: values.boolean("special") };
  if (values.boolean("json-lines")) {
    await tokenizeLines(tokenizer, options, values.boolean("decode"));
    return;
  }
  const text = given ?? (await readStdin());
  if (values.boolean("decode")) {
    const decoded = tokenizer.decode(parseTokenIds(text), {
      showSpecial: values.boolean("special"),
    });
    if (values.boolean("json")) outJson({ text: decoded });
    else out(decoded);
    return;
  }
  const tokenIds = [...tokenizer.encode(text, options)];
  const pieces = tokenIds.map((id) => tokenizer.tokenText(id));
  if (values.boolean("json")) {
    outJson({ tokenIds, pieces });
    return;
  }
  tokenIds.forEach((id, index) => {
    out(`${String(id).padStart(7)}  ${dim(JSON.stringify(pieces[index]))}`);
  });
}

function parseLine(line: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new TinferError("usage", `line ${number} is not JSON: ${line.slice(0, 60)}`, { cause });
  }
}

async function tokenizeLines(
  tokenizer: Tokenizer,
  options: { addSpecial: boolean; parseSpecial: boolean },
  decode: boolean,
): Promise<void> {
  let number = 0;
  for await (const line of stdinLines()) {
    number++;
    if (line.trim() === "") continue;
    const value = parseLine(line, number);
    if (decode && Array.isArray(value)) {
      outJson(tokenizer.decode(value.map(Number), { showSpecial: options.parseSpecial }));
    } else if (!decode && typeof value === "string") outJson([...tokenizer.encode(value, options)]);
    else {
      const wanted = decode ? "an array of token ids" : "a JSON string";
      throw new TinferError("usage", `line ${number} is not ${wanted}`);
    }
  }
}
