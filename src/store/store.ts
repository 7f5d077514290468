// The model store on disk: blobs named by their SHA-256, and per model a folder with a manifest and
// the files under their own names (hard links to the blobs, so that split files find their
// siblings).
//   blobs/sha256-…            partial/…            manifests/NAME/TAG/{manifest.json,FILE…}
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { nearestMatch, TinferError } from "../core/errors.ts";
import { lockNow } from "../core/lock.ts";
import { blobPath } from "./blobs.ts";
import {
  defaultTag,
  formatModelReference,
  type ModelReference,
  parseModelReference,
} from "./reference.ts";

export interface StoredModel {
  name: string;
  tag: string;
  /** The reference it came from. */
  source: string;
  bytes: number;
  /** ISO 8601, UTC. */
  createdAt: string;
  /** Real files with their own names, first shard first. */
  paths: string[];
  /** Of the file; of a split model, the SHA-256 over its files' hashes in order. */
  sha256: string;
}

export interface StoredFile {
  fileName: string;
  sha256: string;
  bytes: number;
}

export interface Manifest {
  name: string;
  tag: string;
  source: string;
  files: StoredFile[];
  createdAt: string;
}

const manifestName = "manifest.json";

export function defaultStoreFolder(env: Record<string, string | undefined> = process.env): string {
  const chosen = env["TINFER_HOME"];
  if (chosen) return resolve(chosen);
  const home = env["HOME"] || homedir();
  if (process.platform === "win32") {
    return join(env["LOCALAPPDATA"] || join(home, "AppData", "Local"), "tinfer");
  }
  if (process.platform === "darwin") return join(home, "Library", "Application Support", "tinfer");
  return join(env["XDG_DATA_HOME"] || join(home, ".local", "share"), "tinfer");
}

export class ModelStore {
  readonly folder: string;

  constructor(folder: string = defaultStoreFolder()) {
    this.folder = folder;
  }

  createFolder(): string {
    mkdirSync(this.folder, { recursive: true });
    return this.folder;
  }

  /** By name, then tag. */
  list(): StoredModel[] {
    return this.manifests()
      .map((manifest) => this.storedModel(manifest))
      .sort((a, b) => compare(a.name, b.name) || compare(a.tag, b.tag));
  }

  /** By exact name and tag, by source, or by a shorter name that means only one model. */
  find(reference: string): StoredModel | undefined {
    const manifest = this.findManifest(reference);
    return manifest && this.storedModel(manifest);
  }

  remove(reference: string): { freedBytes: number } {
    using _lock = this.lock();
    const manifest = this.requireManifest(reference);
    rmSync(this.modelFolder(manifest.name, manifest.tag), { recursive: true, force: true });
    removeIfEmpty(dirname(this.modelFolder(manifest.name, manifest.tag)));
    return { freedBytes: this.removeUnused(manifest.files) };
  }

  /** Another name for the same blobs: takes no space. */
  copy(from: string, to: string): void {
    const target = parseModelReference(to);
    if (target.kind !== "name") {
      throw new TinferError("usage", `"${to}" cannot be the name of a stored model`, {
        hint: "Write name or name:tag with letters, digits, hyphens, dots and slashes.",
      });
    }
    using _lock = this.lock();
    const manifest = this.requireManifest(from);
    const { name, tag } = target;
    if (this.readManifest(name, tag) !== undefined) {
      throw new TinferError("usage", `${name}:${tag} exists already`, {
        hint: `Remove it first: tinfer rm ${name}:${tag}`,
      });
    }
    this.place({ ...manifest, name, tag, createdAt: new Date().toISOString() });
  }

  /**
   * Makes downloaded blobs a model. A model of that name and source is replaced and its blobs
   * freed.
   */
  add(manifest: Manifest): StoredModel {
    using _lock = this.lock();
    const earlier = this.readManifest(manifest.name, manifest.tag);
    this.place(manifest);
    if (earlier !== undefined) this.removeUnused(earlier.files);
    return this.storedModel(manifest);
  }

  readManifest(name: string, tag: string): Manifest | undefined {
    return readManifestFile(join(this.modelFolder(name, tag), manifestName));
  }

  /** Names that a person may have meant, nearest first; at most three. */
  suggestions(text: string): string[] {
    const full = new Map<string, string>();
    for (const { name, tag } of this.manifests()) {
      for (const spelling of [`${name}:${tag}`, name, lastSegment(name)]) {
        if (!full.has(spelling)) full.set(spelling, `${name}:${tag}`);
      }
    }
    const found: string[] = [];
    while (found.length < 3) {
      const match = nearestMatch(text, full.keys());
      const meant = match === undefined ? undefined : full.get(match);
      if (meant === undefined) break;
      found.push(meant);
      for (const [spelling, target] of full) if (target === meant) full.delete(spelling);
    }
    return found;
  }

  private lock(): Disposable {
    return lockNow(join(this.folder, "store.lock"));
  }

  /** Files first, the manifest last and in one step: a model is whole as soon as it is seen. */
  private place(manifest: Manifest): void {
    const folder = this.modelFolder(manifest.name, manifest.tag);
    mkdirSync(folder, { recursive: true });
    for (const { fileName, sha256 } of manifest.files) {
      const blob = blobPath(this.folder, sha256);
      if (!existsSync(blob)) {
        throw new TinferError("notFound", `${fileName} was removed while it was being pulled`, {
          hint: "Pull the model again.",
        });
      }
      if (!linkOver(blob, join(folder, fileName)) && manifest.files.length > 1) {
        throw new TinferError("unsupported", `${folder}: no links here, which split models need`, {
          hint: "Set TINFER_HOME to a folder on another file system.",
        });
      }
    }
    const draft = join(folder, `${manifestName}.${process.pid}.new`);
    writeFileSync(draft, `${JSON.stringify(manifest, null, 2)}\n`);
    renameSync(draft, join(folder, manifestName));
    const keep = new Set([manifestName, ...manifest.files.map((file) => file.fileName)]);
    for (const name of readdirSync(folder)) {
      if (!keep.has(name)) rmSync(join(folder, name), { recursive: true, force: true });
    }
  }

  private removeUnused(files: StoredFile[]): number {
    const used = new Set(this.manifests().flatMap((one) => one.files.map((file) => file.sha256)));
    let freedBytes = 0;
    for (const sha256 of new Set(files.map((file) => file.sha256))) {
      const path = blobPath(this.folder, sha256);
      if (used.has(sha256) || !existsSync(path)) continue;
      freedBytes += statSync(path).size;
      rmSync(path);
    }
    return freedBytes;
  }

  private requireManifest(reference: string): Manifest {
    const manifest = this.findManifest(reference);
    if (manifest !== undefined) return manifest;
    const near = this.suggestions(reference);
    const hint = near.length > 0 ? `Did you mean ${near.join(", ")}?` : "`tinfer ls` lists them.";
    throw new TinferError("notFound", `no model "${reference}" in the store`, { hint });
  }

  private findManifest(text: string): Manifest | undefined {
    const reference = parseModelReference(text);
    const all = this.manifests();
    if (reference.kind === "path") return undefined;
    if (reference.kind === "name") return findByName(all, reference, text);
    const source = formatModelReference(reference);
    const same = all.find((manifest) => manifest.source === source);
    if (same !== undefined || reference.kind !== "huggingFace") return same;
    // hf:user/repo without a quant type, or with one in other letters.
    if (reference.filePath !== undefined) return undefined;
    return onlyOne(
      all.filter(
        ({ source: from }) =>
          from.toLowerCase() === source.toLowerCase() ||
          (reference.quant === undefined && from.startsWith(`hf:${reference.repository}:`)),
      ),
      text,
    );
  }

  private manifests(): Manifest[] {
    const root = join(this.folder, "manifests");
    if (!existsSync(root)) return [];
    const found: Manifest[] = [];
    for (const name of foldersIn(root)) {
      for (const tag of foldersIn(join(root, name))) {
        // A folder without a manifest is a model that is just coming or going.
        const manifest = readManifestFile(join(root, name, tag, manifestName));
        if (manifest !== undefined) found.push(manifest);
      }
    }
    return found;
  }

  private storedModel(manifest: Manifest): StoredModel {
    const { name, tag, source, createdAt, files } = manifest;
    const hashes = files.map((file) => file.sha256);
    const [only] = hashes;
    const joined = () => new Bun.CryptoHasher("sha256").update(hashes.join("\n")).digest("hex");
    return {
      name,
      tag,
      source,
      createdAt,
      bytes: files.reduce((sum, file) => sum + file.bytes, 0),
      paths: files.map((file) => this.pathOf(manifest, file)),
      sha256: hashes.length === 1 && only !== undefined ? only : joined(),
    };
  }

  /** The link with the file's own name, or the blob where the file system has no links. */
  private pathOf(manifest: Manifest, file: StoredFile): string {
    const path = join(this.modelFolder(manifest.name, manifest.tag), file.fileName);
    const blob = blobPath(this.folder, file.sha256);
    return existsSync(path) || !existsSync(blob) ? path : blob;
  }

  /** A name's slash is written as %2F: `a/b` must not lie inside the folder of `a`. */
  private modelFolder(name: string, tag: string): string {
    return join(this.folder, "manifests", encodeURIComponent(name), tag);
  }
}

function findByName(
  all: Manifest[],
  wanted: ModelReference & { kind: "name" },
  text: string,
): Manifest | undefined {
  const { name, tag } = wanted;
  const exact = all.find((manifest) => manifest.name === name && manifest.tag === tag);
  if (exact !== undefined) return exact;
  const tagGiven = text.trim().endsWith(`:${tag}`);
  const fitting = all.filter(
    (manifest) =>
      (manifest.name === name || lastSegment(manifest.name) === name) &&
      (tagGiven ? manifest.tag.toLowerCase() === tag.toLowerCase() : true),
  );
  const tagged = fitting.filter((manifest) => !tagGiven && manifest.tag === defaultTag);
  return onlyOne(tagged.length === 1 ? tagged : fitting, text);
}

function onlyOne(fitting: Manifest[], text: string): Manifest | undefined {
  if (fitting.length < 2) return fitting[0];
  const names = fitting.map(({ name, tag }) => `${name}:${tag}`).join(", ");
  throw new TinferError("usage", `"${text}" may mean ${names}`, { hint: "Write one of them out." });
}

function readManifestFile(path: string): Manifest | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const manifest: Partial<Manifest> = JSON.parse(readFileSync(path, "utf8"));
    const { name, tag, source, files, createdAt } = manifest;
    if (name && tag && source && createdAt && files && files.length > 0) {
      return { name, tag, source, createdAt, files };
    }
  } catch (error) {
    throw new TinferError("invalidFile", `${path} cannot be read`, {
      hint: `Delete ${dirname(path)} and pull the model again.`,
      cause: error,
    });
  }
  throw new TinferError("invalidFile", `${path} is not a manifest`, {
    hint: `Delete ${dirname(path)} and pull the model again.`,
  });
}

/** A hard link, or a symbolic one where there are none; false where the file system has neither. */
function linkOver(blob: string, path: string): boolean {
  const draft = `${path}.${process.pid}.new`;
  rmSync(draft, { force: true });
  try {
    linkSync(blob, draft);
  } catch {
    try {
      symlinkSync(resolve(blob), draft);
    } catch {
      return false;
    }
  }
  renameSync(draft, path);
  return true;
}

function foldersIn(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Other tags live there.
  }
}

function lastSegment(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
