// Experts whose weights lie interleaved, all or some of them: the bits of weights in rows, which
// experts.test.ts checks.
import { describe, test } from "bun:test";
import { type Plan, PlanBuilder } from "../../src/plan/builder.ts";
import type { Op } from "../../src/plan/ops.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";
import {
  addExperts,
  addInputs,
  type ExpertCase,
  type ExpertSizes,
  expertCounts,
  expertOps,
  maxExpertRows,
  plainRouting,
} from "./expert-plans.ts";
import { canLieInterleaved, checkLayouts, interleavedTypes } from "./layouts.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

const rowCounts = [maxExpertRows, 33, 29, 9, 5, 2, 1];

/** Weights as `gate` of the first turn, and so on. */
const orders: readonly (readonly (readonly string[])[])[] = [
  [["gate"], ["up"], ["down"]],
  [["down"], ["up"], ["gate"]],
  [["gate", "up"], ["down"]],
  [["gate", "up", "down"]],
];

function sizesOf(types: readonly QuantType[]): ExpertSizes {
  const block = Math.max(...types.map((type) => quantTypeInfo(type).quantBlockSize));
  return block === 32 ? { k: 96, width: 192, n: 64 } : { k: 512, width: 256, n: 320 };
}

const cases = [
  ...interleavedTypes.map((type, i) => {
    const other = interleavedTypes[(i * 5 + 3) % interleavedTypes.length]!;
    return [type, i % 3 === 0 ? other : type, i % 2 === 0 ? type : other] as const;
  }),
  // Some that only lie in rows.
  ["q4_k", "iq4_xs", "q6_k"],
  ["f16", "q4_0", "q8_0"],
  ["q5_0", "q5_0", "bf16"],
] as const;

/** The plan with each slot's product with gate instead of the gated one. */
function gateAlone(plan: Plan): Plan {
  const ops = plan.ops.map((op): Op => {
    if (op.kind !== "expertGlu") return op;
    const { input, routing, gate, gateBias, output } = op;
    const operands = { input, routing, weights: gate, bias: gateBias, output };
    return { kind: "slotLinear", ...operands, epilogue: "store" };
  });
  return { ...plan, ops };
}

/** Also of slotLinear, where `hasSlots` says so, which is as wide as the gated half. */
function checkExperts(
  what: string,
  weights: TestWeights,
  { b, gated, stored, residual, numTokens }: ReturnType<typeof expertOps>,
  given: { turns: readonly (readonly string[])[]; rowCounts: readonly number[]; hasSlots: boolean },
): void {
  const { hasSlots, ...rest } = given;
  const plain = b.finishHidden(residual, numTokens);
  const plan = hasSlots ? gateAlone(plain) : plain;
  const outputs = [gated, stored, residual];
  checkLayouts({ what, plan, weights, outputs, numTokens, ...rest });
}

describe("stacks", () => {
  for (const [index, types] of cases.entries()) {
    const [numExperts, numSlots] = expertCounts[index % expertCounts.length]!;
    const item: ExpertCase = { types, numExperts, numSlots, hasBias: index % 3 === 1 };
    const what = `${types.join(" ")}, ${numSlots} of ${numExperts}`;
    for (const hasSlots of index % 2 === 0 ? [false, true] : [false]) {
      test(`${what}${hasSlots ? ", slotLinear" : ""}`, () => {
        const random = new Random(what);
        const sizes = sizesOf(types);
        const { k, width, n } = sizes;
        using weights = new TestWeights();
        addInputs(weights, random, numExperts, sizes);
        addExperts(weights, random, "gate", types[0], [numExperts, width, k]);
        addExperts(weights, random, "up", types[1], [numExperts, width, k]);
        addExperts(weights, random, "down", types[2], [numExperts, n, width]);
        const can: Readonly<Record<string, boolean>> = {
          gate: canLieInterleaved(types[0], k),
          up: canLieInterleaved(types[1], k),
          down: canLieInterleaved(types[2], width),
        };
        const turns = orders[index % orders.length]!.map((names) => names.filter((n) => can[n]));
        const ops = expertOps(weights, item, sizes);
        checkExperts(what, weights, ops, { turns, rowCounts, hasSlots });
      });
    }
  }
});

/** Each of `rows` tokens goes to the experts after those of the token before. */
function evenLogits(random: Random, rows: number, numExperts: number, numSlots: number) {
  return Float32Array.from({ length: rows * numExperts }, (_, i) => {
    const token = Math.floor(i / numExperts);
    const turn = ((i % numExperts) - token * numSlots) % numExperts;
    return random.uniform() + ((turn + numExperts) % numExperts < numSlots ? 2 : 0);
  });
}

describe("more pairs than whole slices have room for", () => {
  // Few rows of each expert: up to 14, as far as tuning lets them be few; 4, always.
  for (const [numExperts, numSlots, rows] of [
    [48, 8, 80],
    [160, 16, 40],
  ] as const) {
    for (const kind of ["all", "down", "experts"] as const) {
      const what = `${numSlots} of ${numExperts}, ${rows} rows, interleaved: ${kind}`;
      test(what, () => {
        const random = new Random(what);
        const type = kind === "all" ? "q4_0" : "q8_0";
        const sizes = { k: 32, width: 64, n: 320 };
        using weights = new TestWeights();
        weights.addFloats("x", random.normals(rows * sizes.k), [rows, sizes.k]);
        weights.addFloats("residual", random.normals(rows * sizes.n), [rows, sizes.n]);
        const logits = evenLogits(random, rows, numExperts, numSlots);
        weights.addFloats("logits", logits, [rows, numExperts]);
        const each = Array.from({ length: numExperts }, (_, e) => e);
        for (const [name, n, k] of [
          ["gate", sizes.width, sizes.k],
          ["up", sizes.width, sizes.k],
          ["down", sizes.n, sizes.width],
        ] as const) {
          const content = random.weights(type, numExperts * n, k);
          if (kind === "experts") {
            const bytes = content.length / numExperts;
            for (const e of each) {
              const own = content.subarray(e * bytes, (e + 1) * bytes);
              weights.add(`${name}.${e}`, type, [n, k], own);
            }
          } else weights.add(name, type, [numExperts, n, k], content);
        }
        const item: ExpertCase = {
          types: [type, type, type],
          numExperts,
          numSlots,
          hasBias: false,
        };
        const turns = {
          all: [["gate", "up", "down"]],
          down: [["down"]],
          experts: [each.filter((e) => e % 3 > 0).flatMap((e) => [`up.${e}`, `down.${e}`])],
        }[kind];
        const given = { turns, rowCounts: [rows, rows - 1, 37, 3], hasSlots: false };
        checkExperts(what, weights, expertOps(weights, item, sizes), given);
      });
    }
  }
});

/** Of the experts one by one; their gates, ups and downs. */
const mixedTypes = [
  ["q4_k", "q4_k", "q6_k"],
  ["q6_k", "q6_k", "q6_k"],
  ["q4_k", "q5_k", "q4_0"],
  ["f16", "q4_k", "iq4_xs"],
  ["q8_0", "q8_0", "q3_k"],
  ["q4_k", "q4_k", "bf16"],
] as const;

test("a tensor each, of several types and layouts", () => {
  const what = "a tensor each";
  const random = new Random(what);
  const sizes = { k: 512, width: 256, n: 128 };
  const numExperts = mixedTypes.length;
  using weights = new TestWeights();
  addInputs(weights, random, numExperts, sizes);
  const names: string[] = [];
  mixedTypes.forEach((types, e) => {
    ["gate", "up", "down"].forEach((projection, i) => {
      const [n, k] = projection === "down" ? [sizes.n, sizes.width] : [sizes.width, sizes.k];
      const [name, type] = [`${projection}.${e}`, types[i]!];
      weights.add(name, type, [n, k], random.weights(type, n, k), e % 2 ? "start" : "end");
      if (canLieInterleaved(type, k)) names.push(name);
    });
  });
  const item: ExpertCase = { types: mixedTypes[0], numExperts, numSlots: 2, hasBias: false };
  const ops = expertOps(weights, item, sizes);
  const turns = [0, 1, 2].map((turn) => names.filter((_, i) => i % 3 === turn));
  checkExperts(what, weights, ops, { turns, rowCounts, hasSlots: false });
});

describe("gate and up in one tensor", () => {
  for (const type of ["q4_0", "q5_k", "q6_k"] as const) {
    test(type, () => {
      const [numExperts, n, k] = [6, 64, 256];
      const random = new Random(`gate and up in one tensor ${type}`);
      using weights = new TestWeights();
      addInputs(weights, random, numExperts, { k, width: n, n });
      const shape = [numExperts, 2, n, k] as const;
      weights.add(
        "both",
        type,
        [numExperts, 2 * n, k],
        random.weights(type, numExperts * 2 * n, k),
      );
      const b = new PlanBuilder(weights, "hidden");
      const table = b.weight("x", maxExpertRows, k);
      const logits = b.embed(b.weight("logits", maxExpertRows, numExperts));
      const routing = b.route(logits, plainRouting);
      const [gate, up] = [0, 1].map((part) => {
        return { weights: b.expertParts("both", shape, part), bias: undefined };
      });
      const gated = b.expertGlu(b.embed(table), routing, { gate: gate!, up: up! }, "silu");
      const plan = b.finishHidden(gated, table.rows);
      const rest = { outputs: [gated], numTokens: maxExpertRows, rowCounts, turns: [["both"]] };
      checkLayouts({ what: type, plan, weights, ...rest });
    });
  }
});
