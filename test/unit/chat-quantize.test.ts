// /quantize in a chat: how far the weights are is shown while they are made, and what came of it.
import { expect, test } from "bun:test";
import type { WorkProgress } from "../../src/chat/terminal.ts";
import { TinferError } from "../../src/core/errors.ts";
import type { EngineStatus, WeightChange } from "../../src/engine/client.ts";
import { fakeChat } from "./chat-fakes.ts";

/** A chat whose engine is as far as `states` say, one after another, and then done. */
async function talk(input: string, states: readonly (WeightChange | undefined)[]) {
  const { chat, terminal, model } = fakeChat([input]);
  const facts = { ...model.engine.facts, mainType: "f32", weightBytes: 5e6 };
  Object.defineProperty(model.engine, "facts", { get: () => facts });
  const left = [...states];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  model.engine.status = async () => {
    const weightChange = left.shift();
    if (left.length === 0) resolve();
    return { weightChange } as EngineStatus;
  };
  model.engine.setWeightType = async (type) => {
    if (type === "q9") reject(new TinferError("usage", "there is no q9"));
    await promise;
    facts.mainType = type;
  };
  const shown: (WorkProgress | undefined)[] = [];
  terminal.progress = (state?: WorkProgress) => void shown.push(state);
  await chat.run();
  return { terminal, shown };
}

const change = (doneBytes: number, totalBytes: number) => ({ type: "q8_0", doneBytes, totalBytes });

test("/quantize shows how far it is, once the size is known, and clears it", async () => {
  const states = [change(0, 0), change(1e6, 4e6), change(3e6, 4e6), undefined];
  const { terminal, shown } = await talk("/quantize q8_0", states);
  const line = { label: "weights to q8_0", total: 4e6, unit: "bytes" } as const;
  expect(shown).toEqual([{ ...line, done: 1e6 }, { ...line, done: 3e6 }, undefined]);
  expect(terminal.notes).toEqual(["weights are mostly q8_0, 5.0 MB"]);
});

test("a type that does not exist is an error, with nothing left on the screen", async () => {
  const { terminal, shown } = await talk("/quantize q9", []);
  expect(shown).toEqual([undefined]);
  expect(terminal.errors.map(({ message }) => message)).toEqual(["there is no q9"]);
});

test("Ctrl-C stops it and the chat goes on", async () => {
  const { chat, terminal, model } = fakeChat(["/quantize q8_0", "hello"]);
  const facts = { ...model.engine.facts, mainType: "f16", weightBytes: 5e6 };
  Object.defineProperty(model.engine, "facts", { get: () => facts });
  model.engine.status = async () => ({}) as EngineStatus;
  model.engine.setWeightType = (_, signal) =>
    new Promise((_, reject) => {
      signal!.addEventListener("abort", () => reject(new TinferError("cancelled", "interrupted")));
      terminal.interrupt();
    });
  const cleared = "(the line of the progress is cleared)";
  terminal.progress = () => void terminal.notes.push(cleared);
  await chat.run();
  const said = terminal.notes.slice(0, 3);
  expect(said).toEqual([cleared, "stopped", "weights are mostly f16, 5.0 MB"]);
  expect(model.requests.length).toBe(1);
});
