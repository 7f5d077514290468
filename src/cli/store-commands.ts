// `tinfer ls`, `rm` and `cp`: the models of the store.
import { TinferError } from "../core/errors.ts";
import { ModelStore, type StoredModel } from "../store/store.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { formatTable } from "./table.ts";
import { bold, formatBytes, out, outJson, say } from "./terminal.ts";

export const ls: Command = {
  name: "ls",
  aliases: ["list"],
  summary: "The models in the store.",
  positionals: [],
  flags: { json: { kind: "boolean", description: "a JSON array", default: false } },
  examples: [
    ["tinfer ls", "names, sizes, dates and sources"],
    ["tinfer ls --json | jq -r '.[].paths[0]'", "the files themselves"],
  ],
  run: listModels,
};

export const rm: Command = {
  name: "rm",
  aliases: ["remove"],
  summary: "Remove models from the store and free what no other model uses.",
  positionals: [
    { name: "NAME", description: "name[:tag] as `tinfer ls` shows it", required: true, rest: true },
  ],
  flags: {
    json: { kind: "boolean", description: "a JSON array: name, freedBytes", default: false },
  },
  examples: [["tinfer rm smollm:Q8_0 tinyllama", "two models"]],
  run: removeModels,
};

export const cp: Command = {
  name: "cp",
  aliases: ["copy"],
  summary: "Give a stored model another name; takes no space.",
  positionals: [
    { name: "FROM", description: "name[:tag] of a stored model", required: true },
    { name: "TO", description: "the new name[:tag]", required: true },
  ],
  flags: { json: { kind: "boolean", description: "the new entry as JSON", default: false } },
  examples: [["tinfer cp llama-3.2-1b-instruct my-llama", "a short name"]],
  run: copyModel,
};

const fullName = ({ name, tag }: StoredModel) => `${name}:${tag}`;

async function listModels(values: FlagValues): Promise<void> {
  const store = new ModelStore();
  const models = store.list();
  if (values.boolean("json")) {
    outJson(models);
    return;
  }
  if (models.length === 0) {
    say(`no models in ${store.folder}\n  fetch one: tinfer pull hf:user/repo[:QUANT]`);
    return;
  }
  const rows = models.map((model) => [
    fullName(model),
    formatBytes(model.bytes),
    model.createdAt.slice(0, 16).replace("T", " "),
    model.source,
  ]);
  const [head, ...lines] = formatTable([["NAME", "SIZE", "MODIFIED (UTC)", "SOURCE"], ...rows], "");
  out(bold(head!));
  for (const line of lines) out(line);
}

/** All names are looked up before the first model is removed. */
async function removeModels(values: FlagValues): Promise<void> {
  const store = new ModelStore();
  const names = new Set(values.positionals.map((name) => fullName(findModel(store, name))));
  const removed = [...names].map((name) => ({ name, ...store.remove(name) }));
  if (values.boolean("json")) outJson(removed);
  else for (const entry of removed) out(`${entry.name}: freed ${formatBytes(entry.freedBytes)}`);
}

function findModel(store: ModelStore, name: string): StoredModel {
  const model = store.find(name);
  if (model !== undefined) return model;
  const near = store.suggestions(name);
  throw new TinferError("notFound", `no model "${name}" in the store`, {
    hint: near.length > 0 ? `did you mean ${near.join(", ")}?` : "`tinfer ls` lists them",
  });
}

async function copyModel(values: FlagValues): Promise<void> {
  const store = new ModelStore();
  const [from, to] = values.positionals as [string, string];
  store.copy(from, to);
  if (values.boolean("json")) outJson(store.find(to));
  else out(`${fullName(store.find(to)!)} is another name of ${fullName(findModel(store, from))}`);
}
