// Which tensors may lie interleaved: those of which a plan multiplies by whole panels of 16 rows,
// however it cuts them.
import { expect, test } from "bun:test";
import { interleavedTensors } from "../../src/engine/model-plan.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { Weight } from "../../src/plan/ops.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";

const cols = 256;
const backend = { canInterleave: (typeId: number) => typeId === quantTypeInfo("q4_k").ggmlType };

interface Facts {
  readonly type?: QuantType;
  readonly shape: readonly number[];
}

/** The choice for a plan that embeds by "table" and multiplies by the weights that `read` returns. */
function choiceOf(
  tensors: Readonly<Record<string, Facts>>,
  read: (b: PlanBuilder) => readonly Weight[],
): string[] {
  const all = new Map<string, Facts>(Object.entries({ table: { shape: [64, cols] }, ...tensors }));
  const find = (name: string) => {
    const facts = all.get(name);
    if (facts === undefined) return undefined;
    return { shape: facts.shape, typeId: quantTypeInfo(facts.type ?? "q4_k").ggmlType };
  };
  const b = new PlanBuilder({ find, values: () => undefined }, "hidden");
  const hidden = b.embed(b.weight("table", 64, cols));
  for (const weight of read(b)) b.linear(hidden, weight);
  const numRows = (name: string) =>
    all
      .get(name)
      ?.shape.slice(0, -1)
      .reduce((product, size) => product * size, 1);
  return [...interleavedTensors(b.finishHidden(hidden, 64), { numRows }, backend)];
}

const matrix = (rows: number) =>
  choiceOf({ w: { shape: [rows, cols] } }, (b) => [b.weight("w", rows, cols)]);

test("matrices of whole panels, in a type that has them", () => {
  expect(matrix(64)).toEqual(["w"]);
  expect(matrix(320)).toEqual(["w"]);
  for (const rows of [1, 15, 16, 24, 48, 300]) expect(matrix(rows)).toEqual([]);
  const floats = { w: { type: "f32", shape: [64, cols] } } as const;
  expect(choiceOf(floats, (b) => [b.weight("w", 64, cols)])).toEqual([]);
});

test("what only lends rows stays in rows, unless it is multiplied by too", () => {
  expect(choiceOf({}, () => [])).toEqual([]);
  expect(choiceOf({}, (b) => [b.weight("table", 64, cols)])).toEqual(["table"]);
});

test("what nothing is multiplied by stays in rows, and so does all of its tensor", () => {
  const tensors = { w: { shape: [128, cols] } };
  const choice = choiceOf(tensors, (b) => {
    b.weight("w", 128, cols);
    return [];
  });
  expect(choice).toEqual([]);
  const half = choiceOf(tensors, (b) => {
    b.weightRows("w", [128, cols], 0, 64);
    return [b.weightRows("w", [128, cols], 64, 64)];
  });
  expect(half).toEqual([]);
});

test("tensors that no weight is of stay in rows, and tables of the model code are no tensors", () => {
  const choice = choiceOf({ unused: { shape: [64, cols] }, "t 0": { shape: [16, 4] } }, (b) => {
    b.constantMatrices("t", { length: 64, make: () => new Float32Array(64) }, 16, 4);
    return [];
  });
  expect(choice).toEqual([]);
});

/** Neighbouring parts of one tensor. */
const parts = (...heights: readonly number[]) => {
  const count = heights.reduce((sum, height) => sum + height, 0);
  return choiceOf({ w: { shape: [count, cols] } }, (b) => {
    let end = 0;
    return heights.map((height) => {
      end += height;
      return b.weightRows("w", [count, cols], end - height, height);
    });
  });
};

test("every part of a tensor is whole panels", () => {
  expect(parts(128, 64, 192)).toEqual(["w"]);
  expect(parts(64, 8, 56)).toEqual([]);
  // The last one is, by its height, but does not begin where a panel does.
  expect(parts(24, 24, 64)).toEqual([]);
  const unevenEnd = choiceOf({ w: { shape: [88, cols] } }, (b) => [
    b.weightRows("w", [88, cols], 16, 64),
  ]);
  expect(unevenEnd).toEqual([]);
});

const stack = (numExperts: number, numParts: number, rows: number) =>
  choiceOf({ w: { shape: [numExperts, numParts * rows, cols] } }, (b) =>
    Array.from({ length: numParts }, (_, part) =>
      b.expertParts("w", [numExperts, numParts, rows, cols], part),
    ).flat(),
  );

test("every expert of a stack is whole panels, and so are its parts", () => {
  expect(stack(5, 1, 64)).toEqual(["w"]);
  expect(stack(5, 2, 192)).toEqual(["w"]);
  // 8 experts, or two parts, of 24 or 32 rows are whole panels together only.
  expect(stack(8, 1, 24)).toEqual([]);
  expect(stack(5, 2, 32)).toEqual([]);
});
