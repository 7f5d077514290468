// POST /v1/models/quantize: the answer in progress goes on, and wrong types are refused.
import { expect, setDefaultTimeout, test } from "bun:test";
import { launchServer, until } from "./running-server.ts";

setDefaultTimeout(60_000);

test("weights change their type while an answer is written", async () => {
  await using server = launchServer();
  await server.ready;
  const prompt = { model: "tiny", prompt: "Once upon a time", max_tokens: 300, temperature: 0 };
  const answer = server.post("/v1/completions", { ...prompt, ignore_eos: true });
  const path = "/v1/models/quantize";
  const state = async () => (await fetch(server.url + path)).json();
  expect(await state()).toMatchObject({ model: "tiny", type: "f32", change: null });
  const changing = server.post(path, { type: "q8_0" });
  let seen: unknown = null;
  await until(async () => {
    ({ change: seen } = (await state()) as { change: unknown });
    return seen !== null;
  });
  expect(seen).toMatchObject({ type: "q8_0", done_bytes: expect.any(Number) });
  const changed = await changing;
  expect(changed.status).toBe(200);
  expect(await changed.json()).toMatchObject({ model: "tiny", type: "q8_0", change: null });
  const { choices } = (await (await answer).json()) as { choices: { text: string }[] };
  expect(choices[0]!.text.length).toBeGreaterThan(100);
  const models = await (await fetch(`${server.url}/v1/models`)).json();
  expect(models).toMatchObject({ data: [{ meta: { type: "q8_0" } }] });
  const refused = await server.post("/v1/models/quantize", { type: "q9" });
  expect(refused.status).toBe(400);
  expect(await refused.text()).toContain("q9");
  const back = await server.post("/v1/models/quantize", { type: "original" });
  expect(await back.json()).toMatchObject({ type: "f32" });
});
