// Seeded fuzzer of the GGUF parser: mutated, cut and spliced files must parse or be refused with
// a TinferError, quickly and within bounded memory. Alone: bun test/fuzz/gguf-fuzz.ts SECONDS SEED
import { TinferError } from "../../src/core/errors.ts";
import type { ByteSource } from "../../src/weights/gguf-cursor.ts";
import { type GgufHeader, parseGgufHeader } from "../../src/weights/gguf-header.ts";
import { ggufLimits } from "../../src/weights/gguf-limits.ts";
import { isStringArray, type MetadataValue } from "../../src/weights/metadata.ts";
import { tensorBytes } from "../../src/weights/quant-types.ts";
import { memorySource, smallFiles } from "./gguf-corpus.ts";

/** A parse of a few kilobytes takes microseconds; a second means that a loop follows a claim. */
const maxParseMs = 1_000;
/** The header limit, its copies while the window doubles, and the runtime itself. */
const maxResidentBytes = 6 * ggufLimits.headerBytes;

type Random = () => number;

/** Uniform in [0, 1), 32 bits of state (the finaliser of MurmurHash3 over a counter). */
function seededRandom(seed: number): Random {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    let bits = counter;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
  };
}

function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

/** Values at the edges of what a field may hold. */
const edges = [0n, 1n, 2n, 3n, 8n, 9n, 32n, 127n, 255n, 65_535n, 2n ** 31n - 1n, 2n ** 31n];
edges.push(2n ** 32n - 1n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n);

type Mutation = (bytes: Uint8Array, random: Random, other: Uint8Array) => Uint8Array;

const flipBit: Mutation = (bytes, random) => {
  const index = below(random, bytes.length);
  bytes[index] = (bytes[index] ?? 0) ^ (1 << below(random, 8));
  return bytes;
};

const setEdge: Mutation = (bytes, random) => {
  if (bytes.length < 8) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const edge = edges[below(random, edges.length)]!;
  const at = below(random, bytes.length - 7);
  if (random() < 0.5) view.setBigUint64(at, edge, true);
  else view.setUint32(at, Number(edge & 0xffffffffn), true);
  return bytes;
};

const nudge: Mutation = (bytes, random) => {
  const index = below(random, bytes.length);
  bytes[index] = (bytes[index] ?? 0) + below(random, 9) - 4;
  return bytes;
};

const cut: Mutation = (bytes, random) => bytes.slice(0, below(random, bytes.length));

const remove: Mutation = (bytes, random) => {
  const start = below(random, bytes.length);
  const end = start + below(random, 16);
  return new Uint8Array(Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]));
};

const repeat: Mutation = (bytes, random) => {
  const start = below(random, bytes.length);
  const end = start + below(random, 64);
  return new Uint8Array(Buffer.concat([bytes.subarray(0, end), bytes.subarray(start)]));
};

const splice: Mutation = (bytes, random, other) => {
  const head = bytes.subarray(0, below(random, bytes.length));
  return new Uint8Array(Buffer.concat([head, other.subarray(below(random, other.length))]));
};

const mutations: readonly Mutation[] = [flipBit, setEdge, setEdge, nudge, nudge, cut, remove];
const rareMutations: readonly Mutation[] = [repeat, splice, flipBit];

function mutate(random: Random, corpus: readonly Uint8Array[]): Uint8Array {
  let bytes: Uint8Array = corpus[below(random, corpus.length)]!.slice();
  const numMutations = 1 + below(random, 4);
  for (let step = 0; step < numMutations && bytes.length > 0; step++) {
    const choices = random() < 0.8 ? mutations : rareMutations;
    const other = corpus[below(random, corpus.length)]!;
    bytes = choices[below(random, choices.length)]!(bytes, random, other);
  }
  return bytes;
}

/** Once in a while the file claims to go on far beyond its bytes, as a sparse file does. */
function sourceOf(bytes: Uint8Array, random: Random): ByteSource {
  const isSparse = random() < 1 / 4096;
  return memorySource(bytes, "fuzz.gguf", isSparse ? 2 ** (30 + below(random, 20)) : bytes.length);
}

/** What was accepted must keep its promises. */
function checkAccepted(header: GgufHeader, source: ByteSource): void {
  for (const [key, value] of header.metadata) touch(key, value);
  for (const tensor of header.tensors.values()) {
    const wanted = tensorBytes(tensor.type, tensor.shape);
    const isInside = tensor.offset >= 0 && tensor.offset + tensor.bytes <= source.byteLength;
    const isAligned = tensor.offset % header.alignment === 0;
    if (tensor.bytes !== wanted || !isInside || !isAligned) {
      throw new Error(`accepted a wrong tensor: ${JSON.stringify(tensor)}`);
    }
  }
}

/** Decodes every string that the file claims to have. */
function touch(key: string, value: MetadataValue): void {
  if (isStringArray(value)) {
    if (value.length < 100_000 && value.toArray().length !== value.length) {
      throw new Error(`${key}: strings are missing`);
    }
  } else if (Array.isArray(value)) {
    for (const element of value) touch(key, element);
  }
}

/** Whether the file was accepted; throws what must not be thrown. */
function isAccepted(source: ByteSource): boolean {
  let header: GgufHeader;
  try {
    header = parseGgufHeader(source);
  } catch (error) {
    const isGood = error instanceof TinferError && error.hint !== undefined;
    if (isGood && error.message.startsWith("fuzz.gguf: byte ")) return false;
    throw error;
  }
  checkAccepted(header, source);
  return true;
}

/** Fuzzes for `seconds`; throws with seed and iteration at the first broken promise. */
export function run(seconds: number, seed: number): { iterations: number; accepted: number } {
  const random = seededRandom(seed);
  const corpus = smallFiles();
  const deadline = performance.now() + seconds * 1_000;
  let iterations = 0;
  let accepted = 0;
  while (performance.now() < deadline) {
    const source = sourceOf(mutate(random, corpus), random);
    const isSparse = source.byteLength >= 2 ** 30;
    const limitMs = maxParseMs * (isSparse ? 5 : 1);
    let elapsedMs = 0;
    // A pause of the machine or of the garbage collector is not the parser's: what seems slow is
    // parsed again and must be slow every time.
    for (let attempt = 0; attempt < 3; attempt++) {
      const started = performance.now();
      try {
        const isGood = isAccepted(source);
        if (attempt === 0) accepted += isGood ? 1 : 0;
      } catch (cause) {
        throw new Error(`gguf fuzz: seed ${seed}, iteration ${iterations}`, { cause });
      }
      elapsedMs = performance.now() - started;
      if (elapsedMs <= limitMs) break;
    }
    if (elapsedMs > limitMs) {
      throw new Error(`gguf fuzz: seed ${seed}, iteration ${iterations} took ${elapsedMs} ms`);
    }
    iterations += 1;
    // Without this the collector puts millions of dead files off and then pauses for seconds.
    if (iterations % 65_536 === 0) Bun.gc(true);
    if (iterations % 1024 === 0 && process.memoryUsage().rss > maxResidentBytes) {
      throw new Error(`gguf fuzz: seed ${seed}, iteration ${iterations}: memory grew too far`);
    }
  }
  return { iterations, accepted };
}

if (import.meta.main) {
  const seconds = Number(process.argv[2] ?? 60);
  const seed = Number(process.argv[3] ?? Date.now() % 2 ** 32);
  const started = process.memoryUsage().rss;
  const { iterations, accepted } = run(seconds, seed);
  const grownMiB = Math.round((process.memoryUsage().rss - started) / 2 ** 20);
  process.stdout.write(
    `gguf fuzz: seed ${seed}, ${iterations} files, ${accepted} accepted, +${grownMiB} MiB\n`,
  );
}
