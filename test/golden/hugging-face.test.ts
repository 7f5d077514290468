// Model folders of Hugging Face: the logits and greedy continuations of the stored reference.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openModel } from "../../src/engine/open-model.ts";
import { knownArchitectures } from "../../src/models/registry.ts";
import { getString } from "../../src/weights/metadata.ts";
import { tinferJson } from "../cli/spawn.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

setDefaultTimeout(180_000);

const mostNmse = 1e-6;
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
  });
}

test("the golden folder has cases", () => {
  if (folder !== undefined) expect(readCases()).toContain("llama-bf16");
});
