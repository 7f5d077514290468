// The two laws of the code base: who may import whom, and how long a file and a function may be.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dir, "..");

/** Folder of src/ → the folders it may import from, beside itself and core. */
const arrows: Readonly<Record<string, readonly string[]>> = {
  core: [],
  native: [],
  // Quantisation is native.
  weights: ["native"],
  sampling: [],
  tokenizer: ["weights"],
  // The border where the names in Hugging Face folders become those of GGUF.
  "hugging-face": ["weights"],
  template: ["tokenizer"],
  // Step data has room for what a request may ask of sampling.
  plan: ["sampling"],
  // The reference backend is the oracle and reads weights and samples in plain TypeScript.
  backend: ["native", "plan", "weights", "sampling"],
  models: ["plan", "weights"],
  engine: [
    ...["models", "plan", "backend", "weights", "tokenizer", "sampling", "native"],
    "hugging-face",
  ],
  store: ["weights"],
  chat: ["engine", "template", "store", "sampling", "tokenizer"],
  server: ["engine", "template", "store", "sampling", "tokenizer"],
  cli: [
    ...["engine", "template", "store", "chat", "server", "weights", "tokenizer", "sampling"],
    ...["models", "plan", "native", "backend"],
  ],
  "main.ts": ["cli"],
};

/** Only these files may import a concrete backend, or bun:ffi. */
const concreteBackends = /backend\/(cpu|reference|cuda|metal|webgpu)\.ts$/;
const mayImportBackends = /^src\/backend\//;
const mayImportFfi = /^src\/(native\/|backend\/cpu\.ts)/;

const fileLimit = { ".ts": 400, ".zig": 600, ".mjs": 400 };
const functionLimit = 70;

/** Function bodies longer than the limit, each with its reason. */
const longFunctions: Readonly<Record<string, string>> = {};

function filesBelow(folder: string, endings: readonly string[]): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

const read = (path: string) => readFileSync(join(root, path), "utf8");
const sources = filesBelow("src", [".ts"]).filter((path) => !path.endsWith(".d.ts"));

function importsOf(path: string): string[] {
  const text = read(path);
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]!);
  return found.map((target) =>
    target.startsWith(".") ? relative(root, join(root, dirname(path), target)) : target,
  );
}

test("imports follow the arrows", () => {
  const wrong: string[] = [];
  for (const path of sources) {
    const folder = path.split("/")[1]!;
    const allowed = arrows[folder];
    if (allowed === undefined) wrong.push(`${path}: folder ${folder} has no arrows`);
    for (const target of importsOf(path)) {
      const to = target.startsWith("src/") ? target.split("/")[1]! : undefined;
      if (to === undefined || to === folder || to === "core") continue;
      if (!allowed?.includes(to)) wrong.push(`${path} → ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("models do not import one another, backends and bun:ffi stay behind their doors", () => {
  const wrong: string[] = [];
  const families = importsOf("src/models/registry.ts").filter((path) => {
    return path.startsWith("src/models/") && !path.endsWith("/family.ts");
  });
  for (const path of sources) {
    for (const target of importsOf(path)) {
      if (families.includes(path) && families.includes(target)) wrong.push(`${path} → ${target}`);
      if (concreteBackends.test(target) && !mayImportBackends.test(path)) {
        wrong.push(`${path} → ${target}`);
      }
      if (target === "bun:ffi" && !mayImportFfi.test(path)) wrong.push(`${path} → bun:ffi`);
    }
  }
  expect(wrong).toEqual([]);
});

test("no cycle among the files of src", () => {
  const graph = new Map(sources.map((path) => [path, valueImports(path)]));
  const state = new Map<string, "open" | "done">();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]) => {
    if (state.get(path) === "done") return;
    if (state.get(path) === "open") {
      cycles.push([...trail.slice(trail.indexOf(path)), path].join(" → "));
      return;
    }
    state.set(path, "open");
    for (const target of graph.get(path) ?? [])
      if (graph.has(target)) visit(target, [...trail, path]);
    state.set(path, "done");
  };
  for (const path of sources) visit(path, []);
  expect(cycles).toEqual([]);
});

/** Imports that exist at run time: type imports make no cycle. */
function valueImports(path: string): string[] {
  const text = read(path).replace(/^(import|export) type [^;]+;$/gm, "");
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)];
  return found.map((match) => relative(root, join(root, dirname(path), match[1]!)));
}

test("files are short and open with what they own", () => {
  const wrong: string[] = [];
  for (const folder of ["src", "scripts", "test", "kernels"]) {
    for (const path of filesBelow(folder, Object.keys(fileLimit))) {
      if (path.startsWith("kernels/lab/")) continue;
      const lines = read(path).split("\n");
      const limit = Object.entries(fileLimit).find(([ending]) => path.endsWith(ending))![1];
      if (lines.length - 1 > limit) wrong.push(`${path}: ${lines.length - 1} lines`);
      const opens = /^(\/\/|#!)/.test(lines[0]!) || folder === "test";
      if (!opens) wrong.push(`${path}: no opening comment`);
      const wide = lines.findIndex((line) => line.length > 100 && !/https?:|["`]/.test(line));
      if (wide >= 0 && path.endsWith(".ts")) wrong.push(`${path}:${wide + 1}: over 100 columns`);
    }
  }
  expect(wrong).toEqual([]);
});

test("functions are short", () => {
  const wrong: string[] = [];
  for (const path of sources) {
    const lines = read(path).split("\n");
    lines.forEach((line, start) => {
      if (!/^( {2})?(export )?(async )?(function|static|get|#?\w+\().*\{$/.test(line)) return;
      if (/^\s*(if|for|while|switch|describe|test)\b/.test(line)) return;
      const indent = /^ */.exec(line)![0];
      const end = lines.findIndex((other, index) => index > start && other === `${indent}}`);
      const name = `${path}: ${line.trim().slice(0, 60)}`;
      if (end - start + 1 > functionLimit && longFunctions[name] === undefined) {
        wrong.push(`${name} (${end - start + 1} lines)`);
      }
    });
  }
  expect(wrong).toEqual([]);
});

test("native memory comes from kernels/memory.zig alone, and no op asks for any", () => {
  const wrong: string[] = [];
  for (const path of filesBelow("kernels", [".zig"])) {
    const isTest = /(^|[/_])(tests?|check_\w+)\.zig$/.test(path);
    if (path === "kernels/memory.zig" || path.startsWith("kernels/lab/") || isTest) continue;
    const text = read(path);
    if (/std\.heap\.\w*(alloc|Alloc)/.test(text)) wrong.push(`${path}: std.heap`);
    const isOp = /^kernels\/(cpu|quant)\//.test(path);
    if (isOp && /memory\.zig|[aA]llocator/.test(text)) wrong.push(`${path}: an op allocates`);
  }
  expect(wrong).toEqual([]);
});
