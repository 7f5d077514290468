// The kernels of aarch64 under qemu-user in a short form; `bun scripts/check-aarch64.ts` is the
// whole of it.
import { expect, test } from "bun:test";
import { checkAarch64, findQemu, installHint } from "../../scripts/check-aarch64.ts";

/** Compiling three variants takes minutes when nothing of them is cached. */
const timeout = 15 * 60_000;

const qemu = findQemu();
if (qemu === undefined) process.stderr.write(`skipped: aarch64 (no qemu-user; ${installHint})\n`);

test.skipIf(qemu === undefined)(
  "every variant of aarch64 gives the bits of this CPU",
  () => {
    const { problems, lines } = checkAarch64(qemu!, true);
    expect(problems).toEqual([]);
    expect(lines.length).toBe(3);
  },
  timeout,
);
