// A few seconds of the GGUF fuzzer in every test run; `gguf-fuzz.ts` alone runs for as long as asked.
import { expect, test } from "bun:test";
import { run } from "./gguf-fuzz.ts";

test("mutated GGUF files parse or are refused", () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const { iterations, accepted } = run(3, seed);
  process.stdout.write(`gguf fuzz: seed ${seed}, ${iterations} files, ${accepted} accepted\n`);
  // Both ends of the parser were reached: most mutations of a byte of data do no harm.
  expect(accepted).toBeGreaterThan(0);
  expect(iterations).toBeGreaterThan(accepted);
}, 30_000);
