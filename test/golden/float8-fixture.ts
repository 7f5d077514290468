// Makes two model folders of one: its projections in 8-bit floats with scales, and the weights that
// these stand for in F32. Both must compute the same.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readFileRange } from "../../src/weights/file-range.ts";
import { float8Values } from "../../src/weights/float8.ts";
import { fileRows, readFloats } from "../../src/weights/rows.ts";
import type { SafeTensor } from "../../src/weights/safetensors.ts";
import { readSafetensorsFolder } from "../../src/weights/safetensors-folder.ts";

/** What a scale stands for, and how it is stored. */
export const scaleKinds = {
  blocks: { dtype: "F32", ending: "_scale_inv" },
  rows: { dtype: "BF16", ending: "_scale" },
  tensor: { dtype: "F32", ending: "_scale" },
} as const;
export type ScaleKind = keyof typeof scaleKinds;

/** Rows and columns of a block: small, as the models are, and so that the last ones are cut. */
const block = [48, 32] as const;

interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Projections, of experts too, as published models have them; a router stays. */
const projection = /(_proj(_with_mqa)?|\.w[123]|put_linear)(\.weight)?$/;
const isProjection = (name: string, shape: readonly number[]) =>
  shape.length >= 2 && projection.test(name) && !/vision|multi_modal/.test(name);

export function makeFloat8Folders(source: string, target: string, kind: ScaleKind) {
  const model = readSafetensorsFolder(source);
  const [scaled, plain] = [new Map<string, Stored>(), new Map<string, Stored>()];
  for (const tensor of model.tensors.values()) {
    const { name, dtype, shape } = tensor;
    const path = model.paths[tensor.fileIndex]!;
    const whole = { dtype, shape, bytes: readFileRange(path, tensor.offset, tensor.bytes) };
    if (!isProjection(name, shape)) {
      scaled.set(name, whole);
      plain.set(name, whole);
      continue;
    }
    const { codes, scales, values } = quantized(floatsOf(tensor, path), shape, kind);
    scaled.set(name, codes);
    scaled.set(`${name}${scaleKinds[kind].ending}`, scales);
    plain.set(name, values);
  }
  const folders = { float8: join(target, kind), plain: join(target, `${kind}-f32`) };
  writeFolder(source, folders.float8, scaled, true);
  writeFolder(source, folders.plain, plain, false);
  return folders;
}

function floatsOf({ dtype, shape, offset }: SafeTensor, path: string): Float32Array {
  const type = ({ F32: "f32", BF16: "bf16" } as const)[dtype as "F32" | "BF16"];
  const numElements = shape.reduce((product, size) => product * size, 1);
  return readFloats(fileRows({ path, offset }, type, [1, numElements]), 0, 1);
}

const e4m3 = float8Values.f8_e4m3;
const ascending = Array.from({ length: 127 }, (_, code) => e4m3[code]!);

/** The code whose value is nearest. */
function codeOf(value: number): number {
  const size = Math.abs(value);
  const upper = ascending.findIndex((candidate) => candidate >= size);
  if (upper < 0) return value < 0 ? 0xfe : 0x7e;
  const isLower = upper > 0 && size - ascending[upper - 1]! < ascending[upper]! - size;
  return (isLower ? upper - 1 : upper) | (value < 0 ? 0x80 : 0);
}

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer.slice(0) as ArrayBuffer);

/** The upper halves. */
function brainBytes(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer.slice(0) as ArrayBuffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

function quantized(values: Float32Array, shape: readonly number[], kind: ScaleKind) {
  const cols = shape.at(-1)!;
  const rows = values.length / cols;
  const isStack = shape.length === 3;
  // Of stacked matrices each has one.
  const [blockRows, blockCols] = isStack
    ? [shape[1]!, cols]
    : { blocks: block, rows: [1, cols], tensor: [rows, cols] }[kind];
  const perRow = Math.ceil(cols / blockCols!);
  const blockAt = (i: number) =>
    Math.floor(Math.floor(i / cols) / blockRows!) * perRow + Math.floor((i % cols) / blockCols!);
  const scales = new Float32Array(Math.ceil(rows / blockRows!) * perRow);
  values.forEach((value, i) => {
    scales[blockAt(i)] = Math.max(scales[blockAt(i)]!, Math.abs(value) / 448);
  });
  const { dtype } = scaleKinds[kind];
  const bits = new Uint32Array(scales.buffer);
  if (dtype === "BF16")
    bits.forEach((word, i) => {
      bits[i] = (word + 0x8000) & 0xffff0000;
    });
  const codes = Uint8Array.from(values, (value, i) => codeOf(value / (scales[blockAt(i)]! || 1)));
  const weights = Float32Array.from(codes, (code, i) => e4m3[code]! * scales[blockAt(i)]!);
  const scaleShape = isStack
    ? [shape[0]!, 1, 1]
    : { blocks: [scales.length / perRow, perRow], rows: [rows, 1], tensor: [] }[kind];
  const scaleBytes = dtype === "BF16" ? brainBytes(scales) : bytesOf(scales);
  return {
    codes: { dtype: "F8_E4M3", shape, bytes: codes },
    scales: { dtype, shape: scaleShape, bytes: scaleBytes },
    values: { dtype: "F32", shape, bytes: bytesOf(weights) },
  };
}

function writeFolder(
  source: string,
  folder: string,
  tensors: ReadonlyMap<string, Stored>,
  isFloat8: boolean,
): void {
  mkdirSync(folder, { recursive: true });
  for (const file of readdirSync(source)) {
    if (!/safetensors/.test(file)) copyFileSync(join(source, file), join(folder, file));
  }
  if (isFloat8) {
    const path = join(folder, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8"));
    const quantization_config = { quant_method: "fp8", weight_block_size: block };
    writeFileSync(path, JSON.stringify({ ...config, quantization_config }));
  }
  writeSafetensors(join(folder, "model.safetensors"), tensors);
}

export function writeSafetensors(path: string, tensors: ReadonlyMap<string, Stored>): void {
  let end = 0;
  const entries = Array.from(tensors, ([name, { dtype, shape, bytes }]) => {
    const start = end;
    end += bytes.length;
    return [name, { dtype, shape, data_offsets: [start, end] }];
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const content = Array.from(tensors.values(), ({ bytes }) => bytes);
  writeFileSync(path, Buffer.concat([length, text, ...content]));
}
