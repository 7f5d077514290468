// How tokens become the pieces of an answer: reasoning apart from content, log probabilities
// beside their text, and streams that stay alive while nothing is said.
import { expect, test } from "bun:test";
import { AnswerParts } from "../../src/server/answers.ts";
import { Exchange } from "../../src/server/exchange.ts";
import { streamResponse } from "../../src/server/stream.ts";
import { ReasoningSplitter } from "../../src/template/reasoning.ts";
import {
  type ChatReply,
  type ErrorReply,
  jsonOf,
  readEvents,
  startTestServer,
} from "./running-server.ts";

const markers = { open: "<think>", close: "</think>" };

function split(pieces: readonly string[], startsInside: boolean) {
  const splitter = new ReasoningSplitter(markers, startsInside);
  const parts = new AnswerParts({ splitter, wantsLogprobs: false });
  const events = [...pieces.map((piece) => parts.pushText(piece)), parts.end(false)];
  let reasoning = "";
  let content = "";
  for (const event of events) {
    if (event?.kind !== "delta") continue;
    reasoning += event.reasoning;
    content += event.content;
  }
  return { reasoning, content };
}

test("reasoning and content come apart however the text is cut", () => {
  const text = "<think>\nFirst a thought.\n\nThen another.\n</think>\n\n  Hello </think> you.\n";
  const wanted = {
    reasoning: "First a thought.\n\nThen another.",
    content: "Hello </think> you.\n",
  };
  for (let size = 1; size <= text.length; size++) {
    const pieces = text.match(new RegExp(`[^]{1,${size}}`, "g"))!;
    expect([size, split(pieces, false)]).toEqual([size, wanted]);
  }
  const opened = text.slice("<think>\n".length);
  for (let size = 1; size <= opened.length; size++) {
    expect(split(opened.match(new RegExp(`[^]{1,${size}}`, "g"))!, true)).toEqual(wanted);
  }
});

test("text without reasoning comes out unchanged", () => {
  expect(split(["  a ", "b", " \n"], false)).toEqual({ reasoning: "", content: "  a b \n" });
});

test("tokens wait for their text; those of a stop string have none", () => {
  const parts = new AnswerParts({ splitter: undefined, wantsLogprobs: true });
  const push = (tokenId: number, text: string, isStop = false) =>
    parts.push({ kind: "token", tokenId, text, textOffset: 0, logprob: 0, top: [] }, isStop);
  const ids = (event: ReturnType<typeof push>) =>
    event?.kind === "delta" ? event.tokens.map(({ tokenId }) => tokenId) : undefined;
  expect(ids(push(1, "a"))).toEqual([1]);
  expect(push(2, "")).toBeUndefined(); // The first half of a character.
  expect(ids(push(3, "é"))).toEqual([2, 3]);
  expect(push(4, "")).toBeUndefined();
  expect(push(5, "", true)).toBeUndefined();
  expect(parts.end(true)).toBeUndefined();
});

test("a model that thinks: reasoning_content in one dialect, thinking in the other", async () => {
  const template =
    "{{ messages[-1].content }}{% if enable_thinking is not false %}<think>{% endif %}";
  await using server = await startTestServer({ template });
  const messages = [{ role: "user", content: "Once upon a time" }];
  const openai = { messages, temperature: 0, max_tokens: 8 };
  const { choices } = await jsonOf<ChatReply>(server.post("/v1/chat/completions", openai));
  const { content, reasoning_content: reasoning } = choices[0]!.message;
  expect(content).toBe("");
  expect(reasoning!.length).toBeGreaterThan(3);
  const streamed = await server.post("/v1/chat/completions", { ...openai, stream: true });
  const { values } = await readEvents(streamed);
  expect(values.map((value) => value.choices[0].delta.reasoning_content ?? "").join("")).toBe(
    reasoning!,
  );
  const options = { temperature: 0, num_predict: 8 };
  const body = { messages, options, stream: false };
  type OllamaReply = { message: { content: string; thinking?: string } };
  const ollama = await jsonOf<OllamaReply>(server.post("/api/chat", body));
  expect(ollama.message).toMatchObject({ role: "assistant", content: "" });
  expect(ollama.message.thinking).toBe(reasoning!);
  const off = await jsonOf<OllamaReply>(server.post("/api/chat", { ...body, think: false }));
  expect(off.message.thinking).toBeUndefined();
  expect(off.message.content.length).toBeGreaterThan(3);
  const low = { ...openai, reasoning_effort: "none" };
  const none = await jsonOf<ChatReply>(server.post("/v1/chat/completions", low));
  expect(none.choices[0]!.message.content).toBe(off.message.content);
});

function exchangeFor(request = new Request("http://localhost/")): Exchange {
  return new Exchange(request, "/", () => {});
}

test("silent streams are kept alive by comments, which come no more after the end", async () => {
  const response = streamResponse(
    "openai",
    exchangeFor(),
    { pingMs: 5, onError() {} },
    async (send) => {
      await Bun.sleep(40);
      send({ a: 1 });
    },
  );
  const text = await response.text();
  expect(text.match(/^: ping$/gm)!.length).toBeGreaterThan(2);
  expect(text).toEndWith('data: {"a":1}\n\ndata: [DONE]\n\n');
});

test("an error in the middle is the last thing that a stream says", async () => {
  const seen: unknown[] = [];
  const bug = new Error("oh no");
  const onError = (error: unknown) => seen.push(error);
  for (const dialect of ["openai", "ollama"] as const) {
    const response = streamResponse(dialect, exchangeFor(), { onError }, async (send) => {
      send({ a: 1 });
      throw bug;
    });
    const lines = (await response.text()).trim().split(/\n+/);
    expect(lines.length).toBe(2);
    const last = JSON.parse(lines[1]!.replace("data: ", "")) as ErrorReply;
    expect(JSON.stringify(last)).not.toContain("oh no");
    expect(last.error).toBeDefined();
  }
  expect(seen).toEqual([bug, bug]);
});

test("an answer waits for its reader, but not without bound", async () => {
  const value = { text: "x".repeat(999_990) };
  const streamOf = (count: number, onError: (error: unknown) => void) =>
    streamResponse("ollama", exchangeFor(), { onError }, async (send) => {
      for (let i = 0; i < count; i++) {
        send(value);
        await Promise.resolve();
      }
    });
  const linesOf = async (response: Response) => (await response.text()).trim().split("\n");
  const errors: unknown[] = [];
  const late = streamOf(30, (error) => errors.push(error));
  const lost = streamOf(200, (error) => errors.push(error));
  await Bun.sleep(0);
  expect(await linesOf(late)).toHaveLength(30);
  expect(errors).toHaveLength(1);
  const lines = await linesOf(lost);
  expect(lines).toHaveLength(33);
  expect(lines.at(-1)).toContain("the client left 32 MB of the answer unread");
});

test("a reader that leaves raises the signal of the work", async () => {
  const exchange = exchangeFor();
  const response = streamResponse("openai", exchange, { onError() {} }, async (send) => {
    send({ a: 1 });
    await new Promise((resolve) => exchange.signal.addEventListener("abort", resolve));
    throw exchange.signal.reason;
  });
  const reader = response.body!.getReader();
  await reader.read();
  expect(exchange.signal.aborted).toBe(false);
  await reader.cancel();
  expect(exchange.signal.aborted).toBe(true);
});
