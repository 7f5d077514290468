// The mixes that people know by name (Q4_K_M and the like): which weight type each kind of tensor
// of a file gets. One table; which kind a tensor is, and what stays as it is, is in
// `quantize-types.ts`.
import { nearestMatch, TinferError } from "../core/errors.ts";
import { isQuantType, type QuantType } from "./quant-types.ts";

const tensorKinds = [
  "output",
  "tokenEmbedding",
  "attnQ",
  "attnK",
  // Also fused QKV and the up projection of latent attention: errors here reach every output.
  "attnV",
  "attnOutput",
  "ffnGate",
  "ffnUp",
  "ffnDown",
  "other",
] as const;
export type TensorKind = (typeof tensorKinds)[number];

/** What a rule may look at. */
export interface TensorPlace {
  /** The layer; for `attnV` its place among the layers that have one. */
  readonly index: number;
  readonly count: number;
  /** Place among all tensors of its kind. */
  readonly ordinal: number;
  readonly headsPerKvHead: number;
  readonly numExperts: number;
  /** Whether the tensor is a stack of experts' matrices. */
  readonly isStack: boolean;
  /** Whether an importance matrix is given. */
  readonly hasImportance: boolean;
}

/** A type, or how it follows from the place; undefined: the mix's bulk type. */
export type TypeRule = QuantType | ((place: TensorPlace) => QuantType | undefined);

export interface Mix {
  readonly name: string;
  /** `general.file_type` of a file of this mix. */
  readonly fileType: number;
  readonly bulk: QuantType;
  readonly kinds: Readonly<Partial<Record<TensorKind, TypeRule>>>;
}

type Kinds = Mix["kinds"];

const ruled = (rule: TypeRule | undefined, place: TensorPlace) =>
  typeof rule === "function" ? rule(place) : rule;

/** Both ends of the model, and every third layer between. */
function keepsMoreBits({ index, count }: TensorPlace): boolean {
  const eighth = Math.floor(count / 8);
  return index < eighth || index >= Math.floor((7 * count) / 8) || (index - eighth) % 3 === 2;
}

const moreBits =
  (type: QuantType): TypeRule =>
  (place) =>
    keepsMoreBits(place) ? type : undefined;
/** The layers of the first 1/parts of the model. */
const firstPart =
  (parts: number, type: QuantType, otherwise?: QuantType): TypeRule =>
  ({ index, count }) =>
    index < Math.floor(count / parts) ? type : otherwise;
const firstLayers =
  (numLayers: number, type: QuantType, otherwise?: QuantType): TypeRule =>
  ({ index }) =>
    index < numLayers ? type : otherwise;
/** All but the first and the last eighth. */
const middle =
  (type: QuantType): TypeRule =>
  ({ index, count }) =>
    index >= Math.floor(count / 8) && index < Math.floor((7 * count) / 8) ? type : undefined;
/** Where at least four query heads share a KV head the matrix is small, and more bits are cheap. */
const whereShared =
  (type: QuantType, otherwise?: TypeRule): TypeRule =>
  (place) =>
    place.headsPerKvHead >= 4 ? type : ruled(otherwise, place);
/** Mixtral's eight large experts make attention a small part of the file. */
const withEightExperts =
  (type: QuantType, otherwise?: TypeRule): TypeRule =>
  (place) =>
    place.numExperts === 8 ? type : ruled(otherwise, place);
const withImportance =
  (rule: TypeRule): TypeRule =>
  (place) =>
    place.hasImportance ? ruled(rule, place) : undefined;
const withoutImportance =
  (rule: TypeRule): TypeRule =>
  (place) =>
    place.hasImportance ? undefined : ruled(rule, place);

/** In models of 80 layers with shared heads, `attnV` is an eighth of `attnQ`. */
const attnVOf =
  (rule: TypeRule | undefined, bulk: QuantType): TypeRule =>
  (place) => {
    const type = ruled(rule, place) ?? bulk;
    const isLarge = place.count === 80 && place.headsPerKvHead > 1;
    return isLarge && (type === "q3_k" || type === "q4_k") ? "q5_k" : type;
  };

function mix(fileType: number, bulk: QuantType, kinds: Kinds = {}): Omit<Mix, "name"> {
  const common: Kinds = {
    output: bulk === "q8_0" ? "q8_0" : "q6_k",
    ...kinds,
    attnV: withEightExperts("q8_0", attnVOf(kinds.attnV, bulk)),
    attnK: withEightExperts("q8_0", kinds.attnK),
  };
  return { fileType, bulk, kinds: common };
}

/** Types of one to two and a half bits: what is left to attention and the ends matters most. */
function tinyMix(
  fileType: number,
  bulk: QuantType,
  [ends, attnOutput]: readonly [ends: "q2_k" | "iq3_s", attnOutput?: QuantType],
): Omit<Mix, "name"> {
  const attnV: TypeRule = ({ headsPerKvHead, numExperts }) =>
    headsPerKvHead >= 4 || numExperts >= 4 ? "q4_k" : ends;
  const kinds: Kinds = {
    ...{ output: "q5_k", tokenEmbedding: ends, attnV },
    attnK: withEightExperts("q4_k"),
    attnOutput: withEightExperts("q5_k", attnOutput),
    // So many tensors, not layers: those that have shared experts too reach half as far.
    ffnDown: ({ ordinal, count }) => (ordinal < Math.floor(count / 8) ? ends : undefined),
  };
  return { fileType, bulk, kinds };
}

const eightExpertsOutput = withEightExperts("q5_k");
const iq4: Kinds = {
  attnV: whereShared("q5_k"),
  attnOutput: eightExpertsOutput,
  ffnDown: withoutImportance(firstPart(8, "q5_k")),
};
const float = (fileType: number, bulk: QuantType) => ({ fileType, bulk, kinds: {} });

/** File types are numbers that every reader of GGUF knows. */
const table = {
  f32: float(0, "f32"),
  f16: float(1, "f16"),
  bf16: float(32, "bf16"),
  q8_0: mix(7, "q8_0"),
  q6_k: mix(18, "q6_k"),
  q5_k_m: mix(17, "q5_k", { attnV: moreBits("q6_k"), ffnDown: moreBits("q6_k") }),
  q5_k_s: mix(16, "q5_k"),
  q5_1: mix(9, "q5_1"),
  q5_0: mix(8, "q5_0", { ffnDown: withImportance(firstPart(8, "q5_1")) }),
  q4_k_m: mix(15, "q4_k", {
    attnV: moreBits("q6_k"),
    attnOutput: eightExpertsOutput,
    ffnDown: moreBits("q6_k"),
  }),
  q4_k_s: mix(14, "q4_k", {
    attnV: firstLayers(4, "q5_k"),
    attnOutput: eightExpertsOutput,
    ffnDown: firstPart(8, "q5_k"),
  }),
  q4_1: mix(3, "q4_1"),
  q4_0: mix(2, "q4_0", { ffnDown: withImportance(firstPart(8, "q4_1")) }),
  iq4_nl: mix(25, "iq4_nl", iq4),
  iq4_xs: mix(30, "iq4_xs", iq4),
  q3_k_l: mix(13, "q3_k", {
    attnV: "q5_k",
    attnOutput: ({ numExperts }) => (numExperts === 8 ? undefined : "q5_k"),
    ffnDown: "q5_k",
  }),
  q3_k_m: mix(12, "q3_k", {
    attnV: firstLayers(2, "q5_k", "q4_k"),
    attnOutput: withEightExperts("q5_k", "q4_k"),
    ffnDown: firstPart(16, "q5_k", "q4_k"),
  }),
  q3_k_s: mix(11, "q3_k", { attnOutput: eightExpertsOutput }),
  iq3_m: mix(27, "iq3_s", {
    attnV: "q4_k",
    attnOutput: withEightExperts("q5_k", "q4_k"),
    ffnDown: (place) =>
      ruled(withEightExperts("q4_k"), place) && keepsMoreBits(place)
        ? "q4_k"
        : ruled(firstPart(8, "q4_k"), place),
  }),
  iq3_s: mix(26, "iq3_s", { attnV: whereShared("q4_k"), attnOutput: eightExpertsOutput }),
  iq3_xs: mix(22, "iq3_s", {
    ...{ attnV: whereShared("q4_k"), attnK: "iq3_xxs", attnQ: "iq3_xxs" },
    attnOutput: eightExpertsOutput,
    ...{ ffnGate: middle("iq3_xxs"), ffnUp: middle("iq3_xxs") },
  }),
  iq3_xxs: mix(23, "iq3_xxs", {
    ...{ output: "q5_k", tokenEmbedding: "iq3_s" },
    attnV: whereShared("q4_k", withoutImportance("iq3_s")),
    ...{ attnK: "iq2_s", attnQ: "iq2_s" },
    attnOutput: withEightExperts("q5_k", "iq3_s"),
    ffnDown: withoutImportance(firstPart(8, "q4_k", "q3_k")),
  }),
  q2_k: mix(10, "q2_k", {
    attnV: whereShared("q4_k", "q3_k"),
    attnOutput: withEightExperts("q5_k", "q3_k"),
    ffnDown: "q3_k",
  }),
  q2_k_s: mix(21, "q2_k", { attnV: whereShared("q4_k"), ffnDown: firstPart(8, "q4_k") }),
  iq2_m: tinyMix(29, "iq2_s", ["iq3_s", "iq3_s"]),
  iq2_s: tinyMix(28, "iq2_xs", ["iq3_s", "iq3_s"]),
  iq2_xs: tinyMix(20, "iq2_xs", ["q2_k"]),
  iq2_xxs: tinyMix(19, "iq2_xxs", ["q2_k"]),
  iq1_m: tinyMix(31, "iq1_m", ["q2_k", "iq2_xxs"]),
  iq1_s: tinyMix(24, "iq1_s", ["q2_k", "iq2_xxs"]),
  tq2_0: mix(37, "tq2_0", { tokenEmbedding: "q4_k" }),
  tq1_0: mix(36, "tq1_0", { tokenEmbedding: "q4_k" }),
  nvfp4: mix(39, "nvfp4"),
  // Experts are the bulk; everything else is small beside them.
  mxfp4: { fileType: 38, bulk: "mxfp4", kinds: outsideExperts("q8_0") },
} as const satisfies Readonly<Record<string, Omit<Mix, "name">>>;

function outsideExperts(type: QuantType): Kinds {
  const rule: TypeRule = ({ isStack }) => (isStack ? undefined : type);
  return Object.fromEntries(tensorKinds.map((kind) => [kind, rule]));
}

/** Names that people also use. */
const aliases: Readonly<Record<string, keyof typeof table>> = {
  ...{ q3_k: "q3_k_m", q4_k: "q4_k_m", q5_k: "q5_k_m", mxfp4_moe: "mxfp4" },
};

export const mixNames: readonly string[] = Object.keys(table);

/** The mix of a name in any case; throws with the nearest one. */
export function findMix(name: string): Mix {
  const wanted = name.toLowerCase();
  const key = aliases[wanted] ?? wanted;
  if (Object.hasOwn(table, key)) return { name: key, ...table[key as keyof typeof table] };
  const nearest = nearestMatch(wanted, [...mixNames, ...Object.keys(aliases)]);
  throw new TinferError("usage", `weight type '${name}' is not known`, {
    hint: `use one of ${mixNames.join(", ")}${nearest ? `; nearest: ${nearest}` : ""}`,
  });
}

/** The type that a mix gives to a tensor of this kind and place, whatever its shape. */
export function typeInMix(mix: Mix, kind: TensorKind, place: TensorPlace): QuantType {
  return ruled(mix.kinds[kind], place) ?? mix.bulk;
}

/** A plain type by its name in any case. */
export function findType(name: string): QuantType {
  const wanted = name.toLowerCase();
  if (isQuantType(wanted)) return wanted;
  throw new TinferError("usage", `weight type '${name}' is not known`, {
    hint: "one tensor takes a plain type, such as q8_0, q6_k, q4_k or f16",
  });
}
