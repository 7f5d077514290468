import { expect, test } from "bun:test";
import {
  adjustLogits,
  drawToken,
  keepTokens,
  type ReferenceRow,
  sampleReference,
} from "../../src/sampling/reference.ts";

const plain: ReferenceRow = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seedLow: 1,
  seedHigh: 0,
  drawIndex: 0,
  penaltyIds: [],
  logitBias: new Map(),
  numLogprobs: 0,
};

/** Logits whose softmax is `probabilities`. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);

test("greedy takes the largest logit, the lowest id of equal ones", () => {
  expect(sampleReference(Float32Array.of(1, 3, 3, 2), plain).tokenId).toBe(1);
  const banned = { ...plain, logitBias: new Map([[1, -Infinity]]) };
  expect(sampleReference(Float32Array.of(1, 3, 3, 2), banned).tokenId).toBe(2);
});

test("log-probabilities are those of the raw logits", () => {
  const logits = logitsOf(0.5, 0.25, 0.125, 0.125);
  const row = { ...plain, numLogprobs: 3, logitBias: new Map([[3, 10]]) };
  const sample = sampleReference(logits, row);
  expect(sample.tokenId).toBe(3);
  expect(sample.logprob).toBeCloseTo(Math.log(0.125), 6);
  expect(sample.top.map(({ tokenId }) => tokenId)).toEqual([0, 1, 2]);
  expect(sample.top[0]!.logprob).toBeCloseTo(Math.log(0.5), 6);
});

test("penalties: divide positive, multiply negative, subtract once and per occurrence", () => {
  const row = {
    ...plain,
    repeatPenalty: 2,
    presencePenalty: 0.5,
    frequencyPenalty: 0.25,
    penaltyIds: [0, 1, 1, 0, 1],
  };
  const adjusted = adjustLogits(Float32Array.of(4, -4, 4), row);
  expect([...adjusted]).toEqual([2 - 0.5 - 0.5, -8 - 0.5 - 0.75, 4]);
});

test("bias comes before penalties", () => {
  const row = { ...plain, repeatPenalty: 2, penaltyIds: [0], logitBias: new Map([[0, 6]]) };
  expect(adjustLogits(Float32Array.of(-2, 0), row)[0]).toBe(2);
});

test("top-k, top-p and min-p keep prefixes of the ranking", () => {
  const logits = logitsOf(0.1, 0.4, 0.2, 0.2, 0.1);
  const all = { topK: 0, topP: 1, minP: 0 };
  expect(keepTokens(logits, all)).toEqual([1, 2, 3, 0, 4]);
  expect(keepTokens(logits, { ...all, topK: 2 })).toEqual([1, 2]);
  expect(keepTokens(logits, { ...all, topP: 0.5 })).toEqual([1, 2]);
  expect(keepTokens(logits, { ...all, topP: 0 })).toEqual([1]);
  expect(keepTokens(logits, { ...all, minP: 0.45 })).toEqual([1, 2, 3]);
  expect(keepTokens(logits, { ...all, minP: 1 })).toEqual([1]);
  // Top-p refers to what top-k left: 0.4 of 0.6 is under 0.7.
  expect(keepTokens(logits, { ...all, topK: 2, topP: 0.7 })).toEqual([1, 2]);
  expect(keepTokens(logits, { ...all, topK: 2, topP: 0.6 })).toEqual([1]);
});

test("a draw walks the kept tokens in id order", () => {
  const logits = logitsOf(0.25, 0.5, 0.25);
  const draw = (random: number) => drawToken(logits, [1, 0, 2], 1, random);
  expect([0, 0.24, 0.26, 0.74, 0.76, 0.999].map(draw)).toEqual([0, 0, 1, 1, 2, 2]);
  expect(drawToken(logits, [1, 0, 2], 1e-3, 0.9)).toBe(1);
});

test("draws follow the probabilities", () => {
  const logits = logitsOf(0.7, 0.2, 0.1);
  const counts = [0, 0, 0];
  const draws = 20_000;
  for (let drawIndex = 0; drawIndex < draws; drawIndex++) {
    counts[sampleReference(logits, { ...plain, temperature: 1, drawIndex }).tokenId]! += 1;
  }
  for (const [id, probability] of [0.7, 0.2, 0.1].entries()) {
    const deviation = Math.sqrt(draws * probability * (1 - probability));
    expect(Math.abs(counts[id]! - draws * probability)).toBeLessThan(4 * deviation);
  }
});

test("NaN is never chosen, and a row without a token says so", () => {
  const logits = Float32Array.of(Number.NaN, -1, Number.NaN, -2);
  expect(sampleReference(logits, plain).tokenId).toBe(1);
  const nothing = Float32Array.of(Number.NaN, -Infinity);
  expect(sampleReference(nothing, { ...plain, temperature: 1, numLogprobs: 2 })).toEqual({
    tokenId: -1,
    logprob: -Infinity,
    top: [],
  });
  const infinite = Float32Array.of(1, Infinity, Infinity);
  expect(sampleReference(infinite, plain)).toMatchObject({ tokenId: 1 });
  expect(sampleReference(infinite, plain).logprob).toBeCloseTo(Math.log(0.5), 6);
});
