// The weights that a plan reads, in the order the model code asks for them: tensors of the file,
// parts of them, and tables made by the model code. Checks shapes against what the code expects.
import { assert, TinferError } from "../core/errors.ts";
import type { Factor } from "./adapters.ts";
import type { ExpertWeights, Table, Weight } from "./ops.ts";

/** A tensor of the model file as the plan needs it. */
export interface WeightFacts {
  readonly shape: readonly number[];
  readonly typeId: number;
  /** Of 8-bit floats: the tensor with their scales, and the rows and columns of a block. */
  readonly scales?: {
    readonly name: string;
    readonly shape: readonly number[];
    readonly blockRows: number;
    readonly blockCols: number;
  };
}

export interface WeightSource {
  /** A tensor of the file, or undefined when it has none of that name. */
  find(name: string): WeightFacts | undefined;
  /** Values of a small F32 tensor; undefined when there is none of that name. */
  values(name: string): Float32Array | undefined;
  /** The values of its rows `first` to `first + count`, for who computes with weights at load. */
  readRows?(name: string, first: number, count: number): Float32Array;
  /** The square of each of these rows and its products with `vectors`: `[count, 1 + vectors]`. */
  sumRows?(name: string, first: number, count: number, vectors: Float32Array): Float64Array;
}

/** Reads weights of the model at load; `index` is the weight's among some. */
export interface WeightReader {
  /** Rows `first` to `first + count`. */
  rows(index: number, first: number, count: number): Float32Array;
  /** Of the same rows the squares and the products with `vectors`: `[count, 1 + vectors]`. */
  sums(index: number, first: number, count: number, vectors: Float32Array): Float64Array;
}

const f32TypeId = 0;

export class WeightTable {
  readonly weights: Weight[] = [];
  readonly #source: WeightSource;
  readonly #factors = new Map<Factor, Weight>();
  readonly #byName = new Map<string, Weight>();
  readonly #gains = new Map<string, Float32Array>();

  constructor(source: WeightSource) {
    this.#source = source;
  }

  protected shapeOf(name: string): readonly number[] | undefined {
    return this.#source.find(name)?.shape;
  }

  hasWeight(name: string): boolean {
    return this.#source.find(name) !== undefined;
  }

  /** The weight `name`, which must be `[rows, cols]`; throws when it is missing or differs. */
  weight(name: string, rows: number, cols: number): Weight {
    const weight = this.optionalWeight(name, rows, cols);
    if (weight !== undefined) return weight;
    throw missing(name);
  }

  optionalWeight(name: string, rows: number, cols: number): Weight | undefined {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const found = this.#source.find(name);
    if (found === undefined) return undefined;
    checkMatrix(name, found.shape, rows, cols);
    const scales = this.#scalesOf(found, 0);
    const weight = this.#addWeight({ name, rows, cols, typeId: found.typeId, ...scales });
    this.#byName.set(name, weight);
    return weight;
  }

  /** The scales of a weight that begins at row `firstRow` of the tensor `found`. */
  #scalesOf({ scales }: WeightFacts, firstRow: number): Pick<Weight, "scales"> {
    if (scales === undefined) return {};
    const { name, blockRows, blockCols } = scales;
    const [rows, cols] = scales.shape as [number, number];
    const known = this.#byName.get(name);
    const weight = known ?? this.#addWeight({ name, rows, cols, typeId: f32TypeId });
    this.#byName.set(name, weight);
    return { scales: { weight, blockRows, blockCols, firstRow } };
  }

  /**
   * NVFP4 has a scale per tensor, or per expert of a stack, beside the blocks': `T.scale` of
   * `T.weight`. (`T.input_scale` is for activations in FP4, which nobody has here.)
   */
  #gainOf(name: string, expert: number): number {
    const own = name.replace(/\.weight$/, ".scale");
    if (own === name) return 1;
    const gains = this.#gains.get(own) ?? this.#source.values(own) ?? Float32Array.of(1);
    this.#gains.set(own, gains);
    const gain = gains.length === 1 ? gains[0] : gains[expert];
    if (gain !== undefined) return gain;
    throw wrongShape(own, [gains.length], [1]);
  }

  #addWeight(weight: Omit<Weight, "id" | "gain">, expert = 0): Weight {
    const gain = weight.constant === undefined ? this.#gainOf(weight.name, expert) : 1;
    const added: Weight = { id: this.weights.length, gain, ...weight };
    this.weights.push(added);
    return added;
  }

  /** Rows `first` to `first + rows` of the weight `name`, which must be `[count, cols]`. */
  weightRows(
    name: string,
    [count, cols]: readonly [number, number],
    first: number,
    rows: number,
  ): Weight {
    assert(first + rows <= count, `rows of ${name}`);
    const found = this.#source.find(name);
    if (found === undefined) throw missing(name);
    checkMatrix(name, found.shape, count, cols);
    const scales = this.#scalesOf(found, first);
    const slice = { first, count };
    return this.#addWeight({ name, rows, cols, typeId: found.typeId, slice, ...scales });
  }

  /** `rows` rows of an adapter's factor from each of `starts` on, one after the other. */
  protected factorParts(factor: Factor, starts: readonly number[], rows: number): ExpertWeights {
    const { name, shape, typeId, constant } = factor;
    const cols = shape.at(-1)!;
    const count = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    const isWhole = starts.length === 1 && rows === count;
    const known = isWhole ? this.#factors.get(factor) : undefined;
    if (known !== undefined) return [known];
    const parts = starts.map((first) => {
      const place =
        constant === undefined
          ? { slice: { first, count } }
          : { constant: { table: constant, firstValue: first * cols } };
      return this.#addWeight({ name, rows, cols, typeId, ...place });
    });
    if (isWhole) this.#factors.set(factor, parts[0]!);
    return parts;
  }

  /** Reads of weight `index` of some; tables are made once. */
  protected weightReader(weights: ExpertWeights): WeightReader {
    const tables = new Map<Table, Float32Array>();
    const place = ({ name, slice }: Weight) => {
      const shape = this.shapeOf(name) ?? [];
      const all = shape.slice(0, -1).reduce((product, size) => product * size, 1);
      return slice === undefined ? 0 : (slice.first * all) / slice.count;
    };
    return {
      rows: (index, first, count) => {
        const weight = weights[index]!;
        const { name, cols, constant, gain } = weight;
        if (constant === undefined) {
          const values = this.#source.readRows!(name, place(weight) + first, count);
          return gain === 1 ? values : values.map((value) => value * gain);
        }
        const values = tables.get(constant.table) ?? constant.table.make();
        tables.set(constant.table, values);
        const start = constant.firstValue + first * cols;
        return values.subarray(start, start + count * cols);
      },
      sums: (index, first, count, vectors) => {
        const weight = weights[index]!;
        const { name, cols, constant, gain } = weight;
        assert(constant === undefined, `${name} is a weight of the file`);
        const sums = this.#source.sumRows!(name, place(weight) + first, count, vectors);
        const width = 1 + vectors.length / cols;
        return gain === 1
          ? sums
          : sums.map((sum, i) => sum * (i % width === 0 ? gain * gain : gain));
      },
    };
  }

  /** Values `first` to `first + width` of the vector `name` `[1, count]`, where the file has it. */
  optionalVectorPart(
    name: string,
    count: number,
    first: number,
    width: number,
  ): Weight | undefined {
    const whole = this.optionalVector(name, count);
    if (whole === undefined) return undefined;
    const { typeId } = whole;
    return this.#addWeight({ name, rows: 1, cols: width, typeId, slice: { first, count } });
  }

  /**
   * One `[rows, cols]` matrix per expert: slices of the tensor `stacked` `[count, rows, cols]`,
   * or, in files without it, a tensor each.
   */
  experts(
    stacked: string,
    single: (expert: number) => string,
    [count, rows, cols]: readonly [number, number, number],
  ): ExpertWeights {
    if (this.hasWeight(stacked) || !this.hasWeight(single(0))) {
      return this.expertParts(stacked, [count, 1, rows, cols], 0);
    }
    const names = Array.from({ length: count }, (_, index) => single(index));
    // Experts follow one another in the plan: their scales come before all of them.
    for (const name of names) {
      const found = this.#source.find(name);
      if (found !== undefined) this.#scalesOf(found, 0);
    }
    return names.map((name) => this.weight(name, rows, cols));
  }

  /**
   * Part `index` of each expert: `stacked` is `[count, parts * rows, cols]`, every part `rows`
   * high.
   */
  expertParts(
    stacked: string,
    [count, parts, rows, cols]: readonly [number, number, number, number],
    index: number,
  ): ExpertWeights {
    const found = this.#stack(stacked, [count, parts * rows, cols]);
    const { typeId } = found;
    return Array.from({ length: count }, (_, expert) => {
      const slice = { first: expert * parts + index, count: count * parts };
      const scales = this.#scalesOf(found, slice.first * rows);
      const place = { name: stacked, rows, cols, typeId, slice };
      return this.#addWeight({ ...place, ...scales }, expert);
    });
  }

  /** The tensor `name`, which must be there and `wanted`. */
  #stack(name: string, wanted: readonly number[]) {
    const found = this.#source.find(name);
    if (found === undefined) throw missing(name);
    const { shape } = found;
    if (shape.length === wanted.length && wanted.every((size, i) => shape[i] === size)) {
      return found;
    }
    throw wrongShape(name, shape, wanted);
  }

  /** As many `[rows, cols]` matrices as a table of the model code has room for. */
  constantMatrices(name: string, table: Table, rows: number, cols: number): ExpertWeights {
    return Array.from({ length: table.length / (rows * cols) }, (_, index) => {
      const constant = { table, firstValue: index * rows * cols };
      return this.#addWeight({ name: `${name} ${index}`, rows, cols, typeId: f32TypeId, constant });
    });
  }

  /** A `[1, width]` weight that ops read as plain floats; it must be stored as F32. */
  vector(name: string, width: number): Weight {
    return requireF32(this.weight(name, 1, width));
  }

  optionalVector(name: string, width: number): Weight | undefined {
    return this.optionalRows(name, 1, width);
  }

  /** `[rows, width]` that ops read as plain floats, where the file has it. */
  optionalRows(name: string, rows: number, width: number): Weight | undefined {
    const weight = this.optionalWeight(name, rows, width);
    return weight === undefined ? undefined : requireF32(weight);
  }

  /** A table made by the model code, `[1, values.length]`. */
  constant(name: string, values: Float32Array): Weight {
    const { length } = values;
    return this.constantMatrices(name, { length, make: () => values }, 1, length)[0]!;
  }
}

function missing(name: string): TinferError {
  return new TinferError("invalidFile", `tensor '${name}' is missing`, {
    hint: "the file is incomplete or of another architecture than it says; convert it again",
  });
}

/** A vector may lie in the file as one row per head. */
function checkMatrix(name: string, found: readonly number[], rows: number, cols: number): void {
  if (rows === 1 && found.reduce((a, b) => a * b, 1) === cols) return;
  if (found.length === 2 && found[0] === rows && found[1] === cols) return;
  throw wrongShape(name, found, [rows, cols]);
}

function wrongShape(name: string, found: readonly number[], wanted: readonly number[]) {
  const message = `tensor '${name}' is [${found}], the metadata asks for [${wanted.join(", ")}]`;
  return new TinferError("invalidFile", message, {
    hint: "metadata and tensors of this file do not belong together; convert it again",
  });
}

function requireF32(weight: Weight): Weight {
  if (weight.typeId === f32TypeId) return weight;
  throw new TinferError("unsupported", `tensor '${weight.name}' is a vector that is not F32`, {
    hint: "convert the model with a current converter, which keeps norms and biases in F32",
  });
}
