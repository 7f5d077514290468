// Hugging Face repositories: which GGUF files one offers, which of them a reference means, and
// where they are fetched. Shards of a split file count as one offer.
import { TinferError } from "../core/errors.ts";
import type { RemoteFile } from "./blobs.ts";
import { formatModelReference, type HuggingFaceReference, toNameSegment } from "./reference.ts";
import { type Access, fetchJson, type RetryPolicy } from "./request.ts";

export const defaultEndpoint = "https://huggingface.co";

/** What `pull.ts` fetches and under which name it is kept. */
export interface PullPlan {
  name: string;
  tag: string;
  source: string;
  /** First shard first. */
  files: RemoteFile[];
  /** Said to the person once: what was chosen, what is left out. */
  note: string | undefined;
  /** Whether the Hugging Face token may be sent, to its own host. */
  sendsToken: boolean;
}

/** One entry of a repository's listing. */
export interface RepositoryFile {
  path: string;
  bytes: number;
  sha256: string | undefined;
}

/** One model of a repository: a file or all shards of a split file. */
export interface Offer {
  /** Quantisation as the file name says it (`Q4_K_M`); the name itself where it says none. */
  quant: string;
  files: RepositoryFile[];
}

/** A repository with more pages of a thousand files is not one for models. */
const maxPages = 50;
export const shardPattern = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;
const quantName = "I?Q\\d(?:_[A-Z0-9]+)*|TQ[12]_0|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4";
const quantPattern = new RegExp(`(?:^|[-_./])((?:UD-)?(?:${quantName}))(?=$|[-./])`, "gi");

/**
 * Best first, when nobody says which: the usual choice, then what is near it in size and
 * quality.
 */
const preferred = [
  "Q4_K_M",
  "Q4_K_L",
  "UD-Q4_K_XL",
  "Q4_K_S",
  "Q4_0",
  "Q4_1",
  "IQ4_NL",
  "IQ4_XS",
  "MXFP4",
  "MXFP4_MOE",
  "NVFP4",
  "Q5_K_M",
  "Q5_K_S",
  "Q5_0",
  "Q5_1",
  "Q6_K",
  "Q8_0",
  "Q3_K_L",
  "Q3_K_M",
  "Q3_K_S",
  "IQ3_M",
  "BF16",
  "F16",
  "FP16",
  "F32",
  "Q2_K",
];

export async function planHuggingFace(
  reference: HuggingFaceReference,
  endpoint: string,
  access: Access,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<PullPlan> {
  const listing = await listRepository(reference, endpoint, access, retry, signal);
  const offers = offersOf(listing);
  const offer = chooseOffer(reference, offers, listing);
  const fallback = reference.quant === undefined && reference.filePath === undefined;
  // As the repository spells it, so that one model has one source.
  const exact = reference.filePath === undefined ? { ...reference, quant: offer.quant } : reference;
  const others = offers.filter((other) => other !== offer).map((other) => other.quant);
  return {
    name: reference.repository,
    tag: tagOf(reference, offer),
    source: formatModelReference(exact),
    files: offer.files.map((file) => ({
      fileName: baseName(file.path),
      url: fileUrl(reference, endpoint, file.path),
      bytes: file.bytes,
      sha256: file.sha256,
    })),
    note:
      fallback && others.length > 0
        ? `chose ${offer.quant}; also there: ${others.join(", ")}`
        : undefined,
    sendsToken: true,
  };
}

async function listRepository(
  reference: HuggingFaceReference,
  endpoint: string,
  access: Access,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<RepositoryFile[]> {
  const { repository, revision } = reference;
  const files: RepositoryFile[] = [];
  const tree = `${endpoint}/api/models/${repository}/tree/${encodeURIComponent(revision)}`;
  let address: string | undefined = `${tree}?recursive=true`;
  for (let pages = 0; address !== undefined; pages++) {
    if (pages === maxPages) {
      throw new TinferError(
        "unsupported",
        `${repository} lists more than ${maxPages} pages of files`,
      );
    }
    const page = await fetchJson(address, {}, access, retry, signal);
    if (!Array.isArray(page.value)) {
      throw new TinferError("network", `${repository}: the listing is not a list`);
    }
    for (const entry of page.value) {
      const file = parseEntry(entry);
      if (file !== undefined) files.push(file);
    }
    address = page.next;
  }
  return files;
}

function parseEntry(entry: unknown): RepositoryFile | undefined {
  if (typeof entry !== "object" || entry === null) return undefined;
  const { type, path, size, lfs }: Record<string, unknown> = { ...entry };
  if ((type !== undefined && type !== "file") || typeof path !== "string") return undefined;
  const stored: Record<string, unknown> = typeof lfs === "object" && lfs !== null ? { ...lfs } : {};
  const bytes = typeof stored["size"] === "number" ? stored["size"] : size;
  if (typeof bytes !== "number" || !Number.isSafeInteger(bytes)) return undefined;
  // Files outside LFS have a Git hash only, which is no hash of the bytes alone.
  const hash = String(stored["oid"] ?? "").replace(/^sha256:/, "");
  return { path, bytes, sha256: /^[0-9a-f]{64}$/.test(hash) ? hash : undefined };
}

/** All complete models of a listing, in the listing's order. */
export function offersOf(listing: RepositoryFile[]): Offer[] {
  const groups = new Map<string, RepositoryFile[]>();
  for (const file of listing) {
    if (!isModelFile(file.path)) continue;
    const shard = shardPattern.exec(file.path);
    const key = shard === null ? file.path : `${shard[1]}.gguf of ${shard[3]}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [file]);
    else group.push(file);
  }
  return [...groups.values()].map((files) => {
    files.sort((a, b) => (a.path < b.path ? -1 : 1));
    return { quant: quantOf(files[0]!.path), files };
  });
}

/** Image projectors and importance matrices are GGUF files too, but no models. */
function isModelFile(path: string): boolean {
  return /\.gguf$/i.test(path) && !/(^|[-_.])(mmproj|imatrix)([-_.]|$)/i.test(baseName(path));
}

/** The last quantisation that the file's name holds, else its folder's, else the name. */
export function quantOf(path: string): string {
  const stem = path.replace(/\.gguf$/i, "").replace(/-\d{5}-of-\d{5}$/, "");
  const found = [...stem.matchAll(quantPattern)].at(-1)?.[1];
  return found?.toUpperCase() ?? baseName(stem);
}

export function chooseOffer(
  reference: HuggingFaceReference,
  offers: Offer[],
  listing: RepositoryFile[],
): Offer {
  const { repository, filePath, quant } = reference;
  if (filePath !== undefined) return offerWithFile(reference, filePath, offers, listing);
  if (offers.length === 0) throw withoutModels(repository, listing);
  const wanted = quant?.toLowerCase();
  const candidates =
    wanted === undefined
      ? defaultOffers(offers)
      : offers.filter((offer) => offer.quant.toLowerCase() === wanted);
  const [first, ...others] = candidates;
  if (first === undefined) {
    throw new TinferError("notFound", `${repository} has no ${quant}; it has ${listOf(offers)}`, {
      hint: `For example: tinfer pull hf:${repository}:${defaultOffers(offers)[0]?.quant}`,
    });
  }
  if (others.length > 0) {
    const paths = candidates.map((offer) => offer.files[0]!.path).join(", ");
    throw new TinferError("usage", `${repository} has several files for ${first.quant}: ${paths}`, {
      hint: `Name one: tinfer pull hf:${repository}/${first.files[0]!.path}`,
    });
  }
  return requireAllShards(repository, first);
}

function offerWithFile(
  reference: HuggingFaceReference,
  filePath: string,
  offers: Offer[],
  listing: RepositoryFile[],
): Offer {
  const { repository } = reference;
  const offer = offers.find((candidate) => candidate.files.some((file) => file.path === filePath));
  if (offer !== undefined) return requireAllShards(repository, offer);
  // A projector is left out of the offers, but who names it gets it.
  const file = listing.find((candidate) => candidate.path === filePath);
  if (file !== undefined) return { quant: quantOf(file.path), files: [file] };
  const there = offers.length === 0 ? "no GGUF files" : listOf(offers);
  throw new TinferError("notFound", `${repository} has no file ${filePath}; it has ${there}`, {
    hint: `Name one of them: tinfer pull hf:${repository}:QUANT`,
  });
}

function requireAllShards(repository: string, offer: Offer): Offer {
  const first = offer.files[0]!.path;
  const count = shardPattern.exec(first)?.[3];
  if (count === undefined || Number(count) === offer.files.length) return offer;
  const sizes = `${offer.files.length} of ${Number(count)} parts`;
  throw new TinferError("notFound", `${repository} holds only ${sizes} of ${first}`, {
    hint: "The upload may still be under way; choose another file or try later.",
  });
}

/** The best rank that is there; unknown quantisations come last, in the listing's order. */
function defaultOffers(offers: Offer[]): Offer[] {
  for (const quant of preferred) {
    const matching = offers.filter((offer) => offer.quant === quant);
    if (matching.length > 0) return matching;
  }
  return offers.slice(0, 1);
}

function withoutModels(repository: string, listing: RepositoryFile[]): TinferError {
  const safetensors = listing.some((file) => file.path.endsWith(".safetensors"));
  const what = safetensors ? "only safetensors, no GGUF files" : "no GGUF files";
  return new TinferError("unsupported", `${repository} has ${what}`, {
    hint: "Look for a repository of the same model whose name ends in -GGUF.",
  });
}

function listOf(offers: Offer[]): string {
  const quants = [...new Set(offers.map((offer) => offer.quant))];
  return quants.join(", ");
}

/**
 * A file chosen by its path may be one of several with the same quantisation: its stem is exact.
 */
function tagOf(reference: HuggingFaceReference, offer: Offer): string {
  if (reference.filePath === undefined) return toNameSegment(offer.quant);
  const stem = reference.filePath.replace(/\.gguf$/i, "").replace(/-\d{5}-of-\d{5}$/, "");
  return toNameSegment(stem);
}

function fileUrl(reference: HuggingFaceReference, endpoint: string, path: string): string {
  const revision = encodeURIComponent(reference.revision);
  const escaped = path.split("/").map(encodeURIComponent).join("/");
  return `${endpoint}/${reference.repository}/resolve/${revision}/${escaped}`;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
