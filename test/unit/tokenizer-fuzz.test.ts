// A short pass of the tokenizer fuzzer, the same texts each time.
import { expect, test } from "bun:test";
import { run } from "../fuzz/tokenizer-fuzz.ts";

test("tokenizers survive a few seconds of fuzzing", () => {
  expect(() => run(1.5, 20250101)).not.toThrow();
});
