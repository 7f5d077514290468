// Where the golden data lies, if it does: `../shared/golden` beside the repository.
import { existsSync } from "node:fs";
import { join } from "node:path";

const folder = join(import.meta.dir, "..", "..", "shared", "golden");

/**
 * The folder of golden data, or undefined in a clone without it: the caller then skips.
 * Prints one line on a skip, and throws under `CI=true`, where the data must be present.
 */
export function goldenFolder(tier: string): string | undefined {
  if (existsSync(folder)) return folder;
  if (process.env["CI"] === "true") throw new Error(`${tier}: golden data is missing at ${folder}`);
  process.stderr.write(`skipped: ${tier} (no golden data beside the repository)\n`);
  return undefined;
}
