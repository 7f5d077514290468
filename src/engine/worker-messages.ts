// The messages between the main thread and the engine's Worker. Plain data only.

import { type ErrorCode, TinferError } from "../core/errors.ts";
import type { CancelWord } from "../native/interrupt.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";
import type {
  EngineStatus,
  GenerationEvent,
  GenerationRequest,
  LoadedModelFacts,
} from "./client.ts";
import type { ExpertUse } from "./expert-use.ts";
import type { LoadMode, ModelOptions } from "./options.ts";
import type { Pooling } from "./pooling.ts";

export type ToEngine =
  | {
      readonly kind: "load";
      readonly path: string;
      readonly options: ModelOptions;
      readonly cancelWord: CancelWord;
    }
  | { readonly kind: "generate"; readonly id: number; readonly request: GenerationRequest }
  | { readonly kind: "cancel"; readonly id: number; readonly reason?: string | undefined }
  | {
      readonly kind: "embed";
      readonly id: number;
      readonly prompts: readonly Int32Array[];
      readonly pooling: Pooling;
      readonly adapters: readonly AdapterScale[] | undefined;
    }
  | {
      readonly kind: "setAdapters";
      readonly id: number;
      readonly adapters: readonly AdapterChoice[];
    }
  | { readonly kind: "status"; readonly id: number }
  | { readonly kind: "expertUse"; readonly id: number }
  | { readonly kind: "setLoadMode"; readonly id: number; readonly mode: LoadMode }
  | { readonly kind: "setWeightType"; readonly id: number; readonly name: string }
  | { readonly kind: "dispose"; readonly id: number };

/** What a question is answered with; null: there is nothing to say. */
export type EngineResult = Float32Array[] | EngineStatus | LoadedModelFacts | ExpertUse | null;

export type FromEngine =
  | { readonly kind: "loaded"; readonly facts: LoadedModelFacts }
  | { readonly kind: "event"; readonly id: number; readonly event: GenerationEvent }
  | {
      readonly kind: "result";
      readonly id: number;
      readonly value: EngineResult;
    }
  /** `id` 0: the load failed. */
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorMessage };

/** An error as data: classes do not survive the border. */
export interface ErrorMessage {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly stack: string | undefined;
}

export function errorToMessage(error: unknown): ErrorMessage {
  const message = error instanceof Error ? error.message : String(error);
  const stack = error instanceof Error ? error.stack : undefined;
  const known = error instanceof TinferError ? error : undefined;
  return { code: known?.code, message, hint: known?.hint, field: known?.field, stack };
}

export function errorFromMessage({ code, message, hint, field, stack }: ErrorMessage): Error {
  if (code !== undefined) {
    const known = { ...(hint !== undefined && { hint }), ...(field !== undefined && { field }) };
    return new TinferError(code, message, known);
  }
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
