// `tinfer render`: the prompt that a conversation becomes, exactly as the model sees it.
import { TinferError } from "../core/errors.ts";
import { openModelText } from "../engine/model-text.ts";
import { ChatPrompt } from "../template/chat-prompt.ts";
import type { ChatTemplate, RenderVariables } from "../template/chat-template.ts";
import { parsePythonJson } from "../template/python-json.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { modelPath } from "./model-flags.ts";
import { templateFlags, templateFor } from "./template-flags.ts";
import { dim, isTerminal, outJson, say, write } from "./terminal.ts";
import { readStdin, readTextFile, stdinLines } from "./text-input.ts";

export const render: Command = {
  name: "render",
  summary: "The prompt that messages become, exactly as the model sees it.",
  positionals: [
    {
      name: "MODEL",
      description: "a model, for its template and special tokens; - with --template for none",
      required: true,
    },
  ],
  flags: {
    messages: {
      kind: "text",
      placeholder: "FILE",
      description:
        "JSON array of messages, or an object {messages, tools, add_generation_prompt, …} " +
        "with further template variables; - reads stdin",
      default: "-",
    },
    tools: { kind: "text", placeholder: "FILE", description: "JSON array of tool definitions" },
    "add-generation-prompt": {
      kind: "text",
      choices: ["true", "false"],
      description: "end with the head of the answer; default: as the object says, else true",
    },
    ...templateFlags,
    now: {
      kind: "text",
      placeholder: "TIME",
      description: "the time that templates see, e.g. 2025-07-26T12:34:56; default: now",
    },
    "json-lines": {
      kind: "boolean",
      description: "read one such object per line of stdin, write {prompt} or {error} per line",
      default: false,
    },
    json: { kind: "boolean", description: "one JSON document: prompt, tokenIds", default: false },
  },
  examples: [
    ["tinfer render model.gguf --messages chat.json", "the prompt; its token ids on stderr"],
    ["tinfer render model.gguf --messages chat.json --json", "prompt and token ids for scripts"],
    ["tinfer render - --template chatml --json-lines < chats.jsonl", "many at once, no model"],
  ],
  run: renderCommand,
};

interface Renderer {
  text(variables: RenderVariables, now: Date | undefined): string;
  /** Undefined without a model. */
  encode: ((text: string) => Int32Array) | undefined;
}

function openRenderer(values: FlagValues): Renderer {
  const [model] = values.positionals;
  if (model !== "-") {
    const text = openModelText(modelPath(model));
    const prompt = new ChatPrompt(text.tokenizer, templateFor(values, text));
    return {
      text: (variables, now) => prompt.renderText(variables, now),
      encode: (rendered) => prompt.encode(rendered),
    };
  }
  if (values.text("template") === undefined) {
    throw new TinferError("usage", "without a model there is no chat template", {
      hint: "give --template NAME or --template FILE, or a model instead of -",
    });
  }
  const template: ChatTemplate = templateFor(values, { chatTemplate: undefined });
  return { text: (variables, now) => template.render(variables, now), encode: undefined };
}

async function renderCommand(values: FlagValues): Promise<void> {
  const now = readTime(values.text("now"));
  const tools = readTools(values.text("tools"));
  const renderer = openRenderer(values);
  if (values.boolean("json-lines")) {
    await renderLines(values, renderer, tools, now);
    return;
  }
  const variables = variablesOf(await readMessages(values), values, tools);
  const prompt = renderer.text(variables, now);
  const tokenIds = renderer.encode?.(prompt);
  if (values.boolean("json")) {
    outJson({ prompt, ...(tokenIds === undefined ? {} : { tokenIds: [...tokenIds] }) });
    return;
  }
  write(isTerminal() && !prompt.endsWith("\n") ? `${prompt}\n` : prompt);
  if (tokenIds === undefined) return;
  say(dim(`${tokenIds.length} tokens: ${tokenIds.join(",")}`, process.stderr));
}

async function renderLines(
  values: FlagValues,
  renderer: Renderer,
  tools: readonly unknown[] | undefined,
  now: Date | undefined,
): Promise<void> {
  if (values.source("messages") === "flag") {
    throw new TinferError("usage", "--json-lines reads stdin: give it without --messages");
  }
  for await (const line of stdinLines()) {
    if (line.trim() === "") continue;
    try {
      const variables = variablesOf(parsePythonJson(line), values, tools);
      outJson({ prompt: renderer.text(variables, now) });
    } catch (error) {
      // What is wrong with one line is its answer; anything else ends the program.
      if (!(error instanceof TinferError)) throw error;
      outJson({ error: error.message });
    }
  }
}

function readTime(text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  const time = new Date(text);
  if (!Number.isNaN(time.getTime())) return time;
  throw new TinferError("usage", `--now is '${text}', not a time`, {
    hint: "write it like 2025-07-26T12:34:56",
  });
}

async function readMessages(values: FlagValues): Promise<unknown> {
  const path = values.text("messages")!;
  if (path !== "-") return readJson("--messages", path);
  if (process.stdin.isTTY) {
    throw new TinferError("usage", "--messages is missing", {
      hint: 'give a file such as [{"role": "user", "content": "Hi"}], or pipe one in',
    });
  }
  return parseJson("stdin", await readStdin());
}

function readTools(path: string | undefined): readonly unknown[] | undefined {
  if (path === undefined) return undefined;
  const tools = readJson("--tools", path);
  if (Array.isArray(tools)) return tools;
  throw new TinferError("usage", `--tools: ${path} is not an array of tools`);
}

function readJson(flag: string, path: string): unknown {
  const text = readTextFile(path, `${flag}: ${path}`, "give the path of a JSON file");
  return parseJson(`${flag}: ${path}`, text);
}

function parseJson(origin: string, text: string): unknown {
  try {
    return parsePythonJson(text);
  } catch (cause) {
    if (!(cause instanceof TinferError)) throw cause;
    throw new TinferError(cause.code, `${origin}: ${cause.message}`, { cause });
  }
}

/** The template's variables from an array of messages or an object; flags win over the object. */
function variablesOf(
  input: unknown,
  values: FlagValues,
  tools: readonly unknown[] | undefined,
): RenderVariables {
  const given = input instanceof Map ? Object.fromEntries(input) : input;
  const fields = Array.isArray(given) ? { messages: given } : given;
  const isObject = typeof fields === "object" && fields !== null;
  if (!isObject || !Array.isArray((fields as { messages?: unknown }).messages)) {
    throw new TinferError("usage", "these are no messages", {
      hint: 'give [{"role": "user", "content": "Hi"}], or {"messages": [ … ]}',
    });
  }
  const prompt = values.text("add-generation-prompt");
  return {
    add_generation_prompt: true,
    ...(fields as RenderVariables),
    ...(tools === undefined ? {} : { tools }),
    ...(prompt === undefined ? {} : { add_generation_prompt: prompt === "true" }),
  };
}
