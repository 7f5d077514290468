// What is planned for a given amount of free memory: the context that fits, the plan for it, and
// how many threads compute it.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { maxThreads, threadsFor } from "../../src/engine/machine.ts";
import { sessionBytes } from "../../src/engine/memory-plan.ts";
import { ModelFile } from "../../src/engine/model-file.ts";
import { planModel } from "../../src/engine/model-plan.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import { blockSize } from "../../src/plan/arena.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyModel, tinySize } from "../cli/tiny-model.ts";

const firstLen = 600;
let folder = "";
let file: ModelFile;

/** A model with rope factors for contexts up to `firstLen` and others for longer ones. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-memory-plan-"));
  const path = join(folder, "tiny.gguf");
  const { metadata, tensors } = tinyModel({ contextLen: 8192 });
  const rotated = tinySize.hidden / tinySize.heads / 2;
  const factors = [1, 2].map((factor, index) => ({
    name: `rope_factors_${["short", "long"][index]}.weight`,
    type: "f32" as const,
    shape: [rotated],
    content: new Uint8Array(new Float32Array(rotated).fill(factor).buffer),
  }));
  const key = "llama.rope.scaling.original_context_length";
  writeGguf(path, {
    metadata: [...metadata, [key, { type: "u32", value: firstLen }]],
    tensors: [...tensors, ...factors],
  });
  file = new ModelFile(path);
});
afterAll(() => {
  file[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

function planned(options: Partial<ModelOptions>, availableBytes: number) {
  return planModel(file, "tokens", { ...defaultModelOptions, ...options }, { availableBytes });
}

describe("context", () => {
  test("the largest one that fits is named exactly, whatever was asked for", () => {
    for (const maxSequences of [1, 64, 4096]) {
      const fails = (contextLen: number) => {
        try {
          planned({ maxSequences, contextLen, numThreads: 4 }, 2e9);
        } catch (error) {
          return error as TinferError;
        }
        return undefined;
      };
      const hints = [2 ** 24, 2 ** 28].map((contextLen) => fails(contextLen)?.hint ?? "");
      const named = Number(/--ctx (\d+)/.exec(hints[0]!)?.[1]);
      expect(hints[1]).toBe(hints[0]!);
      expect(fails(named)).toBeUndefined();
      expect(fails(named + blockSize)).toBeInstanceOf(TinferError);
    }
  });

  test("one that has shrunk has the rope factors of its own length", () => {
    const frequencies = ({ plan }: ReturnType<typeof planned>) => {
      const table = plan.weights.find(({ name }) => name.startsWith("rope frequencies"));
      return table!.constant!.table.make();
    };
    const contextLen = firstLen - (firstLen % blockSize);
    const short = planned({ contextLen }, 1e9);
    const available = sessionBytes(short.memoryPlan.memory) + file.untakenBytes;
    const shrunk = planned({}, available);
    expect(shrunk.memoryPlan.maxContextLen).toBe(contextLen);
    expect(frequencies(shrunk)).toEqual(frequencies(short));
    expect(frequencies(planned({}, 1e9))).not.toEqual(frequencies(short));
  });
});

describe("threads", () => {
  test("are no more by default than can run", () => {
    expect([threadsFor(8), threadsFor(8, 2.4), threadsFor(8, 0.2)]).toEqual([8, 2, 1]);
    expect(threadsFor(384)).toBe(maxThreads);
  });

  test("a list of more CPUs is refused by its name", () => {
    const cpus = Array.from({ length: 300 }, (_, cpu) => cpu);
    expect(() => planned({ cpus }, 1e9)).toThrow("--cpus names 300 CPUs");
  });
});
