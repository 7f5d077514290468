import { expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import {
  checkSampling,
  defaultSampling,
  maxLogitBiases,
  type SamplingParameters,
} from "../../src/sampling/parameters.ts";

function refusal(change: Record<string, unknown>, vocabSize?: number): string {
  try {
    checkSampling({ ...defaultSampling, ...change } as SamplingParameters, vocabSize);
  } catch (error) {
    if (!(error instanceof TinferError)) throw error;
    expect(error.code).toBe("usage");
    expect(error.hint).toBeString();
    // Whoever shows the error may name the field as the person does.
    expect(error.field).toBe(Object.keys(change)[0]!);
    return error.message;
  }
  throw new Error(`accepted ${JSON.stringify(change)}`);
}

test("the defaults and the ends of every range are accepted", () => {
  const parameters: SamplingParameters[] = [
    defaultSampling,
    { ...defaultSampling, temperature: 0, topK: 0, topP: 0, minP: 0, repeatLastN: 0 },
    { ...defaultSampling, temperature: 100, topP: 1, minP: 1, logprobs: 20, repeatLastN: 4096 },
    { ...defaultSampling, seed: Number.MAX_SAFE_INTEGER, presencePenalty: -2 },
    { ...defaultSampling, logitBias: new Map([[5, -Infinity]]) },
  ];
  for (const each of parameters) expect(checkSampling(each, 6)).toBe(each);
});

test.each([
  [{ temperature: -0.1 }, "temperature must be a number from 0 to 100, not -0.1"],
  [{ temperature: Number.NaN }, "temperature must be a number from 0 to 100, not NaN"],
  [{ temperature: "hot" }, 'temperature must be a number from 0 to 100, not "hot"'],
  [{ topK: -1 }, "topK must be an integer from 0 to 2147483647, not -1"],
  [{ topK: 1.5 }, "topK must be an integer from 0 to 2147483647, not 1.5"],
  [{ topP: 1.01 }, "topP must be a number from 0 to 1, not 1.01"],
  [{ minP: -1e-9 }, "minP must be a number from 0 to 1, not -1e-9"],
  [{ repeatPenalty: 0 }, "repeatPenalty must be a number from 0.01 to 100, not 0"],
  [{ repeatLastN: -1 }, "repeatLastN must be an integer from 0 to 4096, not -1"],
  [
    { presencePenalty: Number.POSITIVE_INFINITY },
    "presencePenalty must be a number from -100 to 100, not Infinity",
  ],
  [
    { frequencyPenalty: undefined },
    "frequencyPenalty must be a number from -100 to 100, not undefined",
  ],
  [{ seed: -1 }, "seed must be an integer from 0 to 9007199254740991, not -1"],
  [{ logprobs: 21 }, "logprobs must be an integer from 0 to 20, not 21"],
])("%j is refused", (change, message) => {
  expect(refusal(change)).toBe(message);
});

test("logit bias is refused for ids outside the vocabulary, NaN and too many tokens", () => {
  expect(refusal({ logitBias: new Map([[32, 1]]) }, 32)).toBe(
    "logitBias names the token id 32; ids are integers from 0 to 31",
  );
  expect(refusal({ logitBias: new Map([[1.5, 1]]) })).toContain("token id 1.5");
  expect(refusal({ logitBias: new Map([[-1, 1]]) })).toContain("token id -1");
  expect(refusal({ logitBias: new Map([[3, Number.NaN]]) })).toBe(
    "logitBias of token 3 must be a number, not NaN",
  );
  const many = new Map(Array.from({ length: maxLogitBiases + 1 }, (_, id) => [id, 1]));
  expect(refusal({ logitBias: many })).toContain(`at most ${maxLogitBiases}`);
});
