// A LoRA adapter over a real small model: base alone, with the adapter, and without it again,
// against reference logits and greedy continuations.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { Engine } from "../../src/engine/engine.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

setDefaultTimeout(120_000);

interface Greedy {
  readonly promptTokenIds: number[];
  readonly completionTokenIds: number[];
}

const golden = goldenFolder("golden LoRA adapter");
if (golden !== undefined) runGoldens(join(golden, "lora"));

function runGoldens(folder: string): void {
  const base = join(folder, "656k-lora-base.gguf");
  const adapter = join(folder, "656k-lora-adapter.gguf");
  const json = <T>(name: string) => JSON.parse(readFileSync(join(folder, name), "utf8")) as T;
  const { tokenIds, nmseBaseVsWithAdapter } = json<{
    tokenIds: number[];
    nmseBaseVsWithAdapter: number;
  }>("index.json");
  const wanted = readFloats(join(folder, "with-adapter.logits.f32"));
  const logits = (texts: readonly string[], options = {}, chunkLen = 64) =>
    logitsOf(base, tokenIds, chunkLen, { adapters: parseAdapters(texts), ...options });

  describe("logits", () => {
    const executors = [
      { backend: "reference" },
      ...cpuReport().variants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
    ];
    for (const executor of executors) {
      const name = Object.values(executor).join(" ");
      test(name, () => {
        expect(nmse(logits([adapter], executor), wanted)).toBeLessThan(1e-6);
        const halves = [`${adapter}=0.5`, `${adapter}=0.5`];
        expect(nmse(logits(halves, executor), wanted)).toBeLessThan(1e-6);
        const alone = logits([], executor);
        expect(Math.abs(nmse(alone, wanted) / nmseBaseVsWithAdapter - 1)).toBeLessThan(1e-3);
        // A scale of 0 leaves nothing of the adapter.
        expect(logits([`${adapter}=0`], executor)).toEqual(alone);
      });
    }
    test("the same bits whatever the chunks", () => {
      expect(logits([adapter], {}, 1)).toEqual(logits([adapter]));
    });
  });

  describe("greedy continuations", () => {
    const withAdapter = json<Greedy[]>("with-adapter.greedy.json");
    const alone = json<Greedy[]>("base.greedy.json");
    const answer = async (engine: Engine, { promptTokenIds }: Greedy) => {
      const ids: number[] = [];
      const events = engine.generate({
        promptTokenIds: Int32Array.from(promptTokenIds),
        maxTokens: 200,
        sampling: { ...defaultSampling, temperature: 0 },
        stopTokenIds: [2],
      });
      for await (const event of events) if (event.kind === "token") ids.push(event.tokenId);
      return ids;
    };
    const answers = (engine: Engine, prompts: readonly Greedy[]) =>
      Promise.all(prompts.map((prompt) => answer(engine, prompt)));
    const idsOf = (goldens: readonly Greedy[]) =>
      goldens.map(({ completionTokenIds }) => completionTokenIds);

    test("base, with the adapter, and switched off again", async () => {
      const options = { ...defaultModelOptions, kvTypeK: "f32", kvTypeV: "f32" } as const;
      await using engine = new Engine(base, { ...options, numThreads: 1, maxSequences: 2 });
      for (const texts of [[], [adapter], [], [`${adapter}=0.5`], [adapter], [`${adapter}=0`]]) {
        await engine.setAdapters(parseAdapters(texts));
        engine.checkIntegrity();
        if (texts[0]?.includes("0.5")) continue;
        const isOn = texts[0] === adapter;
        const goldens = isOn ? withAdapter : alone;
        expect(await answers(engine, goldens)).toEqual(idsOf(goldens));
      }
    });

    test("requests with and without it in one batch", async () => {
      const options = { ...defaultModelOptions, kvTypeK: "f32", kvTypeV: "f32" } as const;
      const adapters = parseAdapters([adapter]);
      const loaded = { ...options, adapters, numThreads: 1, maxSequences: 6 };
      await using engine = new Engine(base, loaded);
      const ask = async (goldens: readonly Greedy[], wants: readonly { scale: number }[]) => {
        const chosen = wants.map(({ scale }) => ({ name: adapters[0]!.name, scale }));
        const all = goldens.map(async ({ promptTokenIds }) => {
          const ids: number[] = [];
          const request = {
            promptTokenIds: Int32Array.from(promptTokenIds),
            maxTokens: 200,
            sampling: { ...defaultSampling, temperature: 0 },
            stopTokenIds: [2],
            adapters: chosen,
          };
          for await (const event of engine.generate(request)) {
            if (event.kind === "token") ids.push(event.tokenId);
          }
          return ids;
        });
        expect(await Promise.all(all)).toEqual(idsOf(goldens));
      };
      await Promise.all([ask(withAdapter, [{ scale: 1 }]), ask(alone, [])]);
      engine.checkIntegrity();
    });
  });
}
