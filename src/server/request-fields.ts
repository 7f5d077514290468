// Schemas of the fields that dialects share, with the bounds that the sampler has, and how they
// become sampling parameters.
import { z } from "zod";
import { type SamplingParameters, samplingBounds } from "../sampling/parameters.ts";
import { invalidField, refuse } from "./request-error.ts";

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

/** Fields that are known by name, whatever their values. */
export function anyValues(names: readonly string[]) {
  const fields = names.map((name) => [name, z.unknown().optional()] as const);
  return Object.fromEntries(fields) as Readonly<Record<string, z.ZodOptional<z.ZodUnknown>>>;
}

/** The parts of a text message; other kinds are refused by name. */
const contentPart = z.looseObject({ type: z.string(), text: z.string().optional() });
export const contentField = z
  .union([z.string(), z.array(contentPart).min(1)], {
    error: "expected a string or an array of parts",
  })
  .nullish();

interface Message {
  readonly role: string;
  readonly content?: z.infer<typeof contentField>;
}

/** The text of a message; parts are lines. Only an assistant's may be reasoning alone. */
export function contentText(
  { role, content }: Message,
  reasoning: string | null | undefined,
  field: string,
): string {
  if (content === undefined || content === null) {
    if (role === "assistant" && reasoning) return "";
    throw invalidField(`${field}.content`, "is missing");
  }
  if (typeof content === "string") return content;
  const texts = content.map(({ type, text }, index) => {
    const part = `${field}.content[${index}]`;
    if (type !== "text")
      throw refuse(`${part}.type`, `'${type}' is not supported yet, only 'text'`);
    if (text === undefined) throw invalidField(`${part}.text`, "is missing");
    return text;
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
