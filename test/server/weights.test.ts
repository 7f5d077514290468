// POST /v1/models/quantize: the answer in progress goes on, and wrong types are refused.
import { expect, setDefaultTimeout, test } from "bun:test";
import { launchServer } from "./running-server.ts";

setDefaultTimeout(60_000);

test("weights change their type while an answer is written", async () => {
  await using server = launchServer();
  await server.ready;
  const prompt = { model: "tiny", prompt: "Once upon a time", max_tokens: 300, temperature: 0 };
  const answer = server.post("/v1/completions", { ...prompt, ignore_eos: true });
  const changed = await server.post("/v1/models/quantize", { type: "q8_0" });
  expect(changed.status).toBe(200);
  expect(await changed.json()).toMatchObject({ model: "tiny", type: "q8_0" });
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
