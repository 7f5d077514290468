// The spellings of a model reference, and which file of a repository each one means.
import { expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { chooseOffer, offersOf, quantOf } from "../../src/store/hugging-face.ts";
import {
  formatModelReference,
  type HuggingFaceReference,
  parseModelReference,
  toNameSegment,
} from "../../src/store/reference.ts";

function huggingFace(over: Partial<HuggingFaceReference>): HuggingFaceReference {
  const plain = { repository: "u/r", revision: "main", quant: undefined, filePath: undefined };
  return { kind: "huggingFace", ...plain, ...over };
}

const spellings: [string, ReturnType<typeof parseModelReference>][] = [
  ["hf:u/r", huggingFace({})],
  ["hf:u/r:latest", huggingFace({})],
  ["hf:u/r:Q8_0", huggingFace({ quant: "Q8_0" })],
  ["hf.co/u/r:IQ2_XXS", huggingFace({ quant: "IQ2_XXS" })],
  ["huggingface.co/u/r", huggingFace({})],
  ["https://huggingface.co/u/r", huggingFace({})],
  ["https://huggingface.co/u/r/tree/main", huggingFace({})],
  ["https://hf.co/u/r/blob/main/a/b%20c.gguf", huggingFace({ filePath: "a/b c.gguf" })],
  [
    "https://huggingface.co/u/r/resolve/v2/x.gguf?download=true",
    huggingFace({ revision: "v2", filePath: "x.gguf" }),
  ],
  ["hf:u/r/dir/x.gguf", huggingFace({ filePath: "dir/x.gguf" })],
  ["https://example.org/x.gguf?a=1", { kind: "url", url: "https://example.org/x.gguf?a=1" }],
  ["http://localhost:8080/x", { kind: "url", url: "http://localhost:8080/x" }],
  ["ollama:llama3.2", { kind: "ollama", name: "llama3.2", tag: "latest" }],
  ["ollama:me/mine:7b-q4_0", { kind: "ollama", name: "me/mine", tag: "7b-q4_0" }],
  ["smol", { kind: "name", name: "smol", tag: "latest" }],
  ["user/smol:Q4_K_M", { kind: "name", name: "user/smol", tag: "Q4_K_M" }],
  ["./smol", { kind: "path", path: "./smol" }],
  ["../a/b", { kind: "path", path: "../a/b" }],
  ["/models/a", { kind: "path", path: "/models/a" }],
  ["a.GGUF", { kind: "path", path: "a.GGUF" }],
  ["C:\\models\\a", { kind: "path", path: "C:\\models\\a" }],
  ["dir/a.gguf", { kind: "path", path: "dir/a.gguf" }],
];

for (const [text, expected] of spellings) {
  test(`reads ${text}`, () => {
    expect(parseModelReference(text)).toEqual(expected);
    expect(parseModelReference(formatModelReference(expected))).toEqual(expected);
  });
}

for (const text of [
  "",
  "   ",
  "hf:",
  "hf:only",
  "hf:u/",
  "hf:u/r:",
  "hf:u/r/../../x.gguf",
  "hf:../r",
  "ollama:",
  "ollama:a:b:c",
  "name:",
  "na me",
  "a//b",
  "a/../b",
  ".hidden",
  "ftp://host/x",
  "https://",
]) {
  test(`refuses "${text}"`, () => {
    expect(() => parseModelReference(text)).toThrow(TinferError);
  });
}

test("a password in an address is refused and not repeated", () => {
  expect(() => parseModelReference("https://me:hunter2@example.org/x")).toThrow(/password/);
  expect(() => parseModelReference("https://me:hunter2@example.org/x")).not.toThrow(/hunter2/);
});

test("any text becomes a name segment", () => {
  for (const text of ["ä b/c", "..", "", "-x", "%2F", "a".repeat(500)]) {
    const segment = toNameSegment(text);
    expect(parseModelReference(`n:${segment}`)).toEqual({ kind: "name", name: "n", tag: segment });
  }
});

for (const [path, quant] of [
  ["Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"],
  ["tinyllama-1.1b-chat.Q5_K_S.gguf", "Q5_K_S"],
  ["model.q8_0.gguf", "Q8_0"],
  ["Qwen3-0.6B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"],
  ["x-IQ2_XXS.gguf", "IQ2_XXS"],
  ["gpt-oss-20b-mxfp4.gguf", "MXFP4"],
  ["gpt-oss-20b-MXFP4_MOE-00001-of-00002.gguf", "MXFP4_MOE"],
  ["BF16/big-00001-of-00004.gguf", "BF16"],
  ["Q6_K/big-00001-of-00004.gguf", "Q6_K"],
  ["stories260K-fp16.gguf", "FP16"],
  ["bitnet-TQ1_0.gguf", "TQ1_0"],
  ["Q4_0-experiment/m-Q8_0.gguf", "Q8_0"],
  ["dir/plain.gguf", "plain"],
  ["Qwen-Q-model.gguf", "Qwen-Q-model"],
] as const) {
  test(`${path} is ${quant}`, () => {
    expect(quantOf(path)).toBe(quant);
  });
}

test("the nearest to Q4_K_M is chosen when it is missing", () => {
  const chosen = (...quants: string[]) => {
    const files = quants.map((quant) => ({ path: `m-${quant}.gguf`, bytes: 1, sha256: undefined }));
    return chooseOffer(huggingFace({}), offersOf(files), files).quant;
  };
  expect(chosen("Q2_K", "Q4_K_S", "Q5_K_M")).toBe("Q4_K_S");
  expect(chosen("F16", "Q8_0", "Q2_K")).toBe("Q8_0");
  expect(chosen("IQ1_S", "F32")).toBe("F32");
  expect(chosen("Q7_X")).toBe("Q7_X");
});
