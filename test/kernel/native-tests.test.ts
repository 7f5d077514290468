// Keeps the root of the kernels' own tests complete: `zig build test` runs what it imports.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const kernels = join(import.meta.dir, "..", "..", "kernels");

test("kernels/tests.zig imports every kernel file that has tests", () => {
  const root = readFileSync(join(kernels, "tests.zig"), "utf8");
  for (const folder of ["cpu", "quant"]) {
    for (const file of readdirSync(join(kernels, folder))) {
      const hasTests = /^test /m.test(readFileSync(join(kernels, folder, file), "utf8"));
      if (hasTests) expect(root).toContain(`@import("${folder}/${file}")`);
    }
  }
});
