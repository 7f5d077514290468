// Which parameter of experts the factors of a PEFT adapter are for, and when they do not tell.
import { expect, test } from "bun:test";
import { expertFactors, expertParameters } from "../../src/hugging-face/adapter-experts.ts";

const matrix = (rows: number, cols: number) => ({
  shape: [rows, cols],
  rows: { type: "f32" as const, numRows: rows, cols, read: () => new Uint8Array(0) },
});

test("the side that is not hidden states names the parameter", () => {
  const sizes = { hiddenSize: 64, numExperts: 4, expertSize: 24 };
  const nameOf = (a: number, b: number) => expertParameters([8, a], [b, 8], sizes);
  expect([nameOf(64, 48), nameOf(48, 64)]).toEqual(["gate_up_proj", "gate_up_proj"]);
  expect([nameOf(24, 64), nameOf(64, 24)]).toEqual(["down_proj", "down_proj"]);
  expect([nameOf(64, 64), nameOf(24, 48), nameOf(64, 32)]).toEqual(Array(3).fill(undefined));
});

test("square matrices do not tell which factor reads inputs, unless they have inputs as rows", () => {
  const sizes = { hiddenSize: 64, numExperts: 4, expertSize: 32 };
  const [a, b] = [matrix(8, 64), matrix(64, 8)];
  expect(expertFactors(a, b, { ...sizes, isTurned: false })).toMatch(/square matrix \[64, 64\]/);
  expect(expertFactors(a, b, { ...sizes, isTurned: true })).toMatchObject({
    a: { shape: [4, 2, 64] },
    b: { shape: [4, 64, 2] },
  });
});

test("ranks are whole", () => {
  const sizes = { hiddenSize: 64, numExperts: 4, expertSize: 24, isTurned: false };
  for (const [a, b] of [
    [matrix(9, 64), matrix(48, 9)],
    [matrix(8, 64), matrix(48, 12)],
  ] as const) {
    expect(expertFactors(a, b, sizes)).toMatch(/are no factors of 4 experts/);
  }
});
