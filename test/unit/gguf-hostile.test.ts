// What the GGUF reader says to bad files: every refusal names the file, the byte, the field and
// the next step.
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { parseGgufHeader } from "../../src/weights/gguf-header.ts";
import { quantTypeInfo } from "../../src/weights/quant-types.ts";
import { memorySource, RawHeader, smallFiles } from "../fuzz/gguf-corpus.ts";

const folder = mkdtempSync(join(tmpdir(), "tinfer-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));

function caught(action: () => unknown): TinferError {
  try {
    action();
  } catch (error) {
    if (error instanceof TinferError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** The refusal of `raw`, which must come from byte `offset` and contain `words`. */
function refuse(raw: RawHeader | Uint8Array, offset: number, words: string): TinferError {
  const bytes = raw instanceof RawHeader ? raw.build() : raw;
  const error = caught(() => parseGgufHeader(memorySource(bytes, "bad.gguf")));
  expect(error.message).toStartWith(`bad.gguf: byte ${offset}: `);
  expect(error.message).toContain(words);
  expect(error.hint).toBeString();
  return error;
}

describe("the file as such", () => {
  test("missing, a folder, unreadable", () => {
    expect(caught(() => readGguf(join(folder, "none.gguf"))).code).toBe("notFound");
    expect(caught(() => readGguf(folder)).code).toBe("unreadable");
    const path = join(folder, "closed.gguf");
    writeFileSync(path, "GGUF");
    expect(caught(() => readGguf(join(path, "inside"))).code).toBe("notFound");
    chmodSync(path, 0);
    // The superuser may read it all the same, and then meets a truncated file.
    const wanted = process.getuid?.() === 0 ? "invalidFile" : "unreadable";
    expect(caught(() => readGguf(path)).code).toBe(wanted);
  });

  test.skipIf(process.platform === "win32")("a device is not waited for", () => {
    expect(caught(() => readGguf("/dev/zero")).message).toContain("not a regular file");
  });

  const kinds: [string, string | number[], string][] = [
    ["a text", "hello, world", "68 65 6c 6c"],
    ["old GGML", "lmgg\x00\x00", "old GGML"],
    ["GGJT", "tjgg\x03\x00", "GGJT"],
    ["zip", "PK\x03\x04rest", "zip archive or PyTorch"],
    ["pickle", [0x80, 2, 0x8a, 0x0a], "pickle"],
    ["gzip", [0x1f, 0x8b, 8, 0], "gzip"],
    ["safetensors", [16, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x22], "safetensors"],
    ["HTML", "\n<!DOCTYPE html><html>", "web page"],
    ["JSON", '{"error":"not found"}', "JSON"],
    ["a Git LFS pointer", "version https://git-lfs.example/spec/v1\noid sha256:0", "LFS pointer"],
    ["zeros", new Array<number>(64).fill(0), "zero bytes"],
    ["one byte", [0x47], "47"],
  ];
  for (const [name, content, words] of kinds) {
    test(`${name} instead of GGUF`, () => {
      const bytes = typeof content === "string" ? Buffer.from(content, "latin1") : content;
      refuse(Uint8Array.from(bytes), 0, words);
    });
  }

  test("empty", () => {
    refuse(new Uint8Array(0), 0, "empty");
  });

  test("version from the future, zero, big endian", () => {
    expect(refuse(new RawHeader(4), 4, "version 4").code).toBe("unsupported");
    refuse(new RawHeader(0), 4, "version 0");
    expect(refuse(new RawHeader(0x03000000), 4, "big endian").code).toBe("unsupported");
  });

  test("every truncation of a valid file is refused", () => {
    for (const whole of smallFiles()) {
      const { tensors, tensorsOffset } = parseGgufHeader(memorySource(whole));
      const ends = [...tensors.values()].map(({ offset, bytes }) => offset + bytes);
      // The padding behind the last tensor, or behind a header without tensors, may be missing.
      const needed = ends.length === 0 ? tensorsOffset - 31 : Math.max(...ends);
      for (let length = 0; length < needed; length += length < 200 ? 1 : 7) {
        const error = caught(() => parseGgufHeader(memorySource(whole.subarray(0, length))));
        expect(error.code).toBe("invalidFile");
      }
    }
  });

  test("missing tensor bytes are counted", () => {
    const whole = new RawHeader(3, 1).tensor("w", [8], 0, 0).body(32).build();
    refuse(whole.subarray(0, whole.length - 5), 24, "5 bytes are missing");
  });
});

describe("metadata", () => {
  const one = () => new RawHeader(3, 0, 1);

  test("absurd counts", () => {
    refuse(new RawHeader(3, 2n ** 64n - 1n, 0), 8, "number of tensors");
    refuse(new RawHeader(3, 0, 2n ** 40n), 16, "number of metadata pairs");
    refuse(
      one()
        .u64(2n ** 63n)
        .text("k"),
      24,
      "length of key of metadata pair 0",
    );
    refuse(
      one()
        .string("k")
        .u32(8)
        .u64(2n ** 30n),
      37,
      "length of metadata key 'k'",
    );
    refuse(
      one()
        .string("k")
        .u32(9)
        .u32(8)
        .u64(2n ** 60n),
      41,
      "limit",
    );
    refuse(one().string("k").u32(9).u32(4).u64(1_000_000), 41, "1000000 elements do not fit");
    refuse(one().string("k").u32(9).u32(8).u64(1_000_000), 41, "1000000 elements do not fit");
    refuse(
      one()
        .string("k")
        .u32(9)
        .u32(8)
        .u64(1)
        .u64(2n ** 50n),
      49,
      "'k'[0]",
    );
  });

  test("keys", () => {
    refuse(one().string("").u32(0).bytes(1), 24, "is empty");
    refuse(one().u64(2).bytes(0xc3, 0x28).u32(0).bytes(1), 24, "not valid UTF-8");
    const pair = (raw: RawHeader) => raw.string("k").u32(0).bytes(1);
    refuse(pair(pair(new RawHeader(3, 0, 2))), 38, "appears twice");
  });

  test("types and booleans", () => {
    refuse(one().string("k").u32(13), 33, "13 is not a known type");
    refuse(one().string("k").u32(7).bytes(2), 37, "2 is not a boolean");
    refuse(one().string("k").u32(9).u32(7).u64(2).bytes(1, 7), 50, "'k'[1]");
  });

  test("arrays in arrays are bounded in depth and number", () => {
    const deep = one().string("k").u32(9);
    for (let depth = 0; depth < 100; depth++) deep.u32(9).u64(1);
    expect(caught(() => parseGgufHeader(memorySource(deep.build()))).message).toContain("nested");
    const wide = one().string("k").u32(9).u32(9).u64(65_537);
    for (let index = 0; index < 65_537; index++) wide.u32(0).u64(0);
    refuse(wide, 41, "more than the limit");
  });

  test("a key is shown without its control characters", () => {
    const error = refuse(one().string("k\x1b[2J\n\u009b\u202e").u32(99), 43, "99");
    expect(error.message).toContain("\\u009b\\u202e");
    expect(error.message).not.toContain("\x1b");
    expect(error.message).not.toContain("\n");
  });

  test("alignment", () => {
    for (const alignment of [0, 4, 33, 2 ** 31]) {
      const raw = one().string("general.alignment").u32(4).u32(alignment);
      expect(caught(() => parseGgufHeader(memorySource(raw.build()))).message).toContain(
        `general.alignment': ${alignment} is not a power of two`,
      );
    }
    const text = one().string("general.alignment").u32(8).string("32");
    expect(caught(() => parseGgufHeader(memorySource(text.build()))).code).toBe("invalidFile");
  });
});

describe("tensors", () => {
  const one = () => new RawHeader(3, 1);

  test("names", () => {
    refuse(one().tensor("", [4], 0, 0).body(16), 24, "is empty");
    refuse(one().u64(1).bytes(0xff).u32(0).u32(0).u64(0), 24, "not valid UTF-8");
    refuse(one().u64(1_025), 24, "limit");
    const twice = new RawHeader(3, 2).tensor("w", [4], 0, 0).tensor("w", [4], 0, 32).body(64);
    refuse(twice, 57, "appears twice");
  });

  test("dimensions", () => {
    refuse(one().tensor("w", [1, 1, 1, 1, 1], 0, 0), 33, "number of dimensions");
    refuse(one().tensor("w", [4, 0], 0, 0), 45, "is 0");
    refuse(one().tensor("w", [2n ** 63n], 0, 0), 37, "limit");
    refuse(one().tensor("w", [2 ** 40, 2 ** 40], 0, 0), 45, "multiply");
    refuse(one().tensor("w", [2 ** 49], 28, 0), 24, "bytes are missing");
    refuse(one().tensor("w", [33], 2, 0).body(64), 24, "not a multiple of the 32");
  });

  test("types", () => {
    expect(refuse(one().tensor("w", [4], 99, 0).body(16), 45, "99").code).toBe("unsupported");
    // Our own number of a type that no GGUF file has.
    const { ggmlType } = quantTypeInfo("f8_e4m3");
    expect(refuse(one().tensor("w", [4], ggmlType, 0).body(16), 45, "63716").code).toBe(
      "unsupported",
    );
    expect(refuse(one().tensor("w", [4], 31, 0), 45, "q4_0_4_4").message).toContain("removed");
  });

  test("offsets", () => {
    refuse(one().tensor("w", [4], 0, 8).body(64), 49, "alignment");
    refuse(
      one()
        .tensor("w", [4], 0, 2n ** 64n - 32n)
        .body(64),
      49,
      "2^53",
    );
    refuse(
      one()
        .tensor("w", [4], 0, 2n ** 52n)
        .body(64),
      24,
      "bytes are missing",
    );
    const over = new RawHeader(3, 2).tensor("a", [16], 0, 0).tensor("b", [4], 0, 32).body(64);
    refuse(over, 57, "overlaps tensor 'a'");
  });

  test("a claim is not believed before memory is taken for it", () => {
    const raw = one()
      .tensor("w", [2 ** 40], 0, 0)
      .body(0)
      .build();
    let largest = 0;
    const inner = memorySource(raw, "sparse.gguf", 2 ** 50);
    const source = {
      ...inner,
      read(target: Uint8Array, offset: number) {
        largest = Math.max(largest, target.length);
        return inner.read(target, offset);
      },
    };
    expect(parseGgufHeader(source).tensors.get("w")!.bytes).toBe(2 ** 42);
    expect(largest).toBeLessThanOrEqual(2 ** 20);
  });
});
