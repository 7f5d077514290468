// The list of backends, and the choice among them. The only file that knows the concrete ones.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { Backend } from "./backend.ts";
import { cpuBackend } from "./cpu.ts";
import { referenceBackend } from "./reference.ts";

const backends: readonly Backend[] = [cpuBackend, referenceBackend];

/** `auto` is the fastest backend that this machine has. */
export function selectBackend(name: string): Backend {
  if (name === "auto") return cpuBackend;
  const found = backends.find((backend) => backend.name === name);
  if (found !== undefined) return found;
  const names = ["auto", ...backends.map((backend) => backend.name)];
  const nearest = nearestMatch(name, names);
  throw new TinferError("usage", `backend '${name}' is not built into this tinfer`, {
    hint: `use ${names.join(", ")}${nearest ? `; did you mean '${nearest}'?` : ""}`,
  });
}
