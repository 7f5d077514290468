// `tinfer quantize`, `split` and `merge` as a person uses them.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RewriteReport } from "../../src/cli/rewrite.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { root, start, tinfer, tinferJson } from "./spawn.ts";
import { tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

const builtIn = join(root, "assets", "stories260K.gguf");
let folder: string;
let source: string;
const at = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-quantize-"));
  source = at("source.gguf");
  writeGguf(source, tinyModel());
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a mix: types, metadata and the same vocabulary; the result runs", async () => {
  const path = at("q4.gguf");
  const report = await tinferJson<RewriteReport>(["quantize", source, path, "Q4_K_M"]);
  const [before, after] = [readGguf(source), readGguf(path)];
  expect(report).toMatchObject({ output: [path], bytes: after.fileBytes[0], keptTensors: 0 });
  expect(after.tensors.get("blk.0.attn_q.weight")!.type).toBe("q4_k");
  expect(after.tensors.get("token_embd.weight")!.type).toBe("q6_k");
  expect(after.tensors.get("blk.0.attn_norm.weight")!.type).toBe("f32");
  expect(after.metadata.get("general.file_type")).toBe(15);
  expect(after.metadata.get("general.quantization_version")).toBe(2);
  for (const [key, value] of before.values) {
    expect(Bun.deepEquals(after.values.get(key), value, true)).toBe(true);
  }
  const answer = await tinfer(["run", path, "abc", "--raw", "--max-tokens", "3"]);
  expect({ ...answer, stdout: "" }).toEqual({ stdout: "", stderr: "", exitCode: 0 });
});

test("rows that do not fit are said, and the trained model stays itself in Q8_0", async () => {
  const path = at("stories-q8.gguf");
  const { stderr, exitCode } = await tinfer(["quantize", builtIn, path, "q4_k_m"]);
  expect(exitCode).toBe(0);
  expect(stderr).toContain("blocks of q4_k do not fit the rows of");
  await tinferJson(["quantize", builtIn, path, "q8_0"]);
  const prompt = ["Once upon a time", "--raw", "--temperature", "0", "--max-tokens", "12"];
  const [first, second] = await Promise.all([
    tinfer(["run", builtIn, ...prompt]),
    tinfer(["run", path, ...prompt]),
  ]);
  expect(second.stdout).toBe(first.stdout);
});

test("without a terminal, each line of progress is written once", async () => {
  const { stderr } = await tinfer(["quantize", source, at("lines.gguf"), "q8_0"]);
  const lines = stderr.split("\n").filter((line) => line.startsWith("lines.gguf: "));
  expect(lines.length).toBeGreaterThan(0);
  expect(new Set(lines).size).toBe(lines.length);
});

test("quantised weights are not quantised again unless that is allowed", async () => {
  const [q4, again] = [at("once.gguf"), at("twice.gguf")];
  await tinferJson(["quantize", source, q4, "q4_0"]);
  const refused = await tinfer(["quantize", q4, again, "q8_0"]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("--allow-requantize");
  expect(existsSync(again)).toBe(false);
  await tinferJson(["quantize", q4, again, "q8_0", "--allow-requantize"]);
  expect(readGguf(again).tensors.get("blk.0.attn_q.weight")!.type).toBe("q8_0");
});

test("--dry-run writes nothing and knows types and size", async () => {
  const path = at("dry.gguf");
  const flags = ["--tensor-type", "attn_v=q8_0", "--tensor-type", "attn_=f16"];
  const dry = await tinferJson<{ bytes: number; tensors: { name: string; to: string }[] }>([
    ...["quantize", source, path, "q5_k_s", "--dry-run", ...flags],
  ]);
  expect(existsSync(path)).toBe(false);
  const type = (name: string) => dry.tensors.find((tensor) => tensor.name === name)!.to;
  expect(type("blk.0.attn_v.weight")).toBe("q8_0");
  expect(type("blk.0.attn_q.weight")).toBe("f16");
  expect(type("blk.0.ffn_up.weight")).toBe("q5_k");
  const report = await tinferJson<RewriteReport>(["quantize", source, path, "q5_k_s", ...flags]);
  expect(report.bytes).toBe(dry.bytes);
  const { stdout } = await tinfer(["quantize", source, path, "q5_k_s", "--dry-run"]);
  expect(stdout).toMatch(/blk\.0\.ffn_up\.weight +\[256, 256\] +f32 +→ q5_k\n/);
});

test("types asked for in vain are said, or refused where nothing could come of them", async () => {
  const args = ["quantize", source, at("vain.gguf")];
  const [vain, copied] = await Promise.all([
    tinfer([...args, "q8_0", "--dry-run", "--tensor-type", "nomatch=q4_0"]),
    tinfer([...args, "copy", "--tensor-type", "attn_v=q4_0"]),
  ]);
  expect(vain.exitCode).toBe(0);
  expect(vain.stderr).toContain("--tensor-type nomatch changes nothing");
  expect(copied).toMatchObject({ stdout: "", exitCode: 2 });
  expect(copied.stderr).toContain("--tensor-type changes nothing: copy keeps all types");
});

test("few bits without an importance matrix warn; with one they do not", async () => {
  const path = at("few.gguf");
  const bare = await tinfer(["quantize", source, path, "iq2_xs"]);
  expect(bare.exitCode).toBe(0);
  expect(bare.stderr).toContain("importance matrix");
  const names = [...readGguf(source).tensors.keys()].filter((name) => !name.includes("norm"));
  const tensors = names.flatMap((name) => {
    const content = (values: Float32Array) => new Uint8Array(values.buffer);
    const sums = new Float32Array(256).map((_, i) => i);
    return [
      { name: `${name}.in_sum2`, type: "f32", shape: [1, 256], content: content(sums) },
      { name: `${name}.counts`, type: "f32", shape: [1, 1], content: content(Float32Array.of(1)) },
    ] as const;
  });
  const imatrix = at("imatrix.gguf");
  writeGguf(imatrix, { metadata: [], tensors });
  const before = readFileSync(path);
  const guided = await tinfer(["quantize", source, path, "iq2_xs", "--imatrix", imatrix]);
  expect(guided.stderr).not.toContain("importance matrix");
  expect(readGguf(path).metadata.get("quantize.imatrix.entries_count")).toBe(names.length);
  expect(Buffer.compare(before, readFileSync(path))).not.toBe(0);
});

test("split and merge: the same bytes again; the parts run", async () => {
  const split = ["split", source, at("part"), "--split-max-size", "0.4M"];
  const { output } = await tinferJson<RewriteReport>(split);
  const small = await tinfer(["split", source, at("small"), "--split-max-size", "0.2M"]);
  expect(small.stderr).toMatch(/\d+ of \d+ files are larger than --split-max-size, up to \d+ kB/);
  const [first] = output as [string];
  expect(output.length).toBeGreaterThan(2);
  expect(readGguf(first).paths).toEqual(output);
  await tinferJson(["merge", first, at("merged.gguf")]);
  expect(Buffer.compare(readFileSync(at("merged.gguf")), readFileSync(source))).toBe(0);
  const answer = await tinfer(["run", first, "abc", "--raw", "--max-tokens", "2"]);
  expect(answer.exitCode).toBe(0);
  const report = await tinferJson<RewriteReport>([
    ...["quantize", source, at("q8.gguf"), "q8_0", "--split-max-tensors", "6"],
  ]);
  expect(report.output).toEqual([at("q8-00001-of-00002.gguf"), at("q8-00002-of-00002.gguf")]);
});

test("a killed run leaves no file of that name, and the next goes on", async () => {
  const path = at("killed.gguf");
  const child = start(["quantize", source, path, "iq1_s", "--threads", "1"]);
  while (!existsSync(`${path}.partial.journal`) && child.exitCode === null) await Bun.sleep(1);
  child.kill("SIGKILL");
  await child.exited;
  if (!existsSync(path)) expect(existsSync(`${path}.partial`)).toBe(true);
  await tinferJson(["quantize", source, path, "iq1_s"]);
  await tinferJson(["quantize", source, at("whole.gguf"), "iq1_s"]);
  expect(Buffer.compare(readFileSync(path), readFileSync(at("whole.gguf")))).toBe(0);
});

test("two runs for one file at once: the second is told at once who writes it", async () => {
  const path = at("contested.gguf");
  const first = start(["quantize", source, path, "iq1_s", "--threads", "1"]);
  while (!existsSync(`${path}.partial.journal`) && first.exitCode === null) await Bun.sleep(1);
  first.kill("SIGSTOP");
  expect(first.exitCode).toBeNull();
  for (const type of ["iq1_s", "q8_0"]) {
    const second = await tinfer(["quantize", source, path, type]);
    expect(second.exitCode).toBe(1);
    expect(second.stderr).toContain(`process ${first.pid} is writing ${path}`);
  }
  first.kill("SIGCONT");
  expect(await first.exited).toBe(0);
  await tinferJson(["quantize", source, at("alone.gguf"), "iq1_s"]);
  expect(Buffer.compare(readFileSync(path), readFileSync(at("alone.gguf")))).toBe(0);
  expect(readdirSync(folder).filter((name) => name.includes("contested"))).toEqual([
    "contested.gguf",
  ]);
});

test("a link is written through; what is no file stays what it is, and nothing is left beside", async () => {
  const own = at("places");
  const place = (name: string) => join(own, name);
  mkdirSync(place("folder"), { recursive: true });
  writeFileSync(place("model.gguf"), "old");
  symlinkSync("model.gguf", place("link.gguf"));
  Bun.spawnSync(["mkfifo", place("pipe")]);
  const report = await tinferJson<RewriteReport>(["quantize", source, place("link.gguf"), "q8_0"]);
  expect(report.output).toEqual([place("link.gguf")]);
  expect(lstatSync(place("link.gguf")).isSymbolicLink()).toBe(true);
  expect(readGguf(place("model.gguf")).tensors.get("blk.0.attn_q.weight")!.type).toBe("q8_0");
  const split = ["split", source, place("part"), "--split-max-tensors", "9"];
  const [first] = (await tinferJson<RewriteReport>(split)).output;
  const runs = await Promise.all([
    tinfer(["quantize", source, place("folder"), "q8_0"]),
    tinfer(["quantize", source, place("pipe"), "q8_0"]),
    tinfer(["quantize", source, "", "q8_0"]),
    tinfer(["split", source, ""]),
    tinfer(["merge", first!, place("pipe")]),
    tinfer(["convert", own, place("pipe"), "--force"]),
    tinfer(["imatrix", builtIn, "/absent.txt", "-o", place("pipe")]),
  ]);
  const wanted = [
    "is a folder",
    "is a pipe",
    "is empty",
    "is empty",
    "is a pipe",
    "is a pipe",
    "is a pipe",
  ];
  runs.forEach(({ stderr, exitCode }, index) => {
    expect(stderr).toContain(wanted[index]!);
    expect(exitCode).toBe(2);
  });
  expect(lstatSync(place("pipe")).isFIFO()).toBe(true);
  const parts = readdirSync(own).filter((name) => name.startsWith("part-"));
  const others = ["folder", "link.gguf", "model.gguf", "pipe"];
  expect(readdirSync(own).toSorted()).toEqual([...others, ...parts].toSorted());
});

test("bad input: each with its cause and the next step", async () => {
  const damaged = at("damaged.dat");
  writeFileSync(damaged, "hello, this is no importance matrix");
  const quantize = (...args: string[]) => tinfer(["quantize", ...args]);
  const runs = await Promise.all([
    quantize(source, at("x.gguf"), "q4_k_x"),
    quantize(source, source, "q8_0"),
    quantize(at("absent.gguf"), at("x.gguf"), "q8_0"),
    quantize(source, join(folder, "no", "such", "x.gguf"), "q8_0"),
    quantize(source, at("x.gguf"), "q8_0", "--tensor-type", "attn_v"),
    quantize(source, at("x.gguf"), "q8_0", "--tensor-type", "(=q8_0"),
    quantize(source, at("x.gguf"), "q8_0", "--imatrix", damaged),
    quantize(source, at("x.gguf"), "q8_0", "--split-max-size", "2X"),
    tinfer(["merge", source, at("x.gguf")]),
  ]);
  const wanted = [
    ...["nearest: q4_k", "is the source itself", "absent.gguf", "cannot be written"],
    ...[
      "PATTERN=TYPE",
      "--tensor-type",
      "importance matrix",
      "--split-max-size",
      "one file already",
    ],
  ];
  runs.forEach(({ stdout, stderr, exitCode }, index) => {
    expect({ stdout, ok: exitCode === 0 }).toEqual({ stdout: "", ok: false });
    expect(stderr).toContain(wanted[index]!);
    expect(stderr).not.toContain("bug in tinfer");
  });
  expect(existsSync(at("x.gguf"))).toBe(false);
});
