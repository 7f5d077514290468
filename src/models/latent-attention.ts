// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): the cache keeps one
// latent vector and one rotated key part per token, for all heads. The matrices that would make
// keys and values of it are multiplied into queries and answers instead ("absorbed"), in prefill
// and decode alike, which makes it attention with one KV head.
import { TinferError } from "../core/errors.ts";
import type { PlanBuilder } from "../plan/builder.ts";
import type { ExpertWeights, Tensor } from "../plan/ops.ts";
import { type Layer, project, rmsNorm } from "./blocks.ts";
import type { PlanOptions } from "./family.ts";
import type { LatentConfig } from "./latent-config.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, isMixed, ropeTable, stretchOf, temperatureGrowth } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

/** The two absorbed matrices of every head. */
interface HeadMatrices {
  /** `[kvRank, unrotated head dim]` each */
  readonly keys: ExpertWeights;
  /** `[valueDim, kvRank]` each */
  readonly values: ExpertWeights;
  /** Adapters' name for them. */
  readonly valuesTarget: string;
}

/** What attention leaves: per head a mixture of latent vectors. */
export interface LatentAttention {
  /** `[tokens, numHeads * kvRank]` */
  readonly latents: Tensor;
  readonly matrices: HeadMatrices;
}

/**
 * YaRN as the reference has it: files state a tenth of its weight in the scores. DeepSeek takes the
 * same weight back from the rotations, so that nothing is left there; Mistral takes it from 1.
 */
function scaledRope(config: ModelConfig): ModelConfig {
  const { ropeScaling, architecture } = config;
  const stated = ropeScaling.logMultiplier * 10;
  const logMultiplier = architecture === "deepseek2" && stated !== 0 ? 1 : stated;
  return { ...config, ropeScaling: { ...ropeScaling, logMultiplier } };
}

export function latentRotations(b: PlanBuilder, config: ModelConfig): Tensor | undefined {
  return addRotations(b, scaledRope(config));
}

/**
 * Factor on scores: 1 / √headDim, times YaRN's temperature for queries and for keys. The reference
 * has the temperature of the rotations in it even where these are stretched without (linearly).
 */
function scoreScale(config: ModelConfig, { headDim }: LatentConfig): number {
  const { ropeScaling } = config;
  const stretch = stretchOf(ropeScaling);
  const { magnitude } = ropeTable(scaledRope(config));
  const rotated = isMixed(ropeScaling) ? magnitude : magnitude * temperatureGrowth(stretch, 1);
  const temperature = rotated * temperatureGrowth(stretch, ropeScaling.logMultiplier * 10);
  return temperature ** 2 / Math.sqrt(headDim);
}

export function attendLatent(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  spec: { config: ModelConfig; options: PlanOptions; rotations: Tensor | undefined },
): LatentAttention {
  const { config, options, rotations } = spec;
  const latent = latentOf(config);
  const { kvRank, headDim } = latent;
  const { numHeads } = layer;
  const { rotaryDim } = config;
  const plainDim = headDim - rotaryDim;
  const matrices = headMatrices(b, layer, latent, plainDim, options);

  const kvName = `${layer.name("attn_kv_a_mqa")}.weight`;
  const kvPart = (first: number, rows: number) =>
    b.weightRows(kvName, [kvRank + rotaryDim, input.width], first, rows);
  const [rawLatent, rotatedKey] = b.linears(input, [
    { weight: kvPart(0, kvRank) },
    { weight: kvPart(kvRank, rotaryDim) },
  ]) as [Tensor, Tensor];
  const v = rmsNorm(b, rawLatent, layer.name("attn_kv_a_norm"), config);
  const k = b.concatHeads(1, [
    { input: rotatedKey, width: rotaryDim, start: 0, stride: 0 },
    { input: v, width: kvRank, start: 0, stride: 0 },
  ]);

  const heads = queryHeads(b, input, layer, config, latent);
  const plain = { input: heads, width: plainDim, start: 0, stride: headDim };
  const target = `${layer.name("attn_k_b")}.weight`;
  const absorbed = b.headLinear(b.concatHeads(numHeads, [plain]), matrices.keys, target);
  const q = b.concatHeads(numHeads, [
    { input: heads, width: rotaryDim, start: plainDim, stride: headDim },
    { input: absorbed, width: kvRank, start: 0, stride: kvRank },
  ]);
  scaleByPosition(b, q, config);

  const cache = b.cache(1, rotaryDim + kvRank, kvRank);
  const pairing = rotations === undefined ? "none" : "interleaved";
  b.qkvPrep({ q, k, v }, { cache, numHeads, pairing, rotations });
  const scale = scoreScale(config, latent);
  const windowLen = windowLenOf(options, 0);
  return { latents: b.attentionPaged(q, { cache, numHeads, scale, windowLen }), matrices };
}

/** `[rows, numHeads * valueDim]`: each head's values, of its mixture of latent vectors. */
export function latentValues(
  b: PlanBuilder,
  latents: Tensor,
  { matrices }: LatentAttention,
): Tensor {
  return b.headLinear(latents, matrices.values, matrices.valuesTarget);
}

function latentOf({ latent, rotaryDim, architecture }: ModelConfig): LatentConfig {
  if (latent !== undefined && latent.headDim > rotaryDim) return latent;
  const key = `${architecture}.attention.kv_lora_rank`;
  const message =
    latent === undefined
      ? `metadata key '${key}' is missing`
      : `heads of ${latent.headDim} values leave nothing beside ${rotaryDim} rotated ones`;
  throw new TinferError("invalidFile", message, {
    hint: "the file was written by a faulty converter; convert it again",
  });
}

/** `[tokens, numHeads * headDim]`, by way of a latent vector in all but the smallest models. */
function queryHeads(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  config: ModelConfig,
  { queryRank, headDim }: LatentConfig,
): Tensor {
  const width = layer.numHeads * headDim;
  const direct = layer.name("attn_q");
  if (queryRank === undefined || b.hasWeight(`${direct}.weight`)) {
    return project(b, input, direct, width);
  }
  const latent = project(b, input, layer.name("attn_q_a"), queryRank);
  const normed = rmsNorm(b, latent, layer.name("attn_q_a_norm"), config);
  return project(b, normed, layer.name("attn_q_b"), width);
}

/** Mistral's queries grow with the logarithm of their position. */
function scaleByPosition(b: PlanBuilder, q: Tensor, { scales, ownRope }: ModelConfig): void {
  if (scales.positionTemperature === undefined) return;
  const interval = scales.temperatureLen ?? ownRope.scaling.originalContextLen;
  b.positionScale(q, { interval, offset: 0, factor: scales.positionTemperature });
}

/** As the file has them, or of the older form: `[plainDim + valueDim, kvRank]` for each head. */
function headMatrices(
  b: PlanBuilder,
  { name, numHeads }: Layer,
  { kvRank, valueDim }: LatentConfig,
  plainDim: number,
  options: PlanOptions,
): HeadMatrices {
  const joint = `${name("attn_kv_b")}.weight`;
  const valuesTarget = `${name("attn_v_b")}.weight`;
  if (!b.hasWeight(joint)) {
    const keys = b.expertParts(`${name("attn_k_b")}.weight`, [numHeads, 1, kvRank, plainDim], 0);
    const values = b.expertParts(valuesTarget, [numHeads, 1, valueDim, kvRank], 0);
    return { keys, values, valuesTarget };
  }
  const stride = plainDim + valueDim;
  const shape = [numHeads * stride, kvRank] as const;
  const values = Array.from({ length: numHeads }, (_, head) => {
    return b.weightRows(joint, shape, head * stride + plainDim, valueDim);
  });
  const make = () => {
    const transposed = new Float32Array(numHeads * kvRank * plainDim);
    const source = options.readTensor(joint)!;
    const gain = values[0]!.gain;
    for (let head = 0; head < numHeads; head++) {
      for (let row = 0; row < plainDim; row++) {
        for (let col = 0; col < kvRank; col++) {
          const target = (head * kvRank + col) * plainDim + row;
          transposed[target] = gain * source[(head * stride + row) * kvRank + col]!;
        }
      }
    }
    return transposed;
  };
  const table = { length: numHeads * kvRank * plainDim, make };
  const keys = b.constantMatrices(name("attn_k_b"), table, kvRank, plainDim);
  return { keys, values, valuesTarget };
}
