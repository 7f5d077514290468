// From an open model file to its plan and the memory it will take, before anything is taken:
// `tinfer plan` prints this, the loader allocates exactly this.
import type { Backend } from "../backend/backend.ts";
import { selectBackend } from "../backend/select.ts";
import { TinferError } from "../core/errors.ts";
import { givenRopeOptions, ropeFlag } from "../models/rope-options.ts";
import type { Adapter } from "../plan/adapters.ts";
import type { Plan, PlanOutputs } from "../plan/builder.ts";
import type { KvType, Op, Weight } from "../plan/ops.ts";
import { isWholePanels } from "../plan/panels.ts";
import { quantTypeOf } from "../weights/quant-types.ts";
import { allowedCpus, availableMemoryBytes, defaultNumThreads, maxThreads } from "./machine.ts";
import {
  type MemoryPlan,
  planMemory,
  type ResolvedOptions,
  type WeightMemoryPlan,
  wantedContextLen,
} from "./memory-plan.ts";
import { type ModelFile, requireDecoder } from "./model-file.ts";
import type { ModelOptions } from "./options.ts";

/** They keep products of counts exact. */
export const optionLimits = { contextLen: 1 << 28, sequences: 4096 } as const;

export interface PlannedModel {
  readonly backend: Backend;
  readonly plan: Plan;
  readonly memoryPlan: MemoryPlan;
  readonly weights: WeightMemoryPlan;
}

export interface PlanSurroundings {
  readonly adapters?: readonly Adapter[];
  /** What may be taken; default: what the machine has. */
  readonly availableBytes?: number;
  /** Memory that becomes free before this plan's is taken. */
  readonly freedBytes?: number;
}

/** Throws for options out of range, weights without kernels, and contexts that do not fit. */
export function planModel(
  file: ModelFile,
  outputs: PlanOutputs,
  options: ModelOptions,
  surroundings: PlanSurroundings = {},
): PlannedModel {
  const { adapters = [], freedBytes = 0 } = surroundings;
  checkOptions(options);
  checkCpus(options);
  if (outputs === "tokens") requireDecoder({ ...file.config, isEncoder: file.isEncoder });
  const backend = selectBackend(options.backend);
  // Derived weights are taken at load, once; a later plan of the same file finds them there.
  file.requireDerivedMemory();
  const { availableBytes = availableMemoryBytes() } = surroundings;
  let available = availableBytes - file.untakenBytes + freedBytes;
  const { slidingWindow } = options;
  const contextLen = wantedContextLen(file.config, options);
  const numThreads = threadsOf(file, options);
  const plan = file.buildPlan(outputs, { slidingWindow, contextLen }, { adapters, numThreads });
  checkWeightTypes(plan, backend);
  checkPositions(plan, options);
  const resolved = resolveOptions(file, plan, options);
  if (options.load === "eager") {
    file.requireCopyMemory();
    available -= file.copyBytes - file.copiedBytes;
  }
  const memoryPlan = planMemory(plan, file.config, backend, resolved, available);
  const { maxContextLen } = memoryPlan;
  if (maxContextLen < contextLen) {
    // Some models turn positions otherwise in longer contexts: what counts is what there is.
    const fitting = { ...options, contextLen: maxContextLen };
    return planModel(file, outputs, fitting, { ...surroundings, availableBytes });
  }
  return {
    backend,
    plan,
    memoryPlan,
    weights: {
      fileBytes: options.load === "eager" ? file.copyBytes : file.mappedBytes,
      derivedBytes: file.derivedBytes,
    },
  };
}

/** Of a session that ends in hidden states and takes a text after the other. */
export function planHidden(
  file: ModelFile,
  options: ModelOptions,
  contextLen: number,
  surroundings: PlanSurroundings,
): PlannedModel {
  return planModel(file, "hidden", { ...options, contextLen, maxSequences: 1 }, surroundings);
}

/**
 * The KV type that adds nothing measurable to what the weights' own type costs; docs/kv-cache.md
 * has the measurement. F32 files are for exact results, F16 and Q8_0 come near them.
 */
function defaultKvType(mainType: string): KvType {
  if (mainType === "f32") return "f32";
  return mainType === "f16" || mainType === "q8_0" ? "f16" : "bf16";
}

const defaultTokensPerStep = 512;
/** Tokens of prompts that a step takes while all other sequences generate. */
const leastPromptTokens = 64;

function resolveOptions(file: ModelFile, plan: Plan, options: ModelOptions): ResolvedOptions {
  const kvType = defaultKvType(file.mainType);
  const tokensForAll = options.maxSequences + leastPromptTokens;
  const maxTokensPerStep = options.maxTokensPerStep ?? Math.max(defaultTokensPerStep, tokensForAll);
  return {
    ...options,
    isEncoder: file.isEncoder,
    positionLimit: positionLimit(plan),
    // Hidden states are wanted of all tokens.
    maxOutputsPerStep: plan.hidden === undefined ? options.maxOutputsPerStep : maxTokensPerStep,
    maxTokensPerStep,
    numThreads: threadsOf(file, options),
    kvTypeK: options.kvTypeK ?? kvType,
    kvTypeV: options.kvTypeV ?? kvType,
  };
}

/** Weights that are worth a thread: below, the barriers of a step cost more than it saves. */
const bytesPerThread = 4e6;

function threadsOf({ weightBytes }: ModelFile, { numThreads, cpus }: ModelOptions): number {
  const useful = Math.min(defaultNumThreads(), Math.ceil(weightBytes / bytesPerThread));
  return numThreads ?? cpus?.length ?? useful;
}

/** Positions that the plan has embeddings for; undefined where it computes them. */
export function positionLimit(plan: Plan): number | undefined {
  const tables = plan.ops.filter((op) => op.kind === "embed" && op.row === "position");
  const rows = tables.map((op) => (op.kind === "embed" ? op.weight.rows : 0));
  return rows.length === 0 ? undefined : Math.min(...rows);
}

/** Positions from a table cannot be stretched, nor can there be more of them. */
function checkPositions(plan: Plan, { contextLen = 0, rope }: ModelOptions): void {
  const limit = positionLimit(plan);
  if (limit !== undefined && contextLen > limit) {
    const message = `a context of ${contextLen} tokens is asked for (--ctx)`;
    throw new TinferError("usage", `${message}, the model knows ${limit} positions`, {
      hint: `give at most --ctx ${limit}`,
    });
  }
  const [given] = givenRopeOptions(rope);
  if (given === undefined || plan.ops.some((op) => op.kind === "rotations")) return;
  throw new TinferError("usage", `${ropeFlag(given)} changes nothing: the model has no rope`, {
    hint: "leave it out",
  });
}

function checkOptions(options: ModelOptions): void {
  const counts = [
    ["--threads", options.numThreads ?? 1, maxThreads],
    ["--ctx", options.contextLen ?? 1, optionLimits.contextLen],
    ["--parallel", options.maxSequences, optionLimits.sequences],
  ] as const;
  for (const [flag, value, most] of counts) {
    if (Number.isInteger(value) && value > 0 && value <= most) continue;
    throw new TinferError("usage", `${flag} is ${value}, wanted a whole number from 1 to ${most}`);
  }
}

/** Threads can be pinned to CPUs that the process may use, one each. */
function checkCpus({ cpus, numThreads }: ModelOptions): void {
  if (cpus === undefined) return;
  if (numThreads === undefined && cpus.length > maxThreads) {
    throw new TinferError("usage", `--cpus names ${cpus.length} CPUs, a thread for each`, {
      hint: `at most ${maxThreads} threads can run: name fewer CPUs`,
    });
  }
  const allowed = allowedCpus();
  const wrong = cpus.find((cpu) => !allowed.includes(cpu));
  if (wrong !== undefined || cpus.length === 0) {
    const what = wrong === undefined ? "names no CPU" : `names CPU ${wrong}`;
    throw new TinferError("usage", `--cpus ${what}`, {
      hint: `this process may run on CPUs ${allowed.join(",")}`,
    });
  }
  if (numThreads === undefined || numThreads <= cpus.length) return;
  const counts = `${numThreads} threads, ${cpus.length} CPUs`;
  throw new TinferError("usage", `--cpus needs a CPU for each of --threads: ${counts}`);
}

/** Files may hold types that are known but have no kernels; the first step is too late to say. */
function checkWeightTypes(plan: Plan, backend: Backend): void {
  for (const { name, typeId } of plan.weights) {
    if (backend.supportsType(typeId)) continue;
    const type = quantTypeOf(typeId)?.name ?? `type ${typeId}`;
    const message = `tensor '${name}' is ${type}, which the ${backend.name} backend cannot compute`;
    throw new TinferError("unsupported", message, {
      hint: "take another quantisation of the model, such as Q4_K_M or Q8_0",
    });
  }
}

/**
 * Names of the tensors that may lie interleaved: products multiply by them, and every weight that
 * the plan takes of them is whole panels.
 */
export function interleavedTensors(
  plan: Plan,
  file: Pick<ModelFile, "numRows">,
  { canInterleave }: Pick<Backend, "canInterleave">,
): Set<string> {
  const [chosen, refused] = [new Set<string>(), rowTables(plan)];
  const matrices = new Set(plan.ops.flatMap(matricesOf));
  for (const weight of plan.weights) {
    const { name, typeId, cols, constant } = weight;
    const numRows = constant === undefined ? file.numRows(name) : undefined;
    const fits =
      matrices.has(weight) &&
      numRows !== undefined &&
      isWholePanels(weight, numRows) &&
      canInterleave(typeId, cols);
    (fits ? chosen : refused).add(name);
  }
  return chosen.difference(refused);
}

/** Weights that an op takes in any layout: what it multiplies by, or a table of rows. */
function matricesOf(op: Op): readonly Weight[] {
  switch (op.kind) {
    case "embed":
      return [op.weight];
    case "linear":
      return op.outputs.map(({ weight }) => weight);
    case "linearGlu":
      return [op.gate, op.up];
    case "expertGlu":
      return [...op.gate, ...op.up];
    case "expertLinear":
    case "slotLinear":
      return op.weights;
    default:
      return [];
  }
}

/** Names of the weights of which steps read rows by number, and no product all of them. */
export function rowTables({ ops }: Plan): Set<string> {
  const tables = new Set<string>();
  for (const op of ops) if (op.kind === "embed") tables.add(op.weight.name);
  for (const op of ops) {
    if (op.kind === "linear") for (const { weight } of op.outputs) tables.delete(weight.name);
  }
  return tables;
}
