// Mixture of experts on the reference backend: the choice of experts and their products, as the
// definitions in plan/ops.ts say.
import type { OpOf, Routing, Tensor, Weight } from "../plan/ops.ts";
import { gated } from "./reference-activations.ts";
import { dot, factorsFor, type ReferenceState, rowOf, rowsOf } from "./reference-state.ts";

type Numbers = ArrayLike<number>;

function softmax(logits: Numbers): Float64Array {
  const values = Float64Array.from(logits);
  const largest = values.reduce((a, b) => Math.max(a, b));
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Indices of the `count` largest, largest first, ties by lower index. */
function topIndices(scores: Numbers, count: number): number[] {
  const order = Array.from(scores, (_, index) => index);
  return order.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, count);
}

/** The scores with those of unused groups at minus infinity. */
function keepBestGroups(scores: Float64Array, routing: Routing): Float64Array {
  const { numGroups, numGroupsUsed, groupScore } = routing;
  if (numGroups === 1) return scores;
  const size = scores.length / numGroups;
  const groupScores = Array.from({ length: numGroups }, (_, group) => {
    const sorted = scores.slice(group * size, (group + 1) * size).toSorted((a, b) => b - a);
    return groupScore === "max" || size === 1 ? sorted[0]! : sorted[0]! + sorted[1]!;
  });
  const kept = topIndices(groupScores, numGroupsUsed);
  return scores.map((score, i) => (kept.includes(Math.floor(i / size)) ? score : -Infinity));
}

/**
 * What a token's weights are divided by at least: the smallest normal F16, as llama.cpp has it.
 * Only a selection bias takes experts of so little probability; others add 1e-20.
 */
const smallestSum = 2 ** -14;

/** A token's experts, best first, and their weights. */
function chooseExperts(
  logits: Float64Array,
  routing: Routing,
  bias: Numbers | undefined,
): { experts: number[]; weights: number[] } {
  const { scoring, numExpertsPerToken, groupScore, numGroups } = routing;
  const probabilities =
    scoring === "sigmoid" ? logits.map((x) => 1 / (1 + Math.exp(-x))) : softmax(logits);
  const byLogit = bias === undefined && (groupScore === "max" || numGroups === 1);
  const scores = byLogit ? logits : probabilities.map((p, i) => p + (bias?.[i] ?? 0));
  const experts = topIndices(keepBestGroups(scores, routing), numExpertsPerToken);
  const chosen =
    scoring === "softmax_selected"
      ? softmax(experts.map((expert) => logits[expert]!))
      : Float64Array.from(experts, (expert) => probabilities[expert]!);
  const sum = chosen.reduce((a, b) => a + b, 0);
  const divisor = routing.normalise ? Math.max(sum, smallestSum) : 1;
  return { experts, weights: Array.from(chosen, (p) => (p / divisor) * routing.scale) };
}

export function route(state: ReferenceState, op: OpOf<"route">): void {
  const { selectionBias } = op.routing;
  const bias = selectionBias && state.weightRow(selectionBias, 0);
  const { routes, words } = state.expertCounts;
  const { first } = routes.find((entry) => entry.op === op)!;
  for (let t = 0; t < rowsOf(state.step, op.logits); t++) {
    const { experts, weights } = chooseExperts(rowOf(state, op.logits, t), op.routing, bias);
    rowOf(state, op.output, t).set([...experts, ...weights]);
    for (const expert of experts) words[first + expert]! += 1n;
  }
}

/** output[t] (+)= Σ over slots in order. */
export function sumSlots(state: ReferenceState, op: OpOf<"sumSlots">): void {
  if (op.epilogue === "store") {
    for (let t = 0; t < rowsOf(state.step, op.output); t++) rowOf(state, op.output, t).fill(0);
  }
  for (const slot of slotsOf(state, op.routing)) {
    const target = rowOf(state, op.output, slot.token);
    const factor = op.isWeighted ? slot.weight : 1;
    slotRow(state, op.input, slot, target.length).forEach((value, i) => {
      target[i] = target[i]! + factor * value;
    });
  }
}

/** What one slot of a token reads and how it counts. */
export interface Slot {
  readonly token: number;
  readonly slot: number;
  readonly expert: number;
  readonly weight: number;
}

function* slotsOf(state: ReferenceState, routing: Tensor): Generator<Slot> {
  const numSlots = routing.width / 2;
  for (let token = 0; token < rowsOf(state.step, routing); token++) {
    const row = rowOf(state, routing, token);
    for (let slot = 0; slot < numSlots; slot++) {
      yield { token, slot, expert: row[slot]!, weight: row[numSlots + slot]! };
    }
  }
}

/** The same, or, without a routing, `count` slots of each row that have matrix s each. */
export function* matrixSlots(
  state: ReferenceState,
  tensor: Tensor,
  routing: Tensor | undefined,
  count: number,
): Generator<Slot> {
  if (routing !== undefined) return yield* slotsOf(state, routing);
  for (let token = 0; token < rowsOf(state.step, tensor); token++) {
    for (let slot = 0; slot < count; slot++) yield { token, slot, expert: slot, weight: 1 };
  }
}

/** Part `slot` of a row that holds `width` values per slot. */
export function slotRow(
  state: ReferenceState,
  tensor: Tensor,
  { token, slot }: Slot,
  width: number,
): Float64Array {
  return rowOf(state, tensor, token).subarray(slot * width, (slot + 1) * width);
}

/** What a slot's expert reads: the token's row, or the slot's own. */
function inputOf(state: ReferenceState, input: Tensor, slot: Slot, width: number): Float64Array {
  if (input.width === width) return rowOf(state, input, slot.token);
  return slotRow(state, input, slot, width);
}

export function scaleSlots(state: ReferenceState, op: OpOf<"scaleSlots">): void {
  for (const slot of slotsOf(state, op.routing)) {
    const target = slotRow(state, op.output, slot, op.input.width);
    target.set(rowOf(state, op.input, slot.token).map((value) => value * slot.weight));
  }
}

function product(
  state: ReferenceState,
  weight: Weight,
  bias: Weight | undefined,
  expert: number,
  x: Float64Array,
): Float64Array {
  const biases = bias && state.weightRow(bias, expert);
  const factors = factorsFor(weight, x);
  return Float64Array.from({ length: weight.rows }, (_, n) => {
    return dot(factors, state.weightRow(weight, n)) + (biases?.[n] ?? 0);
  });
}

export function slotLinear(state: ReferenceState, op: OpOf<"slotLinear">): void {
  const { input, routing, weights, bias, output } = op;
  for (const slot of matrixSlots(state, input, routing, weights.length)) {
    const weight = weights[slot.expert]!;
    const x = inputOf(state, input, slot, weight.cols);
    const target = slotRow(state, output, slot, weight.rows);
    product(state, weight, bias, slot.expert, x).forEach((value, i) => {
      target[i] = op.epilogue === "accumulate" ? target[i]! + value : value;
    });
  }
}

export function expertGlu(state: ReferenceState, op: OpOf<"expertGlu">): void {
  for (const slot of slotsOf(state, op.routing)) {
    const { expert } = slot;
    const [gate, up] = [op.gate[expert]!, op.up[expert]!];
    const x = inputOf(state, op.input, slot, gate.cols);
    const g = product(state, gate, op.gateBias, expert, x);
    const u = product(state, up, op.upBias, expert, x);
    const target = slotRow(state, op.output, slot, gate.rows);
    target.set(g.map((value, i) => gated(op.activation, value, u[i]!)));
  }
}

export function expertLinear(state: ReferenceState, op: OpOf<"expertLinear">): void {
  if (op.epilogue === "store") {
    for (let t = 0; t < rowsOf(state.step, op.output); t++) rowOf(state, op.output, t).fill(0);
  }
  for (const slot of slotsOf(state, op.routing)) {
    const weight = op.weights[slot.expert]!;
    const x = inputOf(state, op.input, slot, weight.cols);
    const factor = op.isWeighted ? slot.weight : 1;
    const target = rowOf(state, op.output, slot.token);
    product(state, weight, op.bias, slot.expert, x).forEach((value, i) => {
      target[i] = target[i]! + factor * value;
    });
  }
}
