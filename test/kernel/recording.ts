// Records the steps of a session with their results, as one file that kernels/replay.zig runs on
// another CPU: the plan in binary form, all weights, each step's arrays and the bits expected.
import { writeFileSync } from "node:fs";
import { isInterleaved, type WeightMemory, weightAddress } from "../../src/backend/backend.ts";
import { weightRowBytes } from "../../src/engine/op-cost.ts";
import { viewMemory } from "../../src/native/memory.ts";
import type { MemoryLayout, PlanLimits } from "../../src/plan/arena.ts";
import { encodePlan, makePlaces } from "../../src/plan/binary.ts";
import type { Plan } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import type { StepData } from "../../src/plan/step-data.ts";

const magic = 0x43455254;
const version = 1;
const headerBytes = 64;
const stepBytes = 48;
const alignment = 64;

const bytesOf = (values: Float32Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** What is recorded of a session. */
export interface Recorded {
  readonly plan: Plan;
  readonly limits: PlanLimits;
  readonly layout: MemoryLayout;
  readonly weights: WeightMemory;
}

interface Step {
  readonly arrays: Uint8Array;
  readonly arenaOffset: number;
  readonly expected: Float32Array;
  readonly reference: Float32Array | undefined;
}

export class Recording {
  readonly #recorded: Recorded;
  readonly #steps: Step[] = [];

  constructor(recorded: Recorded) {
    this.#recorded = recorded;
  }

  /** Adds the step that has just run; `reference` are values by another implementation. */
  add(data: StepData, result: Tensor, values: Float32Array, reference?: Float32Array): void {
    const arenaOffset = this.#recorded.layout.tensorOffsets[result.id]!;
    const expected = Float32Array.from(values);
    this.#steps.push({ arrays: data.bytes.slice(), arenaOffset, expected, reference });
  }

  write(path: string): void {
    const { plan, limits, layout, weights } = this.#recorded;
    const chunks: Uint8Array[] = [];
    let end = 0;
    /** Appends at the next multiple of 64 and returns where. */
    const append = (bytes: Uint8Array): number => {
      const start = end;
      const padding = (alignment - (bytes.length % alignment)) % alignment;
      chunks.push(bytes, new Uint8Array(padding));
      end += bytes.length + padding;
      return start;
    };
    const header = new BigUint64Array(headerBytes / 8);
    const words = new Uint32Array(header.buffer);
    append(new Uint8Array(header.buffer));
    // The replay fills in the addresses; the bytes below lie as they do here.
    const places = makePlaces(plan.weights.length);
    plan.weights.forEach((weight, i) => {
      if (weight.constant === undefined && isInterleaved(weights, weight)) places.layouts[i] = 1;
    });
    const planBytes = encodePlan(plan, limits, layout, places);
    const planStart = append(planBytes);
    const weightStarts = plan.weights.map((weight) => {
      if (weight.constant !== undefined) {
        const { table, firstValue } = weight.constant;
        const numValues = weight.rows * weight.cols;
        return append(bytesOf(table.make().slice(firstValue, firstValue + numValues)));
      }
      const numBytes = weight.rows * weightRowBytes(weight);
      return append(new Uint8Array(viewMemory(weightAddress(weights, weight), numBytes)));
    });
    // Kernels read up to 64 bytes past the last weight.
    append(new Uint8Array(alignment));
    const weightTable = append(new Uint8Array(BigUint64Array.from(weightStarts, BigInt).buffer));
    const steps = new BigUint64Array((this.#steps.length * stepBytes) / 8);
    this.#steps.forEach(({ arrays, arenaOffset, expected, reference }, i) => {
      const places = [append(arrays), arrays.length, arenaOffset, append(bytesOf(expected))];
      const referenceStart = reference === undefined ? 0 : append(bytesOf(reference));
      steps.set([...places, expected.length, referenceStart].map(BigInt), (i * stepBytes) / 8);
    });
    words.set([magic, version, plan.weights.length, this.#steps.length]);
    const stepTable = append(new Uint8Array(steps.buffer));
    const sizes = [planStart, planBytes.length, weightTable, stepTable];
    header.set([...sizes, layout.arenaBytes, layout.kvBytes].map(BigInt), 2);
    writeFileSync(path, Buffer.concat(chunks));
  }
}
