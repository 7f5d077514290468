// Which type each tensor of a model is quantised to: what stays as it is, what kind a tensor is,
// the mix's rules, what the user asked for, and what its rows allow.
import { TinferError } from "../core/errors.ts";
import { type QuantType, quantTypeInfo } from "./quant-types.ts";
import { canQuantize } from "./quantize.ts";
import { type Mix, type TensorKind, type TensorPlace, typeInMix } from "./quantize-mix.ts";

export interface TypedTensor {
  readonly name: string;
  readonly type: QuantType;
  /** Outermost first. */
  readonly shape: readonly number[];
}

/** What the rules need to know of the model. */
export interface MixFacts {
  readonly numLayers: number;
  readonly headsPerKvHead: number;
  readonly numExperts: number;
}

export interface TypeOptions {
  readonly mix: Mix;
  /** The mix's bulk type for every tensor. */
  readonly pure?: boolean;
  readonly hasImportance?: boolean;
  readonly outputType?: QuantType | undefined;
  readonly tokenEmbeddingType?: QuantType | undefined;
  /** The first whose pattern is found in a tensor's name decides. */
  readonly overrides?: readonly TypeOverride[];
}

export interface TypeOverride {
  readonly pattern: RegExp;
  readonly type: QuantType;
}

export interface ChosenType {
  readonly type: QuantType;
  /** What the rows did not allow. */
  readonly refused: QuantType | undefined;
}

/** Parts of names of small or delicate weights: quantising them gains nothing or hurts. */
const keptParts = [
  ...["_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel"],
  ...["per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "attn_rel_b.weight"],
  ...["indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_lerp_fused.weight"],
  ...["time_mix_first.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight"],
  ...[".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd"],
  ...[".patch_merger", "a.rvq.codebook", "mm.a.code_embd"],
];
const keptNames = /^(position_embd|token_types)\.weight$|time_mix_[wavg][012]\.weight/;

/** Whether a tensor keeps its type, whatever is asked for. */
export function staysAsItIs({ name, shape }: TypedTensor): boolean {
  const numElements = shape.reduce((product, dimension) => product * dimension, 1);
  const isVector = numElements === (shape.at(-1) ?? 1);
  if (isVector || !name.endsWith("weight")) return true;
  return keptNames.test(name) || keptParts.some((part) => name.includes(part));
}

/** In this order: the first part that a name has says what it is. */
const kindsByPart: readonly (readonly [part: string, kind: TensorKind])[] = [
  ...([
    ["attn_qkv.weight", "attnV"],
    ["attn_kv_b.weight", "attnV"],
    ["attn_v.weight", "attnV"],
    ["attn_k.weight", "attnK"],
    ["attn_q.weight", "attnQ"],
    ["attn_output.weight", "attnOutput"],
    ["ffn_up", "ffnUp"],
    ["ffn_gate", "ffnGate"],
    ["ffn_down", "ffnDown"],
  ] as const),
];

function kindOf(name: string): TensorKind {
  if (name === "output.weight") return "output";
  if (/^(per_layer_)?token_embd\.weight$/.test(name)) return "tokenEmbedding";
  return kindsByPart.find(([part]) => name.includes(part))?.[1] ?? "other";
}

function layerOf(name: string): number {
  return Number(/(?:^|\.)blk\.(\d+)\./.exec(name)?.[1] ?? -1);
}

/** Where rows are no whole super-blocks: the type of 32-blocks that is next in size. */
const smallBlockTypes: Readonly<Partial<Record<QuantType, QuantType>>> = {
  ...{ q4_k: "q5_0", q5_k: "q5_1", q6_k: "q8_0" },
  ...{ q2_k: "q4_0", q3_k: "q4_0", tq1_0: "q4_0", tq2_0: "q4_0" },
};

/** The type itself where rows of `cols` are whole blocks of it. */
export function typeForRows(type: QuantType, cols: number): QuantType {
  const fits = (candidate: QuantType) => cols % quantTypeInfo(candidate).quantBlockSize === 0;
  if (fits(type)) return type;
  const { quantBlockSize } = quantTypeInfo(type);
  const smaller = quantBlockSize > 32 ? (smallBlockTypes[type] ?? "iq4_nl") : type;
  return fits(smaller) ? smaller : "f16";
}

/** The target type of every tensor by name, in the order of `tensors`. */
export function chooseTypes(
  tensors: readonly TypedTensor[],
  facts: MixFacts,
  options: TypeOptions,
): Map<string, ChosenType> {
  const chooser = new TypeChooser(tensors, facts, options);
  return new Map(tensors.map((tensor) => [tensor.name, chooser.choose(tensor)]));
}

class TypeChooser {
  readonly #facts: MixFacts;
  readonly #options: TypeOptions;
  /** Names of what is quantised, by kind, in the order of layers. */
  readonly #byKind: Readonly<Partial<Record<TensorKind, string[]>>>;
  readonly #isTied: boolean;

  constructor(tensors: readonly TypedTensor[], facts: MixFacts, options: TypeOptions) {
    this.#facts = facts;
    this.#options = options;
    this.#isTied = !tensors.some(({ name }) => name === "output.weight");
    const names = tensors.filter((tensor) => !staysAsItIs(tensor)).map(({ name }) => name);
    names.sort((a, b) => layerOf(a) - layerOf(b) || (a < b ? -1 : 1));
    this.#byKind = Object.groupBy(names, kindOf);
  }

  choose(tensor: TypedTensor): ChosenType {
    if (staysAsItIs(tensor)) return { type: tensor.type, refused: undefined };
    const wanted = this.#wanted(tensor);
    if (!canQuantize(wanted)) {
      const text = `tinfer cannot make weights of type ${wanted} ('${tensor.name}')`;
      throw new TinferError("unsupported", text, { hint: "take a type such as q8_0 or q6_k" });
    }
    const type = typeForRows(wanted, tensor.shape.at(-1)!);
    return { type, refused: type === wanted ? undefined : wanted };
  }

  #wanted(tensor: TypedTensor): QuantType {
    const { mix, pure, outputType, tokenEmbeddingType, overrides = [] } = this.#options;
    const { name } = tensor;
    const kind = kindOf(name);
    const override = overrides.find(({ pattern }) => pattern.test(name));
    // The large table beside the token embedding may be named on its own.
    const isOther = name === "per_layer_token_embd.weight" && override !== undefined;
    if (kind === "tokenEmbedding" && tokenEmbeddingType && !isOther) return tokenEmbeddingType;
    if (kind === "output" && outputType) return outputType;
    if (override !== undefined) return override.type;
    if (pure || quantTypeInfo(mix.bulk).quantBlockSize === 1) return mix.bulk;
    // One matrix for both ends is quantised as the output: its errors are in every logit.
    const isOutput = kind === "output" || (kind === "tokenEmbedding" && this.#isTied);
    if (!isOutput) return typeInMix(mix, kind, this.#place(tensor, kind));
    const { quantBlockSize } = quantTypeInfo(mix.bulk);
    if (outputType) return outputType;
    if (tensor.shape.at(-1)! % quantBlockSize !== 0) return "q8_0";
    return typeInMix(mix, "output", this.#place(tensor, kind));
  }

  #place({ name, shape }: TypedTensor, kind: TensorKind): TensorPlace {
    const { numLayers, headsPerKvHead, numExperts } = this.#facts;
    const alike = this.#byKind[kind]!;
    const ordinal = alike.indexOf(name);
    const among = kind === "attnV";
    return {
      index: among ? ordinal : layerOf(name),
      count: among ? alike.length : numLayers,
      ordinal,
      ...{ headsPerKvHead, numExperts },
      isStack: (shape.at(-3) ?? 1) > 1,
      hasImportance: this.#options.hasImportance ?? false,
    };
  }
}

/** Types of one to three bits lose most of the model where nothing says which columns matter. */
const hungryTypes: ReadonlySet<QuantType> = new Set<QuantType>([
  ...(["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"] as const),
]);

/** Whether a tensor should not become `type` without an importance matrix. */
export function needsImportance(name: string, type: QuantType, mix: Mix): boolean {
  const kind = kindOf(name);
  if (kind === "output" || kind === "tokenEmbedding") return false;
  return hungryTypes.has(type) || (type === "q2_k" && mix.name === "q2_k_s");
}
