// `--sliding-window` against the golden models: the file's own length changes nothing, another one
// changes exactly the positions that lose sight of the first ones.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf } from "./reference-logits.ts";

const golden = goldenFolder("golden sliding windows");

/** Models with the window that their family applies; 0 = none although the file may name one. */
const windows: Readonly<Record<string, number>> = {
  ...{ gemma2: 32, gemma3: 32, "gemma3-linear-rope": 24, olmo3: 32 },
  ...{ llama2: 0, "mistral-window": 0, qwen2: 0, "phi3-longrope": 0, gpt2: 0 },
};

/** First position whose logits differ. */
function firstChange(a: Float32Array, b: Float32Array, vocabSize: number): number | undefined {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at < 0 ? undefined : Math.floor(at / vocabSize);
}

if (golden !== undefined) {
  for (const [name, own] of Object.entries(windows)) {
    describe(name, () => {
      const path = join(golden, "architectures", `${name}.gguf`);
      const facts = JSON.parse(readFileSync(path.replace(".gguf", ".json"), "utf8"));
      const { tokenIds, vocabSize, contextSize: contextLen } = facts;
      const logits = (slidingWindow: "auto" | "off" | number) =>
        logitsOf(path, tokenIds, tokenIds.length, { backend: "cpu", contextLen, slidingWindow });
      const auto = logits("auto");

      test("the family's own length, or off where it has none, is what auto does", () => {
        expect(firstChange(logits(own === 0 ? "off" : own), auto, vocabSize)).toBeUndefined();
      });

      test("another length changes what lies beyond the shorter one", () => {
        expect(firstChange(logits(10), auto, vocabSize)).toBe(10);
        if (own > 0) expect(firstChange(logits("off"), auto, vocabSize)).toBe(own);
      });
    });
  }
}
