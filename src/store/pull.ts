// `pull`: from a reference to a stored model. Asks the source which files it means, downloads them
// one after another and enters them in the store; each step can be repeated after a failure.
import { TinferError } from "../core/errors.ts";
import { partialBytes, presentBlob, type RemoteFile } from "./blobs.ts";
import { downloadFile, type PullProgress, type TransferOptions } from "./download.ts";
import { defaultEndpoint, type PullPlan, planHuggingFace, shardPattern } from "./hugging-face.ts";
import { defaultOllamaRegistry, planOllama } from "./ollama-registry.ts";
import { type Disk, noSpace, realDisk } from "./partial-file.ts";
import { type ModelReference, parseModelReference, toNameSegment } from "./reference.ts";
import { allowedUrl, defaultRetry, type RetryPolicy } from "./request.ts";
import type { ModelStore, StoredFile, StoredModel } from "./store.ts";

export type { PullProgress } from "./download.ts";

export interface PullOptions {
  onProgress?(progress: PullProgress): void;
  signal?: AbortSignal;
  /** Of the reference's kind: a Hugging Face mirror or an Ollama registry. */
  endpoint?: string;
  token?: string;
  /** For a source that publishes no hash; only for models of one file. */
  expectedSha256?: string;
  /** The built-in fetch may lose up to 256 KiB per cut; without this option nothing is lost. */
  fetch?: typeof fetch;
  retry?: Partial<RetryPolicy>;
  disk?: Disk;
  /** Where HF_ENDPOINT, HF_TOKEN and HUGGING_FACE_HUB_TOKEN are read. */
  env?: Record<string, string | undefined>;
}

/** Downloads what is missing. Stopped or cut, it goes on where it was when called again. */
export async function pullModel(
  store: ModelStore,
  reference: string,
  options: PullOptions = {},
): Promise<StoredModel> {
  const signal = options.signal ?? new AbortController().signal;
  const onProgress = (progress: PullProgress) => options.onProgress?.(progress);
  try {
    signal.throwIfAborted();
    onProgress(resolving(reference));
    const transfer = transferOptions(options, signal, onProgress);
    const plan = withExpectedHash(await planPull(store, reference, options, transfer), options);
    if (plan.note !== undefined) onProgress({ ...resolving(reference), note: plan.note });
    if (!plan.sendsToken) transfer.access = { ...transfer.access, token: undefined };
    requireSpace(store, plan, transfer.disk);
    const files: StoredFile[] = [];
    for (const file of plan.files) {
      const received = await downloadFile(store.folder, file, transfer);
      files.push({ fileName: file.fileName, ...received });
    }
    const tag = freeTag(store, plan, files);
    if (tag !== plan.tag) {
      const note = `${plan.name}:${plan.tag} has another source; stored as ${plan.name}:${tag}`;
      onProgress({ ...resolving(reference), note });
    }
    const { name, source } = plan;
    return store.add({ name, tag, source, files, createdAt: new Date().toISOString() });
  } catch (error) {
    if (!signal.aborted || error instanceof TinferError) throw error;
    throw new TinferError("cancelled", `pull of ${reference} was stopped`, {
      hint: "What has arrived is kept: pull again to go on.",
      cause: error,
    });
  }
}

function resolving(reference: string): PullProgress {
  return { fileName: reference, receivedBytes: 0, totalBytes: undefined, phase: "resolving" };
}

function transferOptions(
  options: PullOptions,
  signal: AbortSignal,
  onProgress: (progress: PullProgress) => void,
): TransferOptions {
  const env = options.env ?? process.env;
  const token = options.token ?? (env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"] || undefined);
  const tokenOrigin = allowedUrl(huggingFaceEndpoint(options)).origin;
  return {
    access: { token, tokenOrigin, fetch: options.fetch },
    retry: { ...defaultRetry, ...options.retry },
    disk: options.disk ?? realDisk,
    signal,
    onProgress,
  };
}

function huggingFaceEndpoint(options: PullOptions): string {
  const env = options.env ?? process.env;
  const endpoint = options.endpoint ?? (env["HF_ENDPOINT"] || defaultEndpoint);
  if (!URL.canParse(endpoint)) {
    throw new TinferError("usage", `HF_ENDPOINT is not an address: ${endpoint}`, {
      hint: `Unset it, or write an address like ${defaultEndpoint}.`,
    });
  }
  return endpoint.replace(/\/+$/, "");
}

async function planPull(
  store: ModelStore,
  text: string,
  options: PullOptions,
  transfer: TransferOptions,
): Promise<PullPlan> {
  const reference = parseModelReference(text);
  const { access, retry, signal } = transfer;
  switch (reference.kind) {
    case "huggingFace":
      return planHuggingFace(reference, huggingFaceEndpoint(options), access, retry, signal);
    case "ollama": {
      const registry = (options.endpoint ?? defaultOllamaRegistry).replace(/\/+$/, "");
      // The token is Hugging Face's; an endpoint given for this registry must not get it.
      const anonymous = { ...access, token: undefined };
      return planOllama(reference, registry, anonymous, retry, signal);
    }
    case "url":
      return planUrl(reference.url);
    case "path":
      throw new TinferError("usage", `${reference.path} is a path; pull fetches from elsewhere`, {
        hint: "A local file needs no pull: give its path to `tinfer run`.",
      });
    case "name":
      return planAgain(store, reference, text, options, transfer);
  }
}

/** A stored name means its source: that is how a model is brought up to date. */
async function planAgain(
  store: ModelStore,
  reference: ModelReference & { kind: "name" },
  text: string,
  options: PullOptions,
  transfer: TransferOptions,
): Promise<PullPlan> {
  const stored = store.find(text);
  if (stored !== undefined) {
    const plan = await planPull(store, stored.source, options, transfer);
    return { ...plan, name: stored.name, tag: stored.tag };
  }
  const near = store.suggestions(text);
  const { name, tag } = reference;
  throw new TinferError("notFound", `no stored model "${text}", so nothing says where it is from`, {
    hint:
      near.length > 0
        ? `Did you mean ${near.join(", ")}?`
        : `Write the source: tinfer pull hf:user/repo, or tinfer pull ollama:${name}:${tag}`,
  });
}

function planUrl(address: string): PullPlan {
  const url = allowedUrl(address);
  const last = decodeURIComponent(url.pathname.split("/").at(-1) ?? "");
  const stem = toNameSegment(last.replace(/\.gguf$/i, "") || url.hostname);
  const shard = shardPattern.exec(last);
  const names = shard === null ? [last] : shardNames(toNameSegment(shard[1]!), shard[3]!);
  const files = names.map((name): RemoteFile => {
    const target = new URL(url);
    if (shard !== null) {
      const numbers = name.slice(name.length - "-00001-of-00001.gguf".length);
      target.pathname = url.pathname.replace(/-\d{5}-of-\d{5}\.gguf$/i, numbers);
    }
    const fileName = shard === null ? `${stem}.gguf` : name;
    return { fileName, url: target.href, bytes: undefined, sha256: undefined };
  });
  const name = stem.replace(/-\d{5}-of-\d{5}$/, "");
  return { name, tag: "latest", source: address, files, note: undefined, sendsToken: true };
}

/** Real models have up to some 50 parts; an address should not make us ask for more than 1000. */
function shardNames(stem: string, count: string): string[] {
  const total = Number(count);
  if (total < 1 || total > 1000) {
    throw new TinferError("usage", `a model in ${total} parts cannot be pulled by its address`);
  }
  return Array.from({ length: total }, (_, index) => {
    return `${stem}-${String(index + 1).padStart(5, "0")}-of-${count}.gguf`;
  });
}

function withExpectedHash(plan: PullPlan, options: PullOptions): PullPlan {
  const expected = options.expectedSha256?.toLowerCase();
  const [file] = plan.files;
  if (expected === undefined || file === undefined) return plan;
  if (!/^[0-9a-f]{64}$/.test(expected) || plan.files.length > 1) {
    const why = plan.files.length > 1 ? "the model has several files" : "it is not 64 hex digits";
    throw new TinferError("usage", `the expected SHA-256 cannot be used: ${why}`);
  }
  if (file.sha256 !== undefined && file.sha256 !== expected) {
    const both = `published is ${file.sha256}, expected is ${expected}`;
    throw new TinferError("checksum", `${file.fileName}: ${both}`, {
      hint: "Nothing was downloaded. Check which version of the file is meant.",
    });
  }
  return { ...plan, files: [{ ...file, sha256: expected }] };
}

/** All files together, before the first byte of the first. */
function requireSpace(store: ModelStore, plan: PullPlan, disk: Disk): void {
  let neededBytes = 0;
  for (const file of plan.files) {
    if (!/^[^\\/:*?"<>|\p{Cc}.][^\\/:*?"<>|\p{Cc}]*$/u.test(file.fileName)) {
      throw new TinferError("unsupported", `"${file.fileName}" cannot be a file's name here`);
    }
    const { sha256, bytes } = file;
    if (bytes === undefined) continue;
    if (sha256 !== undefined && presentBlob(store.folder, sha256, bytes)) continue;
    neededBytes += Math.max(0, bytes - partialBytes(store.folder, file));
  }
  if (neededBytes === 0) return;
  const folder = store.createFolder();
  const freeBytes = disk.freeBytes(folder);
  if (neededBytes > freeBytes) throw noSpace(folder, neededBytes, freeBytes);
}

/** The planned tag, unless a model from elsewhere has it: nothing is replaced by accident. */
function freeTag(store: ModelStore, plan: PullPlan, files: StoredFile[]): string {
  const there = store.readManifest(plan.name, plan.tag);
  if (there === undefined || there.source === plan.source) return plan.tag;
  const same = store.list().find((one) => one.name === plan.name && one.source === plan.source);
  return same?.tag ?? files[0]!.sha256.slice(0, 12);
}
