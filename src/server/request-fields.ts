// Schemas of the fields that dialects share, with the bounds that the sampler has, and how they
// become sampling parameters.
import { z } from "zod";
import { type SamplingParameters, samplingBounds } from "../sampling/parameters.ts";
import { refuse } from "./request-error.ts";

type BoundedField = keyof typeof samplingBounds;

/** A number within the bounds of a sampling parameter; null counts as absent. */
export function samplingNumber(field: BoundedField) {
  const bounds: { min: number; max: number; integer?: true } = samplingBounds[field];
  const number = z.number().min(bounds.min).max(bounds.max);
  return (bounds.integer ? number.int() : number).nullish();
}

/** Seeds of other systems may be negative. */
export const seedField = z
  .number()
  .int()
  .min(-Number.MAX_SAFE_INTEGER)
  .max(Number.MAX_SAFE_INTEGER)
  .nullish();

/** Every seed keeps a stream of its own: negative ones count down from 2^53. */
export function toSeed(seed: number): number {
  return seed >= 0 ? seed : Number.MAX_SAFE_INTEGER + 1 + seed;
}

const maxStopStrings = 64;
const maxStopLen = 1024;

const stopString = z.string().min(1).max(maxStopLen);
const stopUnion = [stopString, z.array(stopString).max(maxStopStrings)] as const;
export const stopField = z
  .union(stopUnion, { error: "expected a string or an array of strings, none of them empty" })
  .nullish();

export function toStopStrings(stop: string | readonly string[] | null | undefined): string[] {
  if (stop === undefined || stop === null) return [];
  return typeof stop === "string" ? [stop] : [...stop];
}

export const countField = z.number().int().min(1).nullish();

/** The parts of a text message; other kinds are refused by name. */
const contentPart = z.looseObject({ type: z.string(), text: z.string().optional() });
export const contentField = z
  .union([z.string(), z.array(contentPart)], { error: "expected a string or an array of parts" })
  .nullish();

/** The text of a message; parts are lines. */
export function contentText(content: z.infer<typeof contentField>, field: string): string {
  if (content === undefined || content === null) return "";
  if (typeof content === "string") return content;
  const texts = content.map((part, index) => {
    if (part.type === "text" && part.text !== undefined) return part.text;
    throw refuse(`${field}[${index}].type`, `'${part.type}' is not supported yet, only 'text'`);
  });
  return texts.join("\n");
}

/** The fields of `given` that have a value, over the server's defaults. */
export function mergeSampling(
  defaults: SamplingParameters,
  given: { [Field in keyof SamplingParameters]?: SamplingParameters[Field] | null | undefined },
): SamplingParameters {
  const named = Object.entries(given).filter(([, value]) => value !== undefined && value !== null);
  return { ...defaults, ...Object.fromEntries(named) };
}
