// Importance matrices: the mean square of what each column of a weight matrix is multiplied with,
// from running text. Read from the GGUF form and from the older binary form that other tools write.
import { readFileSync, statSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { readGguf } from "./gguf.ts";
import { quote } from "./gguf-values.ts";
import { isStringArray } from "./metadata.ts";
import { readTensorFloats } from "./tensor-content.ts";

export interface ImportanceMatrix {
  /** By the weight's name: `[cols]`, or for a stack of experts a row for each. */
  readonly values: ReadonlyMap<string, Float32Array>;
  /** Texts that it was made from. */
  readonly datasets: readonly string[];
  readonly numChunks: number;
}

export const sumSuffix = ".in_sum2";
export const countSuffix = ".counts";

/** Larger files are no importance matrices: a value per column of each matrix. */
const largestBytes = 2 ** 31 - 1;

export function readImportance(path: string): ImportanceMatrix {
  const matrix = isGguf(path) ? readGgufForm(path) : readBinaryForm(path);
  for (const [name, values] of matrix.values) {
    if (values.every((value) => value >= 0 && Number.isFinite(value))) continue;
    throw damaged(path, `${quote(name)} has a value that is negative or not a number`);
  }
  return matrix;
}

function damaged(path: string, problem: string): TinferError {
  return new TinferError("invalidFile", `${path}: ${problem}`, {
    hint: "give an importance matrix, such as `tinfer imatrix` writes",
  });
}

function isGguf(path: string): boolean {
  let bytes: Uint8Array;
  try {
    const { size } = statSync(path);
    if (size > largestBytes) throw damaged(path, "is too large for an importance matrix");
    bytes = readFileSync(path);
  } catch (cause) {
    if (cause instanceof TinferError) throw cause;
    const hint = "check the path, and that this user may read it";
    throw new TinferError("notFound", `${path} cannot be read`, { hint, cause });
  }
  return new TextDecoder("latin1").decode(bytes.subarray(0, 4)) === "GGUF";
}

function readGgufForm(path: string): ImportanceMatrix {
  const file = readGguf(path);
  const values = new Map<string, Float32Array>();
  for (const tensor of file.tensors.values()) {
    if (!tensor.name.endsWith(sumSuffix)) continue;
    const name = tensor.name.slice(0, -sumSuffix.length);
    const counts = file.tensors.get(`${name}${countSuffix}`);
    if (counts === undefined) throw damaged(path, `${quote(name)} has sums but no counts`);
    values.set(name, means(readTensorFloats(file, tensor), readTensorFloats(file, counts), path));
  }
  if (values.size === 0) throw damaged(path, "the file holds no importance matrix");
  const datasets = file.metadata.get("imatrix.datasets");
  const numChunks = file.metadata.get("imatrix.chunk_count");
  return {
    values,
    datasets: isStringArray(datasets) ? datasets.toArray() : [],
    numChunks: typeof numChunks === "number" ? numChunks : 0,
  };
}

/** Sums over counts; experts that no token went to count evenly. */
function means(sums: Float32Array, counts: Float32Array, path: string): Float32Array {
  const cols = sums.length / counts.length;
  if (!Number.isInteger(cols)) throw damaged(path, "sums and counts do not match");
  return sums.map((sum, index) => {
    const count = counts[Math.floor(index / cols)]!;
    return count > 0 ? sum / count : 1;
  });
}

/** Entries of name, number of calls, and as many sums of means; then chunks and the text's name. */
function readBinaryForm(path: string): ImportanceMatrix {
  const bytes = readFileSync(path);
  let position = 0;
  const take = (count: number, what: string): Buffer => {
    if (count < 0 || position + count > bytes.length) {
      throw damaged(path, `byte ${position}: ${what} passes the file's end`);
    }
    position += count;
    return bytes.subarray(position - count, position);
  };
  const int = (what: string) => take(4, what).readInt32LE();
  const values = new Map<string, Float32Array>();
  const numEntries = int("the number of entries");
  if (numEntries < 1) throw damaged(path, "the file holds no importance matrix");
  for (let entry = 0; entry < numEntries; entry++) {
    const name = take(int("a name's length"), "a name").toString("utf8");
    const numCalls = int("a number of calls");
    const content = take(int("a number of values") * 4, `the values of ${quote(name)}`);
    const sums = new Float32Array(new Uint8Array(content).buffer);
    values.set(name, numCalls > 0 ? sums.map((sum) => sum / numCalls) : sums);
  }
  if (position + 8 > bytes.length) return { values, datasets: [], numChunks: 0 };
  const numChunks = int("the number of chunks");
  const dataset = take(int("the length of the text's name"), "the text's name").toString("utf8");
  return { values, datasets: dataset === "" ? [] : [dataset], numChunks };
}
