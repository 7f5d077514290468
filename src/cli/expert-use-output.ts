// Expert use as people read it: one line per layer and a total.
import type { EngineClient } from "../engine/client.ts";
import { type ExpertUse, type LayerExpertUse, noExperts } from "../engine/expert-use.ts";
import type { Flags } from "./flags.ts";
import { formatTable } from "./table.ts";

export const moeStatsFlag: Flags = {
  "moe-stats": {
    kind: "boolean",
    description: "which experts tokens went to, layer by layer, and how even that is",
    default: false,
  },
};

export async function requireExpertUse(engine: EngineClient): Promise<ExpertUse> {
  const use = await engine.expertUse();
  if (use === undefined) throw noExperts();
  return use;
}

/** The most used experts of a layer that are named. */
const numNamed = 4;

export const expertUseLegend =
  "expert use: balance = entropy / its maximum (1 = all alike), variation = deviation / mean";

/** Header first, then a row per layer. */
export function expertUseRows({ layers }: ExpertUse): string[][] {
  const header = [
    "layer",
    "tokens",
    "used",
    "balance",
    "variation",
    "most used (share of choices)",
  ];
  const rows = layers.map((use) => [
    String(use.layer),
    String(use.tokens),
    `${use.counts.filter((count) => count > 0).length}/${use.counts.length}`,
    use.balance.toFixed(3),
    use.variation.toFixed(2),
    mostUsed(use),
  ]);
  return [header, ...rows];
}

export function expertUseTotal({ balance, variation }: ExpertUse): string {
  return `all layers: balance ${balance.toFixed(3)}, variation ${variation.toFixed(2)}`;
}

export function expertUseText(use: ExpertUse): string {
  return [expertUseLegend, ...formatTable(expertUseRows(use)), expertUseTotal(use)].join("\n");
}

function mostUsed({ counts }: LayerExpertUse): string {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts
    .map((count, expert) => ({ count, expert }))
    .filter(({ count }) => count > 0)
    .toSorted((a, b) => b.count - a.count || a.expert - b.expert)
    .slice(0, numNamed)
    .map(({ count, expert }) => `${expert}: ${((100 * count) / total).toFixed(1)} %`)
    .join(", ");
}
