// Llama 4 (Scout, Maverick): three layers with rotations and attention within chunks, then one
// without rotations over all positions, whose queries grow with the position; experts, one a token,
// beside a shared one. Meta's release, April 2025.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { Tensor } from "../plan/ops.ts";
import {
  addProjection,
  attend,
  finishTokens,
  gatedMlp,
  type Layer,
  layersOf,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { addSharedExperts, expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, addWindowRotations, ropeFactors } from "./rope.ts";
import { refuseRopeOptions } from "./rope-options.ts";
import { layerWindow } from "./windows.ts";

/** Every so many layers have no rotations, and no chunks where the file does not say otherwise. */
const globalPeriod = 4;
/** No file states these. */
const trainedChunkLen = 8192;
const temperature = { interval: 8192, offset: 1, factor: 0.1 } as const;
/** Maverick alone was trained without norms on queries and keys. */
const numExpertsWithoutHeadNorm = 128;

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const factors = ropeFactors(config, options);
  const rotations = addRotations(b, config, factors);
  const chunkRotations = addWindowRotations(b, config, rotations, {}, factors);
  const chunks = { ...config, windowLen: trainedChunkLen };
  const layers = layersOf(config).map((layer) => ({
    layer,
    ...layerWindow(chunks, options, layer.index, globalPeriod),
    isRotated: (layer.index + 1) % globalPeriod !== 0,
  }));
  if (!layers.some(({ isLocal, isRotated }) => isRotated && !isLocal)) {
    refuseRopeOptions(config, "all rotated layers of Llama 4 see chunks, which stay as trained");
  }
  const hasHeadNorm = config.experts.numExperts !== numExpertsWithoutHeadNorm;
  const scale = config.scales.attention ?? 1 / Math.sqrt(config.headDim);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const { layer, isLocal, isRotated, windowLen } of layers) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    let { q, k, v } = projectQkv(b, attentionInput, layer);
    if (!isRotated) b.positionScale(q, temperature);
    if (isRotated && hasHeadNorm) {
      // A rotation keeps a head's length, so that this may come before it.
      const groups = { groupWidth: layer.headDim };
      q = b.norm(q, "rms", undefined, config.normEpsilon, groups);
      k = b.norm(k, "rms", undefined, config.normEpsilon, groups);
    }
    const ownRotations = isLocal ? chunkRotations : rotations;
    let heads = attend(b, { q, k, v }, layer, {
      rotations: isRotated ? ownRotations : undefined,
      pairing: "interleaved",
      scale,
      chunkLen: windowLen,
    });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);
    addMlp(b, config, layer, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

function addMlp(b: PlanBuilder, config: ModelConfig, layer: Layer, hidden: Tensor): void {
  const { numExperts, layerInterval } = config.experts;
  const input = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
  if (layerInterval === 0 || (layer.index + 1) % layerInterval !== 0) {
    addProjection(b, gatedMlp(b, input, layer, "silu"), layer.name("ffn_down"), hidden);
    return;
  }
  const intermediateSize = expertSize(config, layer);
  const routing = { ...softmaxRouting(config), scoring: "sigmoid", normalise: false } as const;
  const activation = "silu";
  const mlp = { numExperts, intermediateSize, routing, activation, weighsInput: true } as const;
  routedExperts(b, input, layer, mlp, hidden);
  addSharedExperts(b, input, layer, intermediateSize, hidden);
}

export const llama4: Family = { architectures: ["llama4"], buildPlan };
