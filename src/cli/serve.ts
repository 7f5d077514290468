// `tinfer serve`: the HTTP server, from flags to the last request.
import { existsSync } from "node:fs";
import { basename } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { TinferError } from "../core/errors.ts";
import { checkSampling } from "../sampling/parameters.ts";
import { isLoopback } from "../server/security.ts";
import { startServer } from "../server/server.ts";
import type { ServerOptions } from "../server/server-state.ts";
import type { Command } from "./command.ts";
import type { Flags, FlagValues } from "./flags.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { warnOfLongContext } from "./open-engine.ts";
import { maxTokens, samplingFlags, samplingParameters } from "./sampling-flags.ts";
import { readTemplate, templateFlags } from "./template-flags.ts";
import { say, sayError } from "./terminal.ts";
import { readTextFile } from "./text-input.ts";

/** Time for running answers to end after Ctrl-C or SIGTERM. */
const graceMs = 3000;

const megabyte = 1e6;

const { stop: _stop, "ignore-eos": _ignoreEos, ...requestDefaults } = samplingFlags;

const serverFlags: Flags = {
  host: {
    kind: "text",
    placeholder: "ADDRESS",
    description: "where to listen; any other than this machine needs an API key",
    default: "127.0.0.1",
  },
  port: {
    kind: "number",
    placeholder: "N",
    short: "p",
    description: "0 takes any free port",
    default: 11434,
  },
  parallel: {
    kind: "number",
    placeholder: "N",
    description: "answers that are generated at the same time; more wait",
    default: 8,
  },
  "max-queue": {
    kind: "number",
    placeholder: "N",
    description: "answers that may wait; more are refused with 429",
    default: 512,
  },
  alias: { kind: "list", placeholder: "NAME", description: "a name of the model in requests" },
  "api-key": { kind: "text", placeholder: "KEY", description: "key that every request must show" },
  "api-key-file": { kind: "text", placeholder: "FILE", description: "keys, one per line" },
  auth: {
    kind: "boolean",
    description: "--no-auth: let everyone in, on any address",
    default: true,
  },
  "cors-origin": {
    kind: "list",
    placeholder: "ORIGIN",
    description: "web pages of this origin may call, e.g. https://app.example; * = all",
  },
  "max-body": {
    kind: "number",
    placeholder: "MB",
    description: "largest body of a request",
    default: 16,
  },
  "log-prompts": {
    kind: "boolean",
    description: "write prompts into the request log",
    default: false,
  },
};

export const serve: Command = {
  name: "serve",
  summary: "HTTP server: OpenAI's and Ollama's APIs, metrics, and a web chat at /.",
  positionals: [{ ...modelPositional, rest: true }],
  flags: { ...serverFlags, ...modelFlags, ...templateFlags, ...requestDefaults },
  examples: [
    ["tinfer serve model.gguf", "on http://127.0.0.1:11434; open it in a browser to chat"],
    ["tinfer serve model.gguf --port 8080 --parallel 16", "sixteen answers at the same time"],
    ["tinfer serve model.gguf --host 0.0.0.0 --api-key-file keys.txt", "for other machines"],
    ["tinfer serve model.gguf --alias gpt-4o-mini", "for programs with a fixed model name"],
  ],
  run: serveCommand,
};

function wholeNumber(values: FlagValues, name: string, min: number, max: number): number {
  const value = values.number(name)!;
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new TinferError("usage", `--${name} is ${value}, wanted a whole number from ${min}`, {
    hint: `at most ${max}`,
  });
}

function readApiKeys(values: FlagValues): string[] {
  const keys: string[] = [];
  const given = values.text("api-key");
  if (given !== undefined) keys.push(given.trim());
  const file = values.text("api-key-file");
  if (file !== undefined) {
    const hint = "give a file with one key per line";
    const lines = readTextFile(file, `--api-key-file: ${file}`, hint).split("\n");
    const found = lines.map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
    if (found.length === 0) throw new TinferError("usage", `--api-key-file: ${file} has no key`);
    keys.push(...found);
  }
  if (keys.includes("")) throw new TinferError("usage", "--api-key is empty");
  return keys;
}

/** The keys; a server that other machines reach must have some, or be told to have none. */
function checkedApiKeys(values: FlagValues, host: string): string[] {
  const keys = readApiKeys(values);
  const isOpen = !values.boolean("auth");
  if (isOpen && keys.length > 0) {
    throw new TinferError("usage", "--no-auth contradicts --api-key", { hint: "give only one" });
  }
  if (isOpen || keys.length > 0 || isLoopback(host)) return keys;
  throw new TinferError("usage", `--host ${host} lets other machines in, and there is no API key`, {
    hint: "add --api-key KEY, --api-key-file FILE or TINFER_API_KEY; or --no-auth to let all in",
  });
}

/** What answers call the model: an alias, a stored name, or the file's name. */
function modelNames(values: FlagValues, path: string): string[] {
  const [argument] = values.positionals;
  const fileName = basename(path).replace(/\.gguf$/i, "");
  const isStored = argument !== undefined && !existsSync(argument);
  return [...values.list("alias"), ...(isStored ? [argument] : []), fileName];
}

/** The template of --template; the built-in model goes on with a text, so it gets the bare one. */
function templateOverride(values: FlagValues): string | undefined {
  const given = values.text("template");
  if (given !== undefined) return readTemplate(given);
  return values.positionals[0] === undefined ? "plain" : undefined;
}

function serverOptions(values: FlagValues): ServerOptions {
  if (values.positionals.length > 1) {
    throw new TinferError("unsupported", "serve takes one MODEL for now", {
      hint: "start one `tinfer serve` per model, each with its own --port",
    });
  }
  const host = values.text("host")!;
  const apiKeys = checkedApiKeys(values, host);
  const path = modelPath(values.positionals[0]);
  const [id, ...aliases] = modelNames(values, path);
  const parallel = wholeNumber(values, "parallel", 1, 1024);
  return {
    host,
    port: wholeNumber(values, "port", 0, 65_535),
    model: {
      path,
      id: id!,
      aliases,
      options: modelOptions(values, parallel),
      template: templateOverride(values),
    },
    apiKeys,
    corsOrigins: values.list("cors-origin").map((origin) => origin.replace(/\/$/, "")),
    maxBodyBytes: wholeNumber(values, "max-body", 1, 1024) * megabyte,
    maxWaiting: wholeNumber(values, "max-queue", 0, 100_000),
    sampling: samplingParameters(values),
    maxTokens: values.number("max-tokens") === undefined ? undefined : maxTokens(values),
    logPrompts: values.boolean("log-prompts"),
    version: manifest.version,
    log: (record) => say(JSON.stringify(record)),
    logError: sayError,
  };
}

/** Resolves with the first SIGINT or SIGTERM; a second one ends the program at once. */
function stopSignal(): Promise<"SIGINT" | "SIGTERM"> {
  const { promise, resolve } = Promise.withResolvers<"SIGINT" | "SIGTERM">();
  let isStopping = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (isStopping) process.kill(process.pid, "SIGKILL");
      isStopping = true;
      resolve(signal);
    });
  }
  return promise;
}

async function serveCommand(values: FlagValues): Promise<void> {
  const options = serverOptions(values);
  const stopped = stopSignal();
  const server = startServer(options);
  const model = await Promise.race([server.ready, stopped.then(() => undefined)]);
  if (model !== undefined) {
    checkSampling(options.sampling, model.client.facts.vocabSize);
    if (options.model.options.contextLen !== undefined) warnOfLongContext(model.client.facts);
    say(greeting(server.url, options));
  }
  const signal = await stopped;
  await server.stop(graceMs);
  if (signal === "SIGINT") throw new TinferError("cancelled", "interrupted");
}

function greeting(url: string, { model, apiKeys, host }: ServerOptions): string {
  const chat = `open it in a browser to chat, or use ${url}/v1 in your programs`;
  const isOpen = apiKeys.length === 0 && !isLoopback(host);
  const warning = isOpen ? " · no API key: everyone who reaches this address may use it" : "";
  return `${model.id} is ready at ${url} · ${chat}${warning}`;
}
