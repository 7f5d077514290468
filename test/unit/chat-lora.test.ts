// /lora in a chat: which adapters the engine is told to take, what is said, and that the
// conversation stays.
import { expect, test } from "bun:test";
import { resolve } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import type { AdapterChoice } from "../../src/engine/adapter-choice.ts";
import { fakeChat } from "./chat-fakes.ts";

/** A chat whose engine takes adapters, except those that are called "bad". */
async function talk(...inputs: string[]) {
  const { chat, terminal, model } = fakeChat(inputs);
  const taken: AdapterChoice[][] = [];
  let facts = { maxContextLen: 500, adapters: [] as readonly AdapterChoice[] };
  Object.defineProperty(model.engine, "facts", { get: () => facts });
  model.engine.setAdapters = async (adapters) => {
    if (adapters.some(({ name }) => name === "bad")) throw new TinferError("usage", "bad adapter");
    taken.push([...adapters]);
    facts = { ...facts, adapters };
  };
  await chat.run();
  return { taken, terminal, messages: chat.session.messages };
}

test("/lora takes these adapters instead of those there are; off takes none", async () => {
  const { taken, terminal, messages } = await talk(
    "hello",
    "/lora",
    "/lora a/style.gguf",
    "/lora a/style.gguf=0.5 tone.gguf=2",
    "/lora off",
  );
  expect(taken).toEqual([
    [{ name: "style", path: resolve("a/style.gguf"), scale: 1 }],
    [
      { name: "style", path: resolve("a/style.gguf"), scale: 0.5 },
      { name: "tone", path: resolve("tone.gguf"), scale: 2 },
    ],
    [],
  ]);
  const said = terminal.notes.filter((note) => note.includes("adapter"));
  expect(said).toEqual([
    "there is no adapter",
    "adapters: style",
    "adapters: style × 0.5, tone × 2",
    "there is no adapter",
  ]);
  // What the change costs, with each of them.
  expect(terminal.notes.filter((note) => note.includes("read again"))).toHaveLength(3);
  expect(messages).toHaveLength(2);
});

test("an adapter that does not fit is said, and all stays as it was", async () => {
  const { taken, terminal } = await talk(
    "/lora style.gguf",
    "/lora bad.gguf",
    "/lora x=y",
    "/lora",
  );
  expect(taken).toHaveLength(1);
  expect(terminal.errors.map(({ message }) => message)).toEqual([
    "bad adapter",
    "the scale of an adapter is not a number: x=y",
  ]);
  expect(terminal.notes.at(-1)).toBe("adapters: style");
});
