// Models of an Ollama registry: a manifest names layers by their hash, and the weights are one of
// them. Templates and parameters in it are Ollama's own; the model file carries its template
// itself.
import { TinferError } from "../core/errors.ts";
import type { PullPlan } from "./hugging-face.ts";
import { toNameSegment } from "./reference.ts";
import { type Access, fetchJson, type RetryPolicy } from "./request.ts";

export const defaultOllamaRegistry = "https://registry.ollama.ai";

const manifestType = "application/vnd.docker.distribution.manifest.v2+json";
const weightsType = "application/vnd.ollama.image.model";

interface Layer {
  mediaType: string;
  digest: string;
  size: number;
}

export async function planOllama(
  reference: { name: string; tag: string },
  registry: string,
  access: Access,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<PullPlan> {
  const { name, tag } = reference;
  const repository = name.includes("/") ? name : `library/${name}`;
  const address = `${registry}/v2/${repository}/manifests/${tag}`;
  const { value } = await fetchJson(address, { Accept: manifestType }, access, retry, signal);
  const layers = parseLayers(value);
  const weights = layers.filter((layer) => layer.mediaType === weightsType);
  const [layer] = weights;
  if (layer === undefined || weights.length > 1) {
    const count = layer === undefined ? "no weights" : `${weights.length} weight files`;
    throw new TinferError("unsupported", `ollama:${name}:${tag} has ${count} in its manifest`, {
      hint: "Pull the same model as GGUF with hf:user/repo.",
    });
  }
  const leftOut = layers
    .filter((other) => other !== layer)
    .map((other) => other.mediaType.slice(other.mediaType.lastIndexOf(".") + 1));
  return {
    name,
    tag,
    source: `ollama:${name}:${tag}`,
    files: [
      {
        fileName: `${toNameSegment(`${name}-${tag}`)}.gguf`,
        url: `${registry}/v2/${repository}/blobs/${layer.digest}`,
        bytes: layer.size,
        sha256: layer.digest.slice("sha256:".length),
      },
    ],
    note:
      leftOut.length > 0
        ? `the weights only; Ollama's own ${[...new Set(leftOut)].join(", ")} are left out`
        : undefined,
    sendsToken: false,
  };
}

function parseLayers(manifest: unknown): Layer[] {
  const { layers }: { layers?: unknown } = typeof manifest === "object" && manifest ? manifest : {};
  if (!Array.isArray(layers)) {
    throw new TinferError("network", "the registry's manifest has no list of layers");
  }
  return layers.filter((layer: Partial<Layer>): layer is Layer => {
    return (
      typeof layer?.mediaType === "string" &&
      /^sha256:[0-9a-f]{64}$/.test(String(layer.digest)) &&
      Number.isSafeInteger(layer.size)
    );
  });
}
