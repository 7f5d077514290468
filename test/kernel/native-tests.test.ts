// Keeps the root of the kernels' own tests complete: `zig build test` runs what it imports.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const kernels = join(import.meta.dir, "..", "..", "kernels");

test("a root of `zig build test` imports every kernel file that has tests", () => {
  const [library, kernelTests] = ["abi.zig", "tests.zig"].map((file) =>
    readFileSync(join(kernels, file), "utf8"),
  );
  const files = readdirSync(kernels, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".zig") && !file.startsWith("lab"))
    .filter((file) => /^test /m.test(readFileSync(join(kernels, file), "utf8")));
  expect(files).toContain(join("cpu", "exp.zig"));
  for (const file of files) {
    const line = `@import("${file.replaceAll("\\", "/")}")`;
    if (!library!.includes(line)) expect(kernelTests).toContain(line);
  }
});
