// The table of all filters.
import { numberFilters } from "./filters-number.ts";
import { sequenceFilters } from "./filters-sequence.ts";
import { textFilters } from "./filters-text.ts";
import type { Filter } from "./runtime.ts";

export const filters: ReadonlyMap<string, Filter> = new Map([
  ...textFilters,
  ...numberFilters,
  ...sequenceFilters,
]);
