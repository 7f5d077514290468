// Model folders of Hugging Face: the logits and greedy continuations of the stored reference.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModel } from "../../src/engine/open-model.ts";
import { knownArchitectures } from "../../src/models/registry.ts";
import { getString } from "../../src/weights/metadata.ts";
import { tinfer, tinferJson } from "../cli/spawn.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

setDefaultTimeout(180_000);

const mostNmse = 1e-6;
const outputs = mkdtempSync(join(tmpdir(), "tinfer-converted-"));
afterAll(() => rmSync(outputs, { recursive: true }));
const golden = goldenFolder("golden Hugging Face folders");
const folder = golden === undefined ? undefined : join(golden, "hf");

interface Greedy {
  prompt: string;
  promptTokenIds: number[];
  completionTokenIds: number[];
  finishReason: string;
  text: string;
}

function readCases(): string[] {
  if (folder === undefined) return [];
  const known = knownArchitectures();
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .filter((name) => {
      const { metadata } = openModel(join(folder, name));
      return known.includes(getString(metadata, "general.architecture")!);
    });
}

async function checkGreedy(path: string, backend: string): Promise<void> {
  const goldens = JSON.parse(readFileSync(`${path}.greedy.json`, "utf8")) as Greedy[];
  const flags = ["--raw", "--temperature", "0", "--max-tokens", "200", "--threads", "1"];
  flags.push("--backend", backend);
  const ask = ({ prompt }: Greedy) => tinferJson<Greedy>(["run", path, prompt, ...flags]);
  const answers = await Promise.all(goldens.map(ask));
  for (const [index, wanted] of goldens.entries()) {
    const { promptTokenIds, completionTokenIds, finishReason, text } = answers[index]!;
    expect({ promptTokenIds, completionTokenIds, finishReason, text }).toEqual({
      promptTokenIds: wanted.promptTokenIds,
      completionTokenIds: wanted.completionTokenIds,
      finishReason: wanted.finishReason,
      text: wanted.text,
    });
  }
}

for (const name of readCases()) {
  describe(name, () => {
    const path = join(folder!, name);
    const facts = JSON.parse(readFileSync(`${path}.json`, "utf8"));
    const reference = readFloats(join(folder!, facts.logitsFile));
    for (const backend of ["reference", "cpu"]) {
      test(`logits, ${backend}`, () => {
        const logits = logitsOf(path, facts.tokenIds, facts.tokenIds.length, { backend });
        expect(nmse(logits, reference)).toBeLessThan(mostNmse);
      });
      test(`greedy continuations, ${backend}`, () => checkGreedy(path, backend));
    }

    test("converted to GGUF, the logits are the same", async () => {
      const output = join(outputs, `${name}.gguf`);
      await tinferJson(["convert", path, output, "--type", "f32", "--json"]);
      const logits = logitsOf(output, facts.tokenIds, facts.tokenIds.length, { backend: "cpu" });
      expect(nmse(logits, reference)).toBeLessThan(mostNmse);
      const again = await tinfer(["convert", path, output]);
      expect(again.exitCode).toBe(2);
      expect(again.stderr).toContain("exists already");
    });

    test("quantised while loading, the logits are those of the quantised file", async () => {
      const output = join(outputs, `${name}-q8_0.gguf`);
      await tinferJson(["quantize", path, output, "q8_0", "--json"]);
      const options = { backend: "cpu", numThreads: 1 };
      const { tokenIds } = facts;
      const file = logitsOf(output, tokenIds, tokenIds.length, options);
      const folder = logitsOf(path, tokenIds, tokenIds.length, { ...options, quantize: "q8_0" });
      expect(Buffer.from(folder.buffer).equals(Buffer.from(file.buffer))).toBe(true);
      expect(nmse(file, reference)).toBeLessThan(1e-2);
    });
  });
}

test("the golden folder has cases", () => {
  if (folder !== undefined) expect(readCases()).toContain("llama-bf16");
});
