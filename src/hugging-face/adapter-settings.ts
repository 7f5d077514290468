// What adapter_config.json says about a PEFT adapter: which kind it is, what of it tinfer does not
// compute, and how much each update counts.
import { TinferError } from "../core/errors.ts";
import type { JsonObject } from "./json-file.ts";

export const mergeHint =
  "merge it into the model with PEFT (merge_and_unload), and take the result";

/** What changes the model's own weights before anything is trained, so that updates fit others. */
const changedBases = /^(pissa|olora|corda|loftq|lora_ga)/;
/** Ways to begin that leave the model's weights alone. */
const plainBases: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal"];

/** Settings that mean more than two factors where they are set, and what they are. */
const unsupported: Readonly<Record<string, string>> = {
  lora_bias: "factors with biases of their own",
  alora_invocation_tokens: "an adapter that begins at certain tokens (aLoRA)",
  layer_replication: "layers that are used several times",
  trainable_token_indices: "single rows of the embedding that are replaced",
  modules_to_save: "modules that are replaced as a whole",
  use_qalora: "inputs that are pooled in groups (QA-LoRA)",
  arrow_config: "a router among adapters (Arrow)",
};

export class AdapterSettings {
  readonly #config: JsonObject;
  /** DoRA: rows get a length of their own. */
  readonly setsLengths: boolean;

  /** Throws for kinds of adapters that are not supported. */
  constructor(config: JsonObject) {
    this.#config = config;
    const type = config.text("peft_type");
    if (type !== "LORA") {
      throw this.#refusal(`peft_type '${type}'`, "LoRA adapters are (peft_type LORA)");
    }
    for (const [key, meaning] of Object.entries(unsupported)) {
      if (isSet(config.get(key))) throw this.#refusal(`${key} (${meaning})`, mergeHint);
    }
    const bias = config.get("bias") ?? "none";
    if (bias !== "none") {
      throw this.#refusal(`bias '${bias}' (trained biases of the model)`, mergeHint);
    }
    this.#checkBase();
    this.setsLengths = config.flag("use_dora") === true;
  }

  #checkBase(): void {
    const start = this.#config.get("init_lora_weights") ?? true;
    if (plainBases.includes(start)) return;
    const isKnown = typeof start === "string" && changedBases.test(start);
    const why = isKnown ? "it was trained beside changed weights of the model" : "not known";
    throw this.#refusal(
      `init_lora_weights '${String(start)}' (${why})`,
      isKnown
        ? "save it with path_initial_model_for_weight_conversion, which makes it fit the model"
        : mergeHint,
    );
  }

  #refusal(what: string, hint: string): TinferError {
    const text = `${this.#config.path}: ${what} is not supported`;
    return new TinferError("unsupported", text, { hint });
  }

  /** alpha / rank, or alpha / √rank (rank-stabilised, arXiv 2312.03732). */
  gain(module: string, rank: number): number {
    const alpha = this.#alphaOf(module);
    return alpha / (this.#config.flag("use_rslora") ? Math.sqrt(rank) : rank);
  }

  /** The first pattern wins that is the module's name or the last parts of it. */
  #alphaOf(module: string): number {
    const patterns = this.#config.object("alpha_pattern");
    for (const pattern of Object.keys(patterns?.fields ?? {})) {
      if (this.#expression(pattern).test(module)) return patterns!.requiredNumber(pattern);
    }
    return this.#config.requiredNumber("lora_alpha");
  }

  #expression(pattern: string): RegExp {
    try {
      return new RegExp(`^(.*\\.)?(${pattern})$`);
    } catch (cause) {
      throw new TinferError(
        "invalidFile",
        `${this.#config.path}: '${pattern}' of alpha_pattern is no regular expression`,
        { hint: "write the names of its modules there", cause },
      );
    }
  }
}

function isSet(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== false;
}
