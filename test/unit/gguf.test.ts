// What the GGUF reader gives for valid files: values, tensors, versions, and the writer's way back.
import { afterAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { parseGgufHeader } from "../../src/weights/gguf-header.ts";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import { encodeGguf, writeGguf } from "../../src/weights/gguf-writer.ts";
import { getStrings, isStringArray, type MetadataValue } from "../../src/weights/metadata.ts";
import { decodeLossless, decodeStrict, encodeLossless } from "../../src/weights/packed-strings.ts";
import { tensorBytes } from "../../src/weights/quant-types.ts";
import { readTensorBytes, readTensorFloats } from "../../src/weights/tensor-content.ts";
import { allValues, memorySource, RawHeader, tensorsOfEveryType } from "../fuzz/gguf-corpus.ts";

const folder = mkdtempSync(join(tmpdir(), "tinfer-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Plain arrays and numbers, for comparison. */
function plain(value: MetadataValue | undefined): unknown {
  if (isStringArray(value)) return value.toArray();
  if (ArrayBuffer.isView(value)) return Array.from(value as Uint8Array);
  return Array.isArray(value) ? value.map(plain) : value;
}

function given(value: GgufValue): unknown {
  if (value.type !== "array") return value.value;
  return value.of === "array" ? value.value.map(given) : Array.from(value.value as number[]);
}

describe("round trip", () => {
  const path = join(folder, "all.gguf");
  const tensors = tensorsOfEveryType();
  writeGguf(path, { metadata: allValues, tensors });
  const file = readGguf(path);

  test("metadata keeps every value and type", () => {
    expect([...file.metadata.keys()]).toEqual(allValues.map(([key]) => key));
    for (const [key, value] of allValues) {
      expect(plain(file.metadata.get(key))).toEqual(given(value));
    }
    expect(file.metadata.get("t.floats")).toBeInstanceOf(Float32Array);
    expect(file.metadata.get("t.longs")).toBeInstanceOf(BigUint64Array);
  });

  test("tensors keep type, shape and bytes", () => {
    expect([...file.tensors.keys()]).toEqual(tensors.map(({ name }) => name));
    for (const { name, type, shape, content } of tensors) {
      const tensor = file.tensors.get(name)!;
      expect(tensor).toMatchObject({ type, shape, fileIndex: 0, bytes: content.length });
      expect(tensor.offset % 32).toBe(0);
      expect(readTensorBytes(file, tensor)).toEqual(new Uint8Array(content));
    }
    expect(file).toMatchObject({ paths: [path], version: 3, alignment: 32 });
    expect(file.fileBytes).toEqual([statSync(path).size]);
  });

  test("string arrays can be written as they were read", () => {
    const value = getStrings(file.metadata, "t.strings")!;
    const bytes = encodeGguf({
      metadata: [["s", { type: "array", of: "string", value }]],
      tensors: [],
    });
    const again = parseGgufHeader(memorySource(bytes)).metadata.get("s");
    expect(plain(again)).toEqual(value.toArray());
  });

  test("content may come in chunks, and must have the right length", () => {
    const chunked = join(folder, "chunked.gguf");
    const chunk = new Uint8Array(Float32Array.of(1, 2).buffer);
    const tensor = { name: "w", type: "f32", shape: [2, 2] } as const;
    writeGguf(chunked, { metadata: [], tensors: [{ ...tensor, content: () => [chunk, chunk] }] });
    const written = readGguf(chunked);
    expect(Array.from(readTensorFloats(written, written.tensors.get("w")!))).toEqual([1, 2, 1, 2]);

    const short = join(folder, "short.gguf");
    const write = () =>
      writeGguf(short, { metadata: [], tensors: [{ ...tensor, content: chunk }] });
    expect(write).toThrow("8 bytes given, not 16");
    expect(existsSync(short) || existsSync(`${short}.partial`)).toBe(false);
  });

  test("general.alignment is obeyed", () => {
    const metadata = [["general.alignment", { type: "u32", value: 4096 }]] as const;
    const content = new Uint8Array(4);
    const tensors = ["a", "b"].map((name) => ({ name, type: "f32", shape: [1], content }) as const);
    const header = parseGgufHeader(memorySource(encodeGguf({ metadata, tensors })));
    expect(header.alignment).toBe(4096);
    expect([...header.tensors.values()].map(({ offset }) => offset)).toEqual([4096, 8192]);
  });

  test("a folder that cannot be written is an error with a hint", () => {
    const write = () => writeGguf(join(folder, "none", "x.gguf"), { metadata: [], tensors: [] });
    expect(write).toThrow(TinferError);
  });

  test("the writer refuses numbers that do not fit", () => {
    const encode = (value: GgufValue) => encodeGguf({ metadata: [["k", value]], tensors: [] });
    expect(() => encode({ type: "u8", value: 256 })).toThrow("does not fit in u8");
    expect(() => encode({ type: "i32", value: 0.5 })).toThrow("does not fit in i32");
    expect(() => encode({ type: "u64", value: -1n })).toThrow("does not fit in u64");
  });
});

describe("versions", () => {
  for (const version of [1, 2, 3]) {
    test(`version ${version}`, () => {
      const raw = new RawHeader(version, 1, 2).string("a").u32(4).u32(7);
      raw.string("words").u32(9).u32(8).count(2).string("x").string("größer");
      raw.tensor("w", [3, 2], 0, 0).body(24);
      const header = parseGgufHeader(memorySource(raw.build()));
      expect(header.version).toBe(version);
      expect(header.metadata.get("a")).toBe(7);
      expect(plain(header.metadata.get("words"))).toEqual(["x", "größer"]);
      expect(header.tensors.get("w")).toMatchObject({ shape: [2, 3], bytes: 24 });
    });
  }
});

describe("edges", () => {
  test.skipIf(process.platform === "win32")(
    "a file of 5 GiB, as sparse as a test can afford",
    () => {
      const path = join(folder, "sparse.gguf");
      const offset = 5 * 2 ** 30;
      const raw = new RawHeader(3, 2).tensor("hole", [offset], 24, 0).tensor("w", [2], 0, offset);
      const header = raw.body(0).build();
      const file = openSync(path, "w");
      writeSync(file, header);
      writeSync(
        file,
        new Uint8Array(Float32Array.of(1.5, -2).buffer),
        0,
        8,
        header.length + offset,
      );
      closeSync(file);
      const gguf = readGguf(path);
      expect(gguf.fileBytes).toEqual([header.length + offset + 8]);
      expect(Array.from(readTensorFloats(gguf, gguf.tensors.get("w")!))).toEqual([1.5, -2]);
      rmSync(path);
    },
  );

  test("a vocabulary-only file and an empty one are fine", () => {
    expect(parseGgufHeader(memorySource(new RawHeader().build())).tensors.size).toBe(0);
  });

  test("tensors beyond 4 GiB, and a tensor without dimensions", () => {
    const big = 5 * 2 ** 30;
    const raw = new RawHeader(3, 2).tensor("big", [2 ** 30, 5], 24, 0).tensor("one", [], 0, big);
    const bytes = raw.body(0).build();
    const header = parseGgufHeader(memorySource(bytes, "big.gguf", bytes.length + big + 4));
    expect(header.tensors.get("big")).toMatchObject({ shape: [5, 2 ** 30], bytes: big });
    expect(header.tensors.get("one")).toMatchObject({
      shape: [],
      bytes: 4,
      offset: bytes.length + big,
    });
  });

  test("bytes that are not UTF-8 stay apart and find their way back", () => {
    const raw = new RawHeader(3, 0, 1).string("k").u32(9).u32(8).u64(4);
    raw.u64(1).bytes(0xff).u64(3).bytes(0x41, 0xe2, 0x82).u64(3).bytes(0xef, 0xbf, 0xbd);
    raw.u64(3).bytes(0xed, 0xa0, 0x80);
    const strings = getStrings(parseGgufHeader(memorySource(raw.build())).metadata, "k")!;
    const texts = ["\udcff", "A\udce2\udc82", "\ufffd", "\udced\udca0\udc80"];
    expect(strings.toArray()).toEqual(texts);
    expect(strings.bytesAt(1)).toEqual(Uint8Array.of(0x41, 0xe2, 0x82));
    const again = encodeGguf({
      metadata: [["k", { type: "array", of: "string", value: texts }]],
      tensors: [],
    });
    expect(Buffer.from(again).includes(Buffer.from([0x41, 0xe2, 0x82]))).toBe(true);
  });

  test("any bytes decode to distinct text: whole characters, and one surrogate per other byte", () => {
    const edges = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xed];
    edges.push(0xef, 0xf0, 0xf4, 0xf5, 0xff);
    let state = Number(process.env["TINFER_TEST_SEED"] ?? 1);
    const below = (limit: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    const isCharacter = (bytes: Uint8Array) => [...(decodeStrict(bytes) ?? "xx")].length === 1;
    for (let round = 0; round < 20_000; round++) {
      const bytes = Uint8Array.from({ length: below(10) }, () => edges[below(edges.length)]!);
      let expected = "";
      for (let index = 0; index < bytes.length; ) {
        const sizes = [1, 2, 3, 4].filter((size) =>
          isCharacter(bytes.subarray(index, index + size)),
        );
        const size = sizes[0];
        const text = size && decodeStrict(bytes.subarray(index, index + size));
        expected += text || String.fromCharCode(0xdc00 + bytes[index]!);
        index += size ?? 1;
      }
      expect(decodeLossless(bytes)).toBe(expected);
      expect(encodeLossless(expected)).toEqual(bytes);
    }
  });

  test("a large vocabulary is read in windows without loss", () => {
    const words = Array.from({ length: 200_000 }, (_, index) => `word-${index}-é`);
    const path = join(folder, "vocabulary.gguf");
    const value = { type: "array", of: "string", value: words } as const;
    writeGguf(path, {
      metadata: [
        ["w", value],
        ["after", { type: "u8", value: 9 }],
      ],
      tensors: [],
    });
    expect(statSync(path).size).toBeGreaterThan(4 * 2 ** 20);
    const { metadata } = readGguf(path);
    expect(getStrings(metadata, "w")!.toArray()).toEqual(words);
    expect(metadata.get("after")).toBe(9);
  });

  test("rows and tensors have the bytes of whole quant blocks", () => {
    expect(tensorBytes("q4_k", [3, 2, 512])).toBe(3 * 2 * 2 * 144);
    expect(() => tensorBytes("q4_0", [33])).toThrow("not a multiple of 32");
  });
});

interface ShardChange {
  /** What the second part says its number is. */
  readonly secondNumber?: number;
  readonly numTensors?: number;
  readonly tensorName?: string;
}

describe("shards", () => {
  function writeShards(stem: string, numShards: number, change: ShardChange = {}) {
    const paths: string[] = [];
    for (let index = 0; index < numShards; index++) {
      const number = String(index + 1).padStart(5, "0");
      const path = join(folder, `${stem}-${number}-of-${String(numShards).padStart(5, "0")}.gguf`);
      const metadata: [string, GgufValue][] = [
        ["split.no", { type: "u16", value: index === 1 ? (change.secondNumber ?? 1) : index }],
        ["split.count", { type: "u16", value: numShards }],
        ["split.tensors.count", { type: "i32", value: change.numTensors ?? numShards }],
      ];
      if (index === 0) metadata.push(["general.architecture", { type: "string", value: "llama" }]);
      const content = new Uint8Array(Float32Array.of(index).buffer);
      const name = change.tensorName ?? `w${index}`;
      writeGguf(path, { metadata, tensors: [{ name, type: "f32", shape: [1], content }] });
      paths.push(path);
    }
    return paths;
  }

  test("are joined from the first one", () => {
    const paths = writeShards("good", 3);
    const file = readGguf(paths[0]!);
    expect(file.paths).toEqual(paths);
    expect(file.metadata.get("general.architecture")).toBe("llama");
    for (let index = 0; index < 3; index++) {
      const tensor = file.tensors.get(`w${index}`)!;
      expect(tensor.fileIndex).toBe(index);
      expect(readTensorFloats(file, tensor)[0]).toBe(index);
    }
  });

  function failure(path: string): TinferError {
    try {
      readGguf(path);
    } catch (error) {
      if (error instanceof TinferError) return error;
      throw error;
    }
    throw new Error(`${path} was accepted`);
  }

  test("another part than the first names the first", () => {
    const paths = writeShards("other", 2);
    const error = failure(paths[1]!);
    expect(error.code).toBe("usage");
    expect(error.message).toContain("part 2 of 2");
    expect(error.hint).toContain(paths[0]!);
  });

  test("a missing part is named", () => {
    const paths = writeShards("missing", 3);
    rmSync(paths[2]!);
    const error = failure(paths[0]!);
    expect(error.code).toBe("notFound");
    expect(error.message).toContain("part 3 of 3");
    expect(error.message).toContain(paths[2]!);
  });

  test("split keys of the wrong kind name file and key", () => {
    const path = join(folder, "kinds.gguf");
    for (const value of [
      { type: "string", value: "2" },
      { type: "i32", value: -1 },
    ] as const) {
      writeGguf(path, { metadata: [["split.count", value]], tensors: [] });
      const error = failure(path);
      expect(error.code).toBe("invalidFile");
      expect(error.message).toContain(`${path}: metadata key 'split.count'`);
    }
  });

  test("a renamed first part, a foreign part, doubled and missing tensors are refused", () => {
    const renamed = writeShards("renamed", 2)[0]!;
    const plainName = join(folder, "plain.gguf");
    copyFileSync(renamed, plainName);
    expect(failure(plainName).message).toContain("part 1 of 2");
    expect(failure(writeShards("foreign", 2, { secondNumber: 0 })[0]!).message).toContain(
      "says that it is",
    );
    expect(failure(writeShards("same", 2, { tensorName: "w" })[0]!).message).toContain(
      "tensor 'w'",
    );
    expect(failure(writeShards("few", 2, { numTensors: 9 })[0]!).message).toContain("has 9");
  });
});
