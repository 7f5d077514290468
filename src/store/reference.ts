// What a person may write for a model: `hf:user/repo:QUANT`, `ollama:name:tag`, a URL, a path or a
// stored name. Parsing is pure text; whether a path exists is asked in `locate.ts`.
import { TinferError } from "../core/errors.ts";

export type ModelReference =
  | { kind: "path"; path: string }
  | HuggingFaceReference
  | { kind: "url"; url: string }
  | { kind: "ollama"; name: string; tag: string }
  | { kind: "name"; name: string; tag: string };

/** At most one of `quant` and `filePath` is given; with neither, the repository's best file. */
export interface HuggingFaceReference {
  kind: "huggingFace";
  /** `user/repo` */
  repository: string;
  revision: string;
  quant: string | undefined;
  filePath: string | undefined;
}

export const defaultTag = "latest";

const scheme = /^([a-z][a-z0-9+.-]*):\/\//i;
const segment = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const huggingFaceHosts = ["huggingface.co", "hf.co", "www.huggingface.co"];

export function parseModelReference(text: string): ModelReference {
  const trimmed = text.trim();
  if (trimmed === "") throw malformed(text, "it is empty");
  if (scheme.test(trimmed)) return parseUrl(trimmed);
  if (trimmed.startsWith("hf:")) return parseHuggingFace(trimmed.slice(3), text);
  if (trimmed.startsWith("ollama:")) return parseOllama(trimmed.slice(7), text);
  for (const host of huggingFaceHosts) {
    if (trimmed.startsWith(`${host}/`))
      return parseHuggingFace(trimmed.slice(host.length + 1), text);
  }
  if (looksLikePath(trimmed)) return { kind: "path", path: trimmed };
  const { name, tag } = splitTag(trimmed, text);
  return { kind: "name", name, tag: tag ?? defaultTag };
}

/** The one spelling of a reference; two references to the same thing give the same text. */
export function formatModelReference(reference: ModelReference): string {
  switch (reference.kind) {
    case "path":
      return reference.path;
    case "url":
      return reference.url;
    case "ollama":
      return `ollama:${reference.name}:${reference.tag}`;
    case "name":
      return `${reference.name}:${reference.tag}`;
    case "huggingFace":
      return formatHuggingFace(reference);
  }
}

function formatHuggingFace(reference: HuggingFaceReference): string {
  const { repository, revision, filePath, quant } = reference;
  if (revision !== "main") {
    // Only the URL spelling can carry a revision.
    const escaped = filePath?.split("/").map(encodeURIComponent).join("/") ?? "";
    const place = `${repository}/resolve/${encodeURIComponent(revision)}`;
    return `https://huggingface.co/${place}/${escaped}`;
  }
  if (filePath !== undefined) return `hf:${repository}/${filePath}`;
  return quant === undefined ? `hf:${repository}` : `hf:${repository}:${quant}`;
}

/** True for `name` and `user/name` as the store keeps them; such a name is safe in a path. */
function isModelName(name: string): boolean {
  return name.length <= 200 && name.split("/").every((part) => segment.test(part));
}

function isTag(tag: string): boolean {
  return segment.test(tag);
}

/** Turns any text into a valid name segment or tag: what is not allowed becomes a hyphen. */
export function toNameSegment(text: string): string {
  const cleaned = text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9_]+/, "");
  return cleaned.slice(0, 128) || "model";
}

function parseUrl(text: string): ModelReference {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw malformed(text, "the address cannot be parsed");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw malformed(text, `${url.protocol}// is not supported`);
  }
  if (url.username !== "" || url.password !== "") {
    // Not echoed: the address holds a secret.
    throw malformed(`${url.protocol}//…@${url.host}`, "an address may not carry a password");
  }
  if (!huggingFaceHosts.includes(url.host)) return { kind: "url", url: url.href };
  // Browser addresses of a repository (…/blob/main/FILE is the page around the file) mean the file.
  const parts = url.pathname.split("/").filter((part) => part !== "");
  const [user, repo, view, revision, ...rest] = parts.map(decodeURIComponent);
  if (user === undefined || repo === undefined) return { kind: "url", url: url.href };
  const plain = view === undefined || (view === "tree" && revision === "main" && rest.length === 0);
  const file = (view === "resolve" || view === "blob") && revision !== undefined;
  if (!plain && !(file && rest.length > 0)) return { kind: "url", url: url.href };
  return {
    kind: "huggingFace",
    repository: checkedRepository(user, repo, text),
    revision: revision ?? "main",
    quant: undefined,
    filePath: file ? rest.join("/") : undefined,
  };
}

function parseHuggingFace(body: string, text: string): HuggingFaceReference {
  const [user, repoAndQuant, ...rest] = body.split("/");
  if (user === undefined || repoAndQuant === undefined || repoAndQuant === "") {
    throw malformed(text, "expected hf:user/repo[:QUANT] or hf:user/repo/file.gguf");
  }
  if (rest.length > 0) {
    const filePath = rest.join("/");
    if (rest.some((part) => part === "" || part === "." || part === "..")) {
      throw malformed(text, `${filePath} is not a file in a repository`);
    }
    const repository = checkedRepository(user, repoAndQuant, text);
    return { kind: "huggingFace", repository, revision: "main", quant: undefined, filePath };
  }
  const colon = repoAndQuant.indexOf(":");
  const repo = colon < 0 ? repoAndQuant : repoAndQuant.slice(0, colon);
  const quant = colon < 0 ? undefined : repoAndQuant.slice(colon + 1);
  if (quant !== undefined && !isTag(quant)) throw malformed(text, `"${quant}" is not a quant type`);
  return {
    kind: "huggingFace",
    repository: checkedRepository(user, repo, text),
    revision: "main",
    quant: quant?.toLowerCase() === defaultTag ? undefined : quant,
    filePath: undefined,
  };
}

function parseOllama(body: string, text: string): ModelReference {
  const { name, tag } = splitTag(body, text);
  return { kind: "ollama", name, tag: tag ?? defaultTag };
}

function splitTag(body: string, text: string): { name: string; tag: string | undefined } {
  const colon = body.lastIndexOf(":");
  const name = colon < 0 ? body : body.slice(0, colon);
  const tag = colon < 0 ? undefined : body.slice(colon + 1);
  if (!isModelName(name)) {
    throw malformed(text, `"${name}" is not a name (letters, digits, "-", "_", "." and "/")`);
  }
  if (tag !== undefined && !isTag(tag)) throw malformed(text, `"${tag}" is not a tag`);
  return { name, tag };
}

function checkedRepository(user: string, repo: string, text: string): string {
  const repository = `${user}/${repo}`;
  if (!isModelName(repository)) throw malformed(text, `"${repository}" is not a repository`);
  return repository;
}

function looksLikePath(text: string): boolean {
  return (
    /^(\.{0,2}[/\\]|~[/\\]|[A-Za-z]:[/\\])/.test(text) ||
    text === "." ||
    text === ".." ||
    text.includes("\\") ||
    /\.gguf$/i.test(text)
  );
}

function malformed(text: string, why: string): TinferError {
  return new TinferError("usage", `cannot read the model reference "${text}": ${why}`, {
    hint: "Write a .gguf path, a stored name, hf:user/repo[:QUANT], ollama:name[:tag] or https://…",
  });
}
