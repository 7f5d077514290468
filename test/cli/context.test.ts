// Contexts beyond the trained one: the flags that stretch rope, warnings, and prompts too long.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelMemory } from "../../src/cli/plan.ts";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { tinfer, tinferJson } from "./spawn.ts";
import { tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

let folder: string;
let model: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-context-"));
  model = join(folder, "tiny.gguf");
  writeFileSync(model, encodeGguf(tinyModel({ contextLen: 256 })));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ids = (count: number) => Array.from({ length: count }, (_, i) => 3 + (i % 200)).join(",");
const generate = ["--max-tokens", "2", "--temperature", "0"];

test("show and plan say the context with and without scaling", async () => {
  const scaling = ["--rope-scaling", "yarn", "--rope-scale", "4"];
  const [plain, scaled, byEnvironment, shown, text] = await Promise.all([
    tinferJson<ModelMemory>(["plan", model]),
    tinferJson<ModelMemory>(["plan", model, ...scaling]),
    tinferJson<ModelMemory>(["plan", model], { env: { TINFER_ROPE_SCALE: "2" } }),
    tinferJson<ModelMemory>(["show", model, ...scaling]),
    tinfer(["plan", model, ...scaling]),
  ]);
  expect(plain).toMatchObject({
    trainedContextLen: 256,
    scaledContextLen: 256,
    maxContextLen: 256,
  });
  expect(scaled).toMatchObject({ trainedContextLen: 256, scaledContextLen: 1024 });
  expect(scaled.maxContextLen).toBe(1024);
  expect(byEnvironment.scaledContextLen).toBe(512);
  expect(shown).toMatchObject({ contextLen: 256, scaledContextLen: 1024 });
  expect(text.stdout).toContain("trained for 256 tokens and its rope is scaled to 1024");
});

test("--ctx beyond the trained context is warned of, once scaling is given no more", async () => {
  const run = ["run", model, "--prompt-token-ids", ids(3), ...generate, "--ctx", "1024"];
  const [plain, scaled, chat] = await Promise.all([
    tinfer(run),
    tinfer([...run, "--rope-scaling", "linear", "--rope-scale", "4"]),
    tinfer(["chat", model, "--template", "plain", "--ctx", "1024"], { stdin: "/quit\n" }),
  ]);
  for (const { stderr, exitCode } of [plain, chat]) {
    expect(exitCode).toBe(0);
    expect(stderr).toContain("--ctx is 1024, but the model was trained for 256 tokens");
    expect(stderr).toContain("--rope-scaling yarn --rope-scale 4");
  }
  expect(scaled.exitCode).toBe(0);
  expect(scaled.stderr).not.toContain("trained");
});

test("a prompt that is too long: exact numbers and the way out", async () => {
  const chatText = "a".repeat(300);
  const [run, within, chat] = await Promise.all([
    tinfer(["run", model, "--prompt-token-ids", ids(300), ...generate]),
    tinfer(["run", model, "--prompt-token-ids", ids(200), ...generate, "--ctx", "128"]),
    tinfer(["chat", model, "--template", "plain"], { stdin: `${chatText}\n` }),
  ]);
  for (const { stderr, exitCode } of [run, chat]) {
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/30\d tokens.* 256, and one must stay free for the answer/s);
    expect(stderr).toContain("the model was trained for 256 tokens");
    expect(stderr).toContain("--rope-scaling yarn --rope-scale 2");
  }
  expect(run.stderr).toContain("the prompt has 300 tokens");
  expect(run.stderr).toContain("--ctx 301");
  expect(within.stderr).toContain("--ctx 201");
  expect(within.stderr).not.toContain("--rope-scale");
});

test("scaling changes the answer, and what makes no sense is refused", async () => {
  const logits = async (name: string, ...flags: string[]) => {
    const output = join(folder, `${name}.f32`);
    const args = ["logits", model, "--token-ids", ids(40), "-o", output, ...flags];
    const { exitCode, stderr } = await tinfer(args);
    return exitCode === 0 ? Buffer.from(await Bun.file(output).arrayBuffer()) : stderr;
  };
  const [plain, same, theta, linear, bad, unused] = await Promise.all([
    logits("plain"),
    logits("same", "--rope-scaling", "none", "--rope-theta", "10000"),
    logits("theta", "--rope-theta", "500000"),
    logits("linear", "--rope-scale", "2"),
    logits("bad", "--rope-scale", "-2"),
    logits("unused", "--yarn-beta-fast", "16"),
  ]);
  expect(same).toEqual(plain);
  expect(theta).not.toEqual(plain);
  expect(linear).not.toEqual(plain);
  expect(bad).toContain("--rope-scale is -2");
  expect(unused).toContain("--yarn-beta-fast changes nothing");
});
