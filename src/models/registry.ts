// The list of model families; a new architecture is one file beside this one and one line here.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { Family } from "./family.ts";
import { llama } from "./llama.ts";

const families: readonly Family[] = [llama];

export function knownArchitectures(): string[] {
  return families.flatMap((family) => family.architectures);
}

export function familyOf(architecture: string): Family {
  const family = families.find((entry) => entry.architectures.includes(architecture));
  if (family !== undefined) return family;
  const nearest = nearestMatch(architecture, knownArchitectures());
  throw new TinferError("unsupported", `architecture '${architecture}' is not known`, {
    hint: `known are ${knownArchitectures().join(", ")}${nearest ? `; nearest: ${nearest}` : ""}`,
  });
}
