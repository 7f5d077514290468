// OpenAI's own client against the server: chat, completions, embeddings, models, errors.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";
import { goldenFolder } from "../golden-folder.ts";
import {
  jsonOf,
  readEvents,
  startTestServer,
  type TestServer,
  type TokensReply,
} from "./running-server.ts";

setDefaultTimeout(60_000);

let server: TestServer;
let client: OpenAI;
const prompt = "Once upon a time";
const messages = [{ role: "user" as const, content: prompt }];
const greedy = { model: "tiny", temperature: 0, max_tokens: 24 };

beforeAll(async () => {
  server = await startTestServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  expect(server.bugs).toEqual([]);
});

test("a chat is the same streamed and whole", async () => {
  const whole = await client.chat.completions.create({ ...greedy, messages });
  const stream = await client.chat.completions.create({
    ...greedy,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let role: string | undefined;
  const reasons: string[] = [];
  let usage: OpenAI.CompletionUsage | null | undefined;
  for await (const chunk of stream) {
    expect(chunk.object).toBe("chat.completion.chunk");
    role ??= chunk.choices[0]?.delta.role;
    text += chunk.choices[0]?.delta.content ?? "";
    const reason = chunk.choices[0]?.finish_reason;
    if (reason) reasons.push(reason);
    if (chunk.choices.length === 0) usage = chunk.usage;
  }
  expect(role).toBe("assistant");
  expect(text.length).toBeGreaterThan(20);
  expect(whole.choices[0]!.message.content).toBe(text);
  expect(whole.choices[0]!.finish_reason).toBe("length");
  expect(reasons).toEqual(["length"]);
  expect(usage!.completion_tokens).toBe(24);
  expect(usage!.total_tokens).toBe(usage!.prompt_tokens + 24);
  expect(usage!.prompt_tokens).toBe(whole.usage!.prompt_tokens);
});

test("a stream ends with [DONE] and has no usage unless asked for", async () => {
  const response = await server.post("/v1/chat/completions", { ...greedy, messages, stream: true });
  expect(response.headers.get("Content-Type")).toStartWith("text/event-stream");
  const { values, isDone } = await readEvents(response);
  expect(isDone).toBe(true);
  expect(values.every((value) => value.choices.length === 1 && !("usage" in value))).toBe(true);
});

test("a stop string ends the text before it, in every form of stop", async () => {
  const { choices } = await client.completions.create({ ...greedy, prompt });
  const full = choices[0]!.text;
  const stop = full.slice(12, 17);
  const cut = full.slice(0, full.indexOf(stop));
  const cancelled = await server.metric("tinfer_cancelled_total");
  for (const given of [stop, [stop], ["never seen", stop]]) {
    const answer = await client.completions.create({ ...greedy, prompt, stop: given });
    expect(answer.choices[0]!.text).toBe(cut);
    expect(answer.choices[0]!.finish_reason).toBe("stop");
  }
  const streamed = await client.completions.create({ ...greedy, prompt, stop, stream: true });
  let text = "";
  for await (const chunk of streamed) text += chunk.choices[0]!.text;
  expect(text).toBe(cut);
  expect(await server.metric("tinfer_cancelled_total")).toBe(cancelled);
});

test("a stopped answer reports what the prefix cache gave", async () => {
  const long = `${"The dog and the cat went to the park. ".repeat(8)}They`;
  const request = { ...greedy, prompt: long, stop: "a" };
  await client.completions.create(request);
  const { usage } = await client.completions.create(request);
  expect(usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(32);
});

test("a seed repeats an answer, another one changes it", async () => {
  const ask = async (seed: number) => {
    const sampled = { ...greedy, temperature: 1.2, max_tokens: 40, seed, messages };
    return (await client.chat.completions.create(sampled)).choices[0]!.message.content;
  };
  expect(await ask(7)).toBe(await ask(7));
  expect(await ask(7)).not.toBe(await ask(8));
  expect(await ask(-1)).toBe(await ask(-1));
});

test("n answers: the first is the one of a single request, a prompt counts once", async () => {
  const sampled = { ...greedy, temperature: 1.2, seed: 5, messages };
  const alone = await client.chat.completions.create(sampled);
  const three = await client.chat.completions.create({ ...sampled, n: 3 });
  const texts = three.choices.map(({ message }) => message.content);
  expect(three.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
  expect(texts[0]).toBe(alone.choices[0]!.message.content);
  expect(new Set(texts).size).toBe(3);
  expect(three.usage!.prompt_tokens).toBe(alone.usage!.prompt_tokens);
  expect(three.usage!.completion_tokens).toBe(72);
  const stream = await client.chat.completions.create({ ...sampled, n: 3, stream: true });
  const streamed = ["", "", ""];
  for await (const { choices } of stream) {
    streamed[choices[0]!.index]! += choices[0]!.delta.content ?? "";
  }
  expect(streamed).toEqual(texts as string[]);
});

test("logprobs of a chat belong to the text, the best first", async () => {
  const request = { ...greedy, messages, logprobs: true, top_logprobs: 3 };
  const { choices } = await client.chat.completions.create(request);
  const content = choices[0]!.logprobs!.content!;
  expect(content.map(({ token }) => token).join("")).toBe(choices[0]!.message.content!);
  expect(content.length).toBe(24);
  for (const { token, logprob, bytes, top_logprobs: top } of content) {
    expect(top.length).toBe(3);
    expect(top[0]!.token).toBe(token); // Greedy takes the best.
    expect(top[0]!.logprob).toBe(logprob);
    expect(logprob).toBeLessThanOrEqual(0);
    expect(new TextDecoder().decode(Uint8Array.from(bytes!))).toBe(token);
  }
  const bare = await client.chat.completions.create({ ...greedy, messages, logprobs: true });
  const chosen = bare.choices[0]!.logprobs!.content!;
  expect(chosen.map(({ logprob }) => logprob)).toEqual(content.map(({ logprob }) => logprob));
  expect(chosen[0]!.top_logprobs).toEqual([]);
});

test("logprobs of completions are parallel arrays, also in pieces", async () => {
  const { choices } = await client.completions.create({ ...greedy, prompt, logprobs: 2 });
  const { text, logprobs } = choices[0]!;
  expect(logprobs!.tokens!.join("")).toBe(text);
  const offsets = logprobs!.text_offset!;
  logprobs!.tokens!.forEach((token, i) => {
    expect(text.slice(offsets[i]!, offsets[i]! + token.length)).toBe(token);
    expect(Object.keys(logprobs!.top_logprobs![i]!)).toContain(token);
  });
  const stream = await client.completions.create({ ...greedy, prompt, logprobs: 2, stream: true });
  const pieces: string[] = [];
  const pieceOffsets: number[] = [];
  for await (const chunk of stream) {
    pieces.push(...(chunk.choices[0]!.logprobs?.tokens ?? []));
    pieceOffsets.push(...(chunk.choices[0]!.logprobs?.text_offset ?? []));
  }
  expect(pieces).toEqual(logprobs!.tokens!);
  expect(pieceOffsets).toEqual(offsets);
});

interface Completion {
  choices: {
    text: string;
    logprobs: { tokens: string[]; text_offset: number[]; top_logprobs: object[] };
  }[];
}

test("offsets count text that is held back, and none for tokens that have none", async () => {
  const plain = { ...greedy, prompt, logprobs: 0 };
  const free = await jsonOf<Completion>(server.post("/v1/completions", plain));
  const { text, logprobs } = free.choices[0]!;
  const stop = `${text.slice(8, 14)}\0`; // Begins in the text, but is not there.
  const held = { ...plain, stop, stream: true };
  const { values } = await readEvents(await server.post("/v1/completions", held));
  const offsets = values.flatMap((value) => value.choices[0].logprobs.text_offset);
  expect(offsets).toEqual(logprobs.text_offset);
  const unknownId = 0;
  const hidden = { ...plain, max_tokens: 3, logit_bias: { [unknownId]: 100 } };
  const { choices } = await jsonOf<Completion>(server.post("/v1/completions", hidden));
  expect(choices[0]).toMatchObject({ text: "", logprobs: { text_offset: [0, 0, 0] } });
  const body = { ...hidden, messages, logprobs: true, prompt: undefined };
  const chat = await jsonOf<OpenAI.ChatCompletion>(server.post("/v1/chat/completions", body));
  const tokens = chat.choices[0]!.logprobs!.content!;
  expect(tokens.map(({ token, bytes }) => [token, bytes])).toEqual(Array(3).fill(["<unk>", null]));
});

test("completions name tokens that are parts of a character by their bytes", async () => {
  const firstByteId = 3; // Of <0x00>.
  for (const [byte, name] of [
    [0xe2, "bytes:\\xe2"],
    [0x41, "A"],
  ] as const) {
    const logit_bias = { [firstByteId + byte]: 100 };
    const request = { ...greedy, prompt, logprobs: 0, max_tokens: 1, logit_bias };
    const { choices } = await jsonOf<Completion>(server.post("/v1/completions", request));
    expect(choices[0]!.logprobs.tokens).toEqual([name]);
  }
});

test("logit_bias bans a token, penalties change the text", async () => {
  const first = await client.completions.create({ ...greedy, prompt, max_tokens: 1, logprobs: 0 });
  const token = first.choices[0]!.text;
  const asked = server.post("/tokenize", { content: prompt + token });
  const tokenId = (await jsonOf<TokensReply>(asked)).tokens.at(-1)!;
  const request = { ...greedy, prompt, max_tokens: 1, logit_bias: { [tokenId]: -100 } };
  expect((await client.completions.create(request)).choices[0]!.text).not.toBe(token);
  const free = await client.completions.create({ ...greedy, prompt, max_tokens: 60 });
  const penalised = { ...greedy, prompt, max_tokens: 60, frequency_penalty: 2 };
  expect((await client.completions.create(penalised)).choices[0]!.text).not.toBe(
    free.choices[0]!.text,
  );
});

test("completions take several prompts, as text and as token ids, and echo", async () => {
  const other = "The cat";
  const [one, two] = await Promise.all(
    [prompt, other].map((each) => client.completions.create({ ...greedy, prompt: each })),
  );
  const both = await client.completions.create({ ...greedy, prompt: [prompt, other] });
  expect(both.choices.map(({ text }) => text)).toEqual([
    one!.choices[0]!.text,
    two!.choices[0]!.text,
  ]);
  expect(both.usage!.prompt_tokens).toBe(one!.usage!.prompt_tokens + two!.usage!.prompt_tokens);
  const asked = server.post("/tokenize", { content: prompt, add_special: true });
  const { tokens } = await jsonOf<TokensReply>(asked);
  const byIds = await client.completions.create({ ...greedy, prompt: tokens });
  expect(byIds.choices[0]!.text).toBe(one!.choices[0]!.text);
  const echoed = await client.completions.create({ ...greedy, prompt, echo: true });
  expect(echoed.choices[0]!.text).toBe(prompt + one!.choices[0]!.text);
});

test("embeddings: of length 1, the same as floats and base64, one per text", async () => {
  const texts = ["The dog ran.", "A cat slept."];
  const base64 = await client.embeddings.create({ model: "tiny", input: texts });
  const floats = await client.embeddings.create({
    model: "tiny",
    input: texts,
    encoding_format: "float",
  });
  expect(floats.data.map(({ embedding }) => embedding)).toEqual(
    base64.data.map(({ embedding }) => embedding),
  );
  const [first, second] = floats.data.map(({ embedding }) => embedding);
  expect(Math.hypot(...first!)).toBeCloseTo(1, 5);
  expect(first).not.toEqual(second!);
  expect(floats.usage.prompt_tokens).toBeGreaterThan(4);
  const alone = await client.embeddings.create({ model: "tiny", input: texts[1]! });
  expect(alone.data[0]!.embedding).toEqual(base64.data[1]!.embedding);
});

test("embeddings: token ids are texts, and fewer dimensions are the first ones", async () => {
  const { tokens } = await jsonOf<TokensReply>(
    server.post("/tokenize", { content: "The dog ran.", add_special: true }),
  );
  const embed = async (input: string | number[] | number[][], dimensions?: number) => {
    const changes = dimensions === undefined ? {} : { dimensions };
    const reply = await client.embeddings.create({ model: "tiny", input, ...changes });
    return reply.data.map(({ embedding }) => embedding);
  };
  const [whole] = await embed("The dog ran.");
  expect(await embed(tokens)).toEqual([whole!]);
  expect(await embed([tokens, tokens.slice(0, 2)])).toHaveLength(2);
  const [few] = await embed(tokens, 10);
  const length = Math.hypot(...whole!.slice(0, 10));
  expect(few).toHaveLength(10);
  few!.forEach((value, i) => {
    expect(value).toBeCloseTo(whole![i]! / length, 5);
  });
  expect(await embed(tokens, whole!.length)).toEqual([whole!]);
});

test("models are listed and found by each of their names", async () => {
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(["tiny"]);
  for (const name of ["tiny", "story-teller", "stories260K", "stories260K.gguf"]) {
    expect((await client.models.retrieve(name)).id).toBe("tiny");
  }
});

test("errors are of the client's own classes", async () => {
  const ask = (changes: object) =>
    client.chat.completions.create({ ...greedy, messages, ...changes }).then(
      () => undefined,
      (error: unknown) => error as InstanceType<typeof OpenAI.APIError>,
    );
  const unknown = await ask({ model: "gpt-x" });
  expect(unknown).toBeInstanceOf(OpenAI.NotFoundError);
  expect(unknown!.message).toContain("tiny");
  const bad = await ask({ temperature: -1 });
  expect(bad).toBeInstanceOf(OpenAI.BadRequestError);
  expect(bad!.param).toBe("temperature");
  const long = await ask({ messages: [{ role: "user", content: "dog ".repeat(900) }] });
  expect(long).toBeInstanceOf(OpenAI.BadRequestError);
  expect(long!.code).toBe("context_length_exceeded");
  const counted = server.post("/tokenize", { content: "dog ".repeat(900), add_special: true });
  const { count } = await jsonOf<TokensReply>(counted);
  expect(long!.message).toContain(`${count} tokens`);
  expect(long!.message).toContain("512");
  // Far too long: not all of it is read.
  const huge = await ask({ messages: [{ role: "user", content: "dog ".repeat(9000) }] });
  expect(huge!.code).toBe("context_length_exceeded");
  expect(huge!.message).toContain("the prompt has more than 16384 tokens, the context 512");
});

test("unknown fields are let pass and named", async () => {
  const body = { ...greedy, messages, user: "me", surprise: 1, stream_options: null };
  const response = await server.post("/v1/chat/completions", body);
  expect(response.status).toBe(200);
  expect(response.headers.get("X-Tinfer-Ignored")).toBe("surprise");
});

test("greedy text is the reference's", async () => {
  const folder = goldenFolder("server");
  if (folder === undefined) return;
  const file = join(folder, "models", "stories260K.greedy.json");
  const goldens = JSON.parse(readFileSync(file, "utf8")) as GreedyGolden[];
  await using exact = await startTestServer({ kvType: "f32" });
  let numCompared = 0;
  for (const { prompt: text, completionTokenIds, text: wanted, minTop2Margin } of goldens) {
    if (minTop2Margin < 1e-3) continue;
    numCompared++;
    const body = { prompt: text, temperature: 0, max_tokens: completionTokenIds.length };
    const reply = exact.post("/v1/completions", body);
    const { choices } = await jsonOf<{ choices: { text: string }[] }>(reply);
    expect(choices[0]!.text).toBe(wanted);
  }
  expect(numCompared).toBeGreaterThan(0);
});

interface GreedyGolden {
  readonly prompt: string;
  readonly completionTokenIds: number[];
  readonly text: string;
  readonly minTop2Margin: number;
}
