// The real small models: greedy continuations through the command line, token for token.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tinferJson } from "../cli/spawn.ts";
import { goldenFolder } from "../golden-folder.ts";

setDefaultTimeout(180_000);

interface Golden {
  prompt: string;
  promptTokenIds: number[];
  completionTokenIds: number[];
  finishReason: string;
  text: string;
}

type Answer = Omit<Golden, "prompt">;

const golden = goldenFolder("golden models");
if (golden !== undefined) runGoldens(join(golden, "models"));

function runGoldens(folder: string): void {
  const files = readdirSync(folder).filter((file) => /\.greedy.*\.json$/.test(file));
  test("golden models are there", () => expect(files.length).toBeGreaterThan(3));
  for (const backend of ["cpu", "reference"]) {
    describe(`greedy continuations, ${backend}`, () => {
      for (const file of files) {
        test(file, () => check(folder, file, backend));
      }
    });
  }
}

async function check(folder: string, file: string, backend: string): Promise<void> {
  const model = join(folder, file.replace(/\.greedy.*$/, ".gguf"));
  const goldens = JSON.parse(readFileSync(join(folder, file), "utf8")) as Golden[];
  expect(goldens.length).toBeGreaterThan(0);
  // One thread each: the prompts of a file run side by side.
  const flags = ["--raw", "--temperature", "0", "--max-tokens", "200", "--threads", "1"];
  flags.push("--backend", backend);
  // The model likes <unk> too much; these goldens were made with it banned.
  if (file.includes("without-unk")) flags.push("--logit-bias", "0=-inf");
  const ask = ({ prompt }: Golden) => tinferJson<Answer>(["run", model, prompt, ...flags]);
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
