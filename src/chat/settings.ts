// The settings of a chat: what a person may change between two messages, by name.
import { nearestMatch, TinferError } from "../core/errors.ts";
import { checkSampling, defaultSampling, type SamplingParameters } from "../sampling/parameters.ts";

/** `auto`: as the template does by itself. */
export type Thinking = "auto" | "on" | "off";

export interface ChatSettings {
  readonly sampling: SamplingParameters;
  /** undefined: until the model ends or the context is full. */
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly system: string | undefined;
  readonly thinking: Thinking;
  readonly showThinking: boolean;
  /** Name or file of a chat template; undefined: the model's own. */
  readonly template: string | undefined;
}

export const defaultChatSettings: ChatSettings = {
  sampling: defaultSampling,
  maxTokens: undefined,
  stop: [],
  ignoreEos: false,
  system: undefined,
  thinking: "auto",
  showThinking: true,
  template: undefined,
};

/** A setting of `/set KEY VALUE`. */
export interface SettingKey {
  readonly name: string;
  readonly meaning: string;
  /** The value as people write it. */
  show(settings: ChatSettings): string;
  /** Returns the changed settings; throws a usage error on a bad value. `value` is not empty. */
  change(settings: ChatSettings, value: string): ChatSettings;
}

type NumericField = {
  [K in keyof SamplingParameters]: SamplingParameters[K] extends number | undefined ? K : never;
}[keyof SamplingParameters];

function samplingKey(name: string, field: NumericField, meaning: string): SettingKey {
  return {
    name,
    meaning,
    show: ({ sampling }) => String(sampling[field] ?? "random"),
    change(settings, value) {
      const isOff = value === "off" || value === "random";
      const number =
        value === "default" || (field === "seed" && isOff)
          ? defaultSampling[field]
          : parseNumber(name, value, defaultSampling[field] ?? "random");
      return { ...settings, sampling: checkSampling({ ...settings.sampling, [field]: number }) };
    },
  };
}

function parseNumber(name: string, value: string, fallback: number | string): number {
  const number = Number(value);
  if (!Number.isNaN(number)) return number;
  throw new TinferError("usage", `${name} is '${value}', wanted a number`, {
    hint: `the default is ${fallback}: /set ${name} default`,
  });
}

const maxTokensKey: SettingKey = {
  name: "max-tokens",
  meaning: "most tokens of one answer",
  show: ({ maxTokens }) => String(maxTokens ?? "off"),
  change(settings, value) {
    if (value === "off" || value === "default") return { ...settings, maxTokens: undefined };
    const maxTokens = parseNumber("max-tokens", value, "off");
    if (Number.isInteger(maxTokens) && maxTokens > 0) return { ...settings, maxTokens };
    throw new TinferError("usage", `max-tokens is ${value}, wanted a whole number above 0`, {
      hint: "/max-tokens off lets the model end by itself",
    });
  },
};

const stopKey: SettingKey = {
  name: "stop",
  meaning: "text that ends the answer; off for none",
  show: ({ stop }) => (stop.length === 0 ? "off" : stop.map((s) => JSON.stringify(s)).join(" ")),
  change: (settings, value) => ({
    ...settings,
    stop: value === "off" || value === "default" ? [] : [value],
  }),
};

const ignoreEosKey: SettingKey = {
  name: "ignore-eos",
  meaning: "go on after the model's end-of-answer token",
  show: ({ ignoreEos }) => (ignoreEos ? "on" : "off"),
  change: (settings, value) => ({
    ...settings,
    ignoreEos: parseSwitch("ignore-eos", value === "default" ? "off" : value),
  }),
};

function parseSwitch(name: string, value: string): boolean {
  if (value === "on" || value === "true") return true;
  if (value === "off" || value === "false") return false;
  throw new TinferError("usage", `${name} is '${value}', wanted on or off`);
}

export const settingKeys: readonly SettingKey[] = [
  samplingKey("temperature", "temperature", "0 takes the best token always"),
  samplingKey("top-k", "topK", "keep the K best tokens; 0 = all"),
  samplingKey("top-p", "topP", "keep the best tokens that make up P; 1 = all"),
  samplingKey("min-p", "minP", "keep tokens with P of the best one's probability"),
  samplingKey("repeat-penalty", "repeatPenalty", "divide the logits of recent tokens; 1 = off"),
  samplingKey("repeat-last-n", "repeatLastN", "how many tokens the penalties look at"),
  samplingKey("presence-penalty", "presencePenalty", "subtracted once from used tokens"),
  samplingKey("frequency-penalty", "frequencyPenalty", "subtracted for every occurrence"),
  samplingKey("seed", "seed", "fixes the random numbers; off = new ones"),
  maxTokensKey,
  stopKey,
  ignoreEosKey,
];

/** The key named `name`, written with dashes, underscores or capitals. */
export function settingKey(name: string): SettingKey {
  const plain = name.toLowerCase().replaceAll("_", "-");
  const found = settingKeys.find((key) => key.name === plain);
  if (found !== undefined) return found;
  const names = settingKeys.map((key) => key.name);
  const nearest = nearestMatch(plain, names);
  throw new TinferError("usage", `there is no setting '${name}'`, {
    hint: nearest === undefined ? `settings: ${names.join(", ")}` : `did you mean ${nearest}?`,
  });
}
