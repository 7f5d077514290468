// Files and settings that cannot work: a message that a person can act on, the right exit code,
// and no stack trace, whichever command meets them.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { quantTypeInfo } from "../../src/weights/quant-types.ts";
import { type Finished, tinfer } from "./spawn.ts";
import { type TinyModel, tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

let folder: string;
const good = encodeGguf(tinyModel());

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-bad-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, bytes: Uint8Array): string {
  const path = join(folder, `${name}.gguf`);
  writeFileSync(path, bytes);
  return path;
}

const writeModel = (name: string, options: TinyModel) =>
  write(name, encodeGguf(tinyModel(options)));

/** The good file with bytes changed in place. */
function patched(name: string, change: (view: DataView, bytes: Uint8Array) => void): string {
  const bytes = good.slice();
  change(new DataView(bytes.buffer), bytes);
  return write(name, bytes);
}

/** Where the tensor table names the type of a tensor: after its name, dimensions and sizes. */
function typeOffset(name: string, numDimensions: number): number {
  return Buffer.from(good).indexOf(name) + name.length + 4 + 8 * numDimensions;
}

function expectFailure({ stdout, stderr, exitCode }: Finished, texts: readonly string[]): void {
  expect({ stdout, stderr, exitCode }).toEqual({
    stdout: "",
    stderr: expect.not.stringMatching(/bug in tinfer|\n\s+at /),
    exitCode: 1,
  });
  for (const text of texts) expect(stderr).toContain(text);
  // The message and then the next step.
  expect(stderr.split("\n").filter((line) => line.trim() !== "").length).toBeGreaterThan(1);
}

type Tool = (path: string) => string[];

const run: Tool = (path) => ["run", path, "--prompt-token-ids", "1,260", "--max-tokens", "2"];
const show: Tool = (path) => ["show", path];
const plan: Tool = (path) => ["plan", path];
const tokenize: Tool = (path) => ["tokenize", path, "text"];
const logits: Tool = (path) => {
  return ["logits", path, "--token-ids", "1,2", "-o", join(folder, "out.f32")];
};
const embed: Tool = (path) => ["embed", path, "text"];

/** Runs all tools on the file; each must fail with all the texts. */
async function expectAll(tools: readonly Tool[], path: string, ...texts: string[]): Promise<void> {
  const results = await Promise.all(tools.map((tool) => tinfer(tool(path))));
  for (const result of results) expectFailure(result, texts);
}

const everything = [run, show, plan, tokenize, logits, embed];

test("files that are no GGUF file, or not a whole one", async () => {
  const magic = patched("magic", (view) => view.setUint8(0, 0x58));
  await expectAll(everything, write("cut", good.slice(0, good.length - 1000)), "truncated", "1000");
  await expectAll([run, show], write("head", good.slice(0, 700)), "head.gguf", "do not fit");
  await expectAll([run, tokenize], magic, "magic.gguf", "byte 0", "GGUF");
  await expectAll([run, show], write("empty", new Uint8Array()), "the file is empty");
});

test("absurd counts are refused before anything is allocated", async () => {
  const tensors = patched("tensors", (view) => view.setBigUint64(8, 1n << 60n, true));
  const pairs = patched("pairs", (view) => view.setBigUint64(16, 1n << 60n, true));
  await expectAll([plan], tensors, "number of tensors", String(1n << 60n));
  await expectAll([show], pairs, "number of metadata pairs", String(1n << 60n));
});

test("weight types: unknown ones by number, known ones without kernels by tensor", async () => {
  const at = typeOffset("blk.0.ffn_up.weight", 2);
  const unknown = patched("type", (view) => view.setUint32(at, 77, true));
  const known = writeModel("q8_1", { types: { "blk.0.ffn_up.weight": "q8_1" } });
  const { ggmlType } = quantTypeInfo("f32");
  expect(new DataView(good.buffer).getUint32(at, true)).toBe(ggmlType);
  await expectAll([run, show, plan], unknown, "blk.0.ffn_up.weight", "77");
  const loads = [run, plan, logits, embed];
  await expectAll(loads, known, "'blk.0.ffn_up.weight' is q8_1", "cpu backend");
  expect((await tinfer(show(known))).exitCode).toBe(0);
});

test("models that are incomplete or of another kind", async () => {
  const missing = writeModel("missing", { without: ["blk.0.ffn_down.weight"] });
  const other = writeModel("other", { architecture: "lama" });
  const runes = writeModel("runes", { tokenizer: "runes" });
  const words = write("words", encodeGguf({ metadata: tinyModel().metadata, tensors: [] }));
  await expectAll([run, plan, logits], missing, "'blk.0.ffn_down.weight' is missing");
  await expectAll([run, plan, logits], other, "'lama' is not known", "known are", "llama");
  await expectAll([run, tokenize, embed], runes, "'runes' is not known", "llama, gpt2");
  await expectAll([run, plan], words, "words.gguf", "no weights");
  expect((await tinfer(tokenize(words))).exitCode).toBe(0);
});

test("paths that are no files", async () => {
  const directory = join(folder, "directory.gguf");
  mkdirSync(directory);
  await expectAll([run, show, plan], directory, "directory.gguf is a folder");
  await expectAll([run, show], join(folder, "absent.gguf"), "no such file", "absent.gguf");
  await expectAll([show], "/dev/null", "not a regular file");
  await expectAll([run, plan], "no-such-model", '"no-such-model"', "tinfer pull");
  await expectAll(
    [run],
    "hf:user/repo:Q4_0",
    "not on this machine",
    "tinfer pull hf:user/repo:Q4_0",
  );
});

test("what the system refuses, and files of the wrong kind, come with the next step", async () => {
  const tagless = join(folder, "tagless.jinja");
  writeFileSync(tagless, "\n");
  const config = { env: { TINFER_CONFIG: folder } };
  const [nowhere, keys, template, noFolder, configFolder] = await Promise.all([
    tinfer(["logits", "--token-ids", "1", "-o", join(folder, "nodir", "x")]),
    tinfer(["serve", "--port", "0", "--api-key-file", folder]),
    tinfer(["chat", "--template", tagless]),
    tinfer(["convert", join(folder, "absent"), join(folder, "out.gguf")]),
    tinfer(["plan"], config),
  ]);
  expectFailure(nowhere, ["nodir/x", "check that the folder exists"]);
  expectFailure(keys, [`${folder} cannot be read`, "one key per line"]);
  expectFailure(template, ["tagless.jinja is no template", "no message"]);
  expect(noFolder.stderr).toContain("absent does not exist");
  expectFailure(configFolder, [`the config file ${folder} cannot be read`]);
});

test.skipIf(process.getuid?.() === 0)("a file that may not be read", async () => {
  const path = write("secret", good);
  Bun.spawnSync(["chmod", "000", path]);
  await expectAll([run, show], path, "secret.gguf cannot be read");
});

test("model options out of range are wrong usage", async () => {
  const path = write("good", good);
  const wrong = [
    ["--ctx", "0"],
    ["--ctx", "1.5"],
    ["--threads", "100000"],
    ["--kv-type", "q3_k"],
    ["--backend", "cpuu"],
    ["--cpu", "v9"],
    ["--sliding-window", "wide"],
  ];
  const results = await Promise.all(wrong.map((flags) => tinfer([...run(path), ...flags])));
  results.forEach(({ stdout, stderr, exitCode }, index) => {
    const flags = wrong[index];
    expect({ flags, stdout, exitCode }).toEqual({ flags, stdout: "", exitCode: 2 });
    expect(stderr).not.toMatch(/bug in tinfer|\n\s+at /);
  });
});

test("unknown flags lead to the one that is meant, under other programs' names too", async () => {
  const meant = [
    ["--rope-freq-base", "here it is --rope-theta: base of the rope frequencies"],
    ["--rope-freq-scale", "here it is --rope-scale: factor by which the context grows"],
    ["--thread", "did you mean --threads?"],
    ["--temp", "here it is --temperature: "],
    ["--n-predict", "here it is --max-tokens: "],
    ["--ctx-size", "here it is --ctx: "],
    ["-ngl", "here it is --backend: "],
    ["-m", "here it is MODEL, without a flag: "],
    ["-p", "here it is PROMPT, without a flag: "],
  ] as const;
  for (const [flag, hint] of meant) {
    const { stderr, exitCode } = await tinfer(["run", "x", flag, "2"]);
    expect(exitCode).toBe(2);
    expect(stderr).toContain(`unknown flag ${flag}`);
    expect(stderr).toContain(hint);
  }
});
