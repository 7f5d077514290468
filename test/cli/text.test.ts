// `tinfer tokenize`, `render` and `embed`: fixed forms for scripts, from arguments and from stdin.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { root, tinfer, tinferJson } from "./spawn.ts";
import { tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

const builtIn = join(root, "assets", "stories260K.gguf");
let folder: string;
let templated: string;

const template =
  "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}" +
  "{% endfor %}{% if tools %}<{{ tools | tojson }}>{% endif %}" +
  "{% if mood %}({{ mood }}){% endif %}{% if add_generation_prompt %}[assistant]{% endif %}";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-text-"));
  templated = join(folder, "templated.gguf");
  writeGguf(templated, tinyModel({ template }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

test("tokenize: ids and pieces, and the way back", async () => {
  const text = "Once upon — a time ☃";
  const { tokenIds, pieces } = await tinferJson<{ tokenIds: number[]; pieces: string[] }>([
    ...["tokenize", builtIn, text],
  ]);
  expect(tokenIds[0]).toBe(1);
  expect(pieces.length).toBe(tokenIds.length);
  const [back, bare, lines] = await Promise.all([
    tinferJson<{ text: string }>([
      "tokenize",
      builtIn,
      "--decode",
      "--no-special",
      tokenIds.join(","),
    ]),
    tinferJson<{ tokenIds: number[] }>(["tokenize", builtIn, text, "--no-bos"]),
    tinfer(["tokenize", builtIn], { stdin: text }),
  ]);
  expect(back.text).toBe(text);
  expect(bare.tokenIds).toEqual(tokenIds.slice(1));
  expect(
    lines.stdout
      .trimEnd()
      .split("\n")
      .map((line) => Number(line.trim().split(" ")[0])),
  ).toEqual(tokenIds);
});

test("tokenize --json-lines: one array per line, special tokens as text on request", async () => {
  const stdin = `${JSON.stringify("Once\nupon")}\n${JSON.stringify("</s>")}\n${JSON.stringify("")}\n`;
  const run = async (...flags: string[]) => {
    const { stdout } = await tinfer(["tokenize", builtIn, "--json-lines", ...flags], { stdin });
    return stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as number[]);
  };
  const [all, bare, plain] = await Promise.all([run(), run("--no-bos"), run("--no-special")]);
  expect(all.map((ids) => ids[0])).toEqual([1, 1, 1]);
  expect(bare).toEqual(all.map((ids) => ids.slice(1)));
  expect(all[1]).toEqual([1, 2]);
  expect(plain[1]!.length).toBeGreaterThan(2);
  const wrong = await tinfer(["tokenize", builtIn, "--json-lines"], { stdin: '"a"\nb\n' });
  expect(wrong.exitCode).toBe(2);
  expect(wrong.stderr).toContain("line 2");
});

const messages = [
  { role: "user", content: "Hi" },
  { role: "assistant", content: "Yes" },
];

test("render: the model's template, its special tokens and its token ids", async () => {
  const path = file("messages.json", messages);
  const prompt = "<s>[user]Hi[assistant]Yes[assistant]";
  const args = ["render", templated, "--messages", path];
  const [json, text, piped, without] = await Promise.all([
    tinferJson<{ prompt: string; tokenIds: number[] }>(args),
    tinfer(args),
    tinfer(["render", templated], { stdin: JSON.stringify({ messages }) }),
    tinferJson<{ prompt: string }>([...args, "--add-generation-prompt", "false"]),
  ]);
  expect(json.prompt).toBe(prompt);
  // The template writes BOS: it must not come twice.
  expect(json.tokenIds.slice(0, 2)[0]).toBe(1);
  expect(json.tokenIds.filter((id) => id === 1).length).toBe(1);
  expect(text).toMatchObject({ stdout: prompt, exitCode: 0 });
  expect(text.stderr).toContain(json.tokenIds.join(","));
  expect(piped.stdout).toBe(prompt);
  expect(without.prompt).toBe("<s>[user]Hi[assistant]Yes");
});

test("render -: objects with further variables, tools, --template and --now", async () => {
  const source = `${template}{{ strftime_now("%Y-%m-%d %H:%M") }}`;
  const flags = ["--template", file("t.jinja", source), "--now", "2025-07-26T12:34:56"];
  const chat = { messages: messages.slice(0, 1), mood: "calm", bos_token: "^" };
  const own = { ...chat, tools: [{ name: "own" }], add_generation_prompt: false };
  const tools = file("tools.json", [{ name: "given" }]);
  const render = (object: unknown, ...more: string[]) =>
    tinferJson<{ prompt: string }>(["render", "-", ...flags, ...more], {
      stdin: JSON.stringify(object),
    });
  const [plain, full, overridden] = await Promise.all([
    render(chat),
    render(own),
    render(own, "--tools", tools, "--add-generation-prompt", "true"),
  ]);
  const time = "2025-07-26 12:34";
  expect(plain).toEqual({ prompt: `^[user]Hi(calm)[assistant]${time}` });
  expect(full).toEqual({ prompt: `^[user]Hi<[{"name": "own"}]>(calm)${time}` });
  expect(overridden).toEqual({
    prompt: `^[user]Hi<[{"name": "given"}]>(calm)[assistant]${time}`,
  });
});

test("render --json-lines: a prompt or an error per line", async () => {
  const source = "{% if messages|length == 1 %}{{ raise_exception('too short') }}{% endif %}ok";
  const lines = [
    JSON.stringify({ messages }),
    JSON.stringify(messages.slice(0, 1)),
    "{nonsense",
    JSON.stringify({ chat: [] }),
    JSON.stringify(messages),
  ];
  const args = ["render", "-", "--template", file("e.jinja", source), "--json-lines"];
  const { stdout, exitCode } = await tinfer(args, { stdin: `${lines.join("\n")}\n` });
  const results = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(exitCode).toBe(0);
  expect(results).toEqual([
    { prompt: "ok" },
    { error: "too short" },
    { error: expect.stringContaining("JSON") },
    { error: "these are no messages" },
    { prompt: "ok" },
  ]);
});

test("render: what is missing is said", async () => {
  const path = file("hi.json", messages);
  const [noTemplate, unknown, noFile, noModelTemplate, time] = await Promise.all([
    tinfer(["render", "-", "--messages", path]),
    tinfer(["render", "-", "--messages", path, "--template", "chatmll"]),
    tinfer(["render", "-", "--messages", join(folder, "absent.json"), "--template", "chatml"]),
    tinfer(["render", builtIn, "--messages", path]),
    tinfer(["render", "-", "--messages", path, "--template", "chatml", "--now", "noon"]),
  ]);
  expect(noTemplate.exitCode).toBe(2);
  expect(noTemplate.stderr).toContain("--template");
  expect(unknown).toMatchObject({ stdout: "", exitCode: 1 });
  expect(unknown.stderr).toContain("chatml");
  expect(noFile.exitCode).toBe(1);
  expect(noFile.stderr).toContain("absent.json: there is no such file");
  expect(noModelTemplate.exitCode).toBe(1);
  expect(noModelTemplate.stderr).toContain("no chat template");
  expect(time.exitCode).toBe(2);
});

interface Embeddings {
  embeddings: number[][];
  promptTokens: number;
}

const length = (vector: number[]) => Math.hypot(...vector);

test("embed: vectors of length 1, from arguments or lines, whatever is beside them", async () => {
  const args = ["embed", builtIn];
  const [both, one, raw, last, lines, empty] = await Promise.all([
    tinferJson<Embeddings>([...args, "a small dog", "the sun"]),
    tinferJson<Embeddings>([...args, "the sun"]),
    tinferJson<Embeddings>([...args, "the sun", "--no-normalize"]),
    tinferJson<Embeddings>([...args, "the sun", "--pooling", "last"]),
    tinfer(args, { stdin: "a small dog\r\n\nthe sun\n" }),
    tinferJson<Embeddings>([...args, ""]),
  ]);
  expect(both.embeddings.map((vector) => vector.length)).toEqual([64, 64]);
  for (const vector of both.embeddings) expect(length(vector)).toBeCloseTo(1, 6);
  expect(both.embeddings[1]).toEqual(one.embeddings[0]!);
  expect(both.embeddings[0]).not.toEqual(both.embeddings[1]!);
  expect(length(raw.embeddings[0]!)).not.toBeCloseTo(1, 2);
  const scaled = raw.embeddings[0]!.map((value) => value / length(raw.embeddings[0]!));
  for (const [index, value] of scaled.entries()) {
    expect(value).toBeCloseTo(one.embeddings[0]![index]!, 6);
  }
  expect(last.embeddings[0]).not.toEqual(one.embeddings[0]!);
  expect(both.promptTokens).toBeGreaterThan(one.promptTokens);
  expect(
    lines.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
    // An empty line has its vector: those after it stay in line.
  ).toEqual([both.embeddings[0], empty.embeddings[0], both.embeddings[1]]);
});

test("input that is not UTF-8 is refused with the place of its first wrong byte", async () => {
  const text = Buffer.from("Ein Bär, ein Bär\n");
  const bytes = Buffer.concat([text.subarray(0, 8), Buffer.from([0xe4]), text.subarray(8)]);
  const path = join(folder, "latin1.txt");
  writeFileSync(path, bytes);
  const commands = [
    [["run", builtIn, "--raw"], "stdin is not UTF-8: 0xe4 at byte 8"],
    [["tokenize", builtIn], "stdin is not UTF-8"],
    [["tokenize", builtIn, "--json-lines"], "line 1 of stdin is not UTF-8"],
    [["embed", builtIn], "stdin is not UTF-8"],
    [["perplexity", builtIn, path], "latin1.txt is not UTF-8: 0xe4 at byte 8"],
  ] as const;
  for (const [args, message] of commands) {
    const { stdout, stderr, exitCode } = await tinfer(args, { stdin: bytes });
    expect({ args, stdout, exitCode }).toEqual({ args, stdout: "", exitCode: 2 });
    expect(stderr).toContain(message);
    expect(stderr).toContain("iconv");
  }
});
