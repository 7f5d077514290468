// What a folder takes in memory while it is quantised: the memory plan, and beside it about a chunk
// of a tensor, however large the folder is.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { elementsOf, folderShapes, writeFolder } from "../tiny-folder.ts";

setDefaultTimeout(120_000);

const size = { hidden: 1024, heads: 16, kvHeads: 4, ffn: 4096, vocab: 16000, layers: 8 };
const module = (path: string) => JSON.stringify(join(import.meta.dir, "../../src", path));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-load-memory-"));
  writeFolder(join(folder, "model"), size, "BF16");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Loaded {
  /** Peak resident bytes of the process. */
  readonly before: number;
  readonly after: number;
  readonly plannedBytes: number;
  readonly derivedBytes: number;
}

/** Loads the folder in a process of its own. */
async function load(quantize: string): Promise<Loaded> {
  const program = `
    import { readFileSync } from "node:fs";
    import { LoadedModel } from ${module("engine/loaded-model.ts")};
    import { sessionBytes } from ${module("engine/memory-plan.ts")};
    import { defaultModelOptions } from ${module("engine/options.ts")};
    const peak = () => {
      const status = readFileSync("/proc/self/status", "utf8");
      return 1024 * Number(status.match(/VmHWM:\\s+(\\d+)/)[1]);
    };
    const before = peak();
    const options = { ...defaultModelOptions, contextLen: 64, numThreads: 1 };
    const path = ${JSON.stringify(join(folder, "model"))};
    using model = new LoadedModel(path, { ...options, quantize: "${quantize}" });
    const { derivedBytes } = model.file;
    const plannedBytes = derivedBytes + sessionBytes(model.memoryPlan.memory);
    console.log(JSON.stringify({ before, after: peak(), plannedBytes, derivedBytes }));`;
  const child = Bun.spawn([process.execPath, "-e", program], { stderr: "inherit" });
  expect(await child.exited).toBe(0);
  return (await child.stdout.json()) as Loaded;
}

test.skipIf(!existsSync("/proc/self/status"))("quantised while loading", async () => {
  const { permuted, plain } = folderShapes(size);
  const fileBytes = elementsOf([...permuted, ...plain]) * 2;
  const { before, after, plannedBytes, derivedBytes } = await load("q4_k_m");
  expect(derivedBytes).toBeLessThan(0.35 * fileBytes);
  // A chunk of at most 32 MB and what it becomes; measured are 18 MB.
  expect(after - before - plannedBytes).toBeLessThan(64e6);
});
