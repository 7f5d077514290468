// Requests of the model store: which addresses are allowed, where the access token may go,
// redirects, and what an answer's status means. The transfer itself is `download.ts`.
import { TinferError } from "../core/errors.ts";
import { httpGet } from "./http-get.ts";

export interface Access {
  /** Sent only to `tokenOrigin`, whatever redirects say. */
  token: string | undefined;
  tokenOrigin: string | undefined;
  fetch: typeof fetch | undefined;
}

/** A failure that another try may heal. */
export class TransferInterrupted extends Error {
  readonly retryAfterMs: number | undefined;
  constructor(message: string, retryAfterMs?: number, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.retryAfterMs = retryAfterMs;
  }
}

const maxRedirects = 10;
const redirectStatuses = [301, 302, 303, 307, 308];
const certificateProblem = /CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|ERR_TLS/;

/** GET that follows redirects itself, so that the token stays with the host it belongs to. */
export async function openUrl(
  address: string,
  extraHeaders: Record<string, string>,
  access: Access,
  signal: AbortSignal,
): Promise<{ response: Response; linkedSha256: string | undefined }> {
  let current = address;
  let linkedSha256: string | undefined;
  for (let redirects = 0; redirects <= maxRedirects; redirects++) {
    const url = allowedUrl(current);
    const headers: Record<string, string> = {
      "User-Agent": "tinfer",
      Accept: "*/*",
      // A compressed body would have other lengths and ranges than the file.
      "Accept-Encoding": "identity",
      ...extraHeaders,
    };
    if (access.token !== undefined && url.origin === access.tokenOrigin) {
      headers["Authorization"] = `Bearer ${access.token}`;
    }
    const response = await send(url, headers, access, signal);
    // Hugging Face names the hash of a large file in the answer that redirects to its storage.
    const linked = response.headers.get("x-linked-etag")?.replaceAll('"', "");
    if (linked !== undefined && /^[0-9a-f]{64}$/.test(linked)) linkedSha256 = linked;
    const location = response.headers.get("location");
    if (!redirectStatuses.includes(response.status) || location === null) {
      return { response, linkedSha256 };
    }
    await response.body?.cancel();
    current = new URL(location, url).href;
  }
  throw new TinferError("network", `${shown(address)} redirects more than ${maxRedirects} times`);
}

async function send(
  url: URL,
  headers: Record<string, string>,
  access: Access,
  signal: AbortSignal,
): Promise<Response> {
  try {
    if (access.fetch !== undefined) {
      return await access.fetch(url.href, { headers, signal, redirect: "manual" });
    }
    if (proxied(url)) return await fetch(url.href, { headers, signal, redirect: "manual" });
    return await httpGet(url.href, { headers, signal });
  } catch (error) {
    throw explainFailure(error, url);
  }
}

/** A proxy needs the built-in fetch, which reads the proxy's settings itself. */
function proxied(url: URL): boolean {
  if (isLoopback(url.hostname)) return false;
  const name = url.protocol === "https:" ? "https_proxy" : "http_proxy";
  return Boolean(process.env[name] ?? process.env[name.toUpperCase()]);
}

/** Which of the thrown things are worth another try; a wrong certificate does not heal. */
export function explainFailure(error: unknown, url: URL): unknown {
  if (error instanceof TinferError || error instanceof TransferInterrupted) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const text = error instanceof Error ? error.message : String(error);
  if (certificateProblem.test(code)) {
    return new TinferError("network", `${url.host}: the certificate is not trusted (${code})`, {
      hint: "Check the clock and any proxy; NODE_EXTRA_CA_CERTS names further root certificates.",
      cause: error,
    });
  }
  return new TransferInterrupted(`${url.host}: ${text}`, undefined, error);
}

export function allowedUrl(address: string): URL {
  const url = new URL(address);
  if (url.protocol === "https:") return url;
  if (url.protocol === "http:" && isLoopback(url.hostname)) return url;
  throw new TinferError("usage", `${shown(address)}: models are fetched over https only`, {
    hint: "Plain http is allowed only from this machine (localhost, 127.0.0.1).",
  });
}

function isLoopback(hostname: string): boolean {
  return (
    hostname === "localhost" ||
    hostname.endsWith(".localhost") ||
    hostname === "[::1]" ||
    /^127\.\d+\.\d+\.\d+$/.test(hostname)
  );
}

/** Throws what a status other than success means. */
export async function refuseStatus(response: Response, address: string): Promise<never> {
  const { status } = response;
  const said = response.headers.get("x-error-message") ?? "";
  await response.body?.cancel();
  const where = shown(address);
  const detail = said === "" ? "" : ` (${said})`;
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    const wait = retryAfterMs(response.headers.get("retry-after"));
    throw new TransferInterrupted(`${where}: the server answered ${status}${detail}`, wait);
  }
  if (status === 401 || status === 403) {
    throw new TinferError("network", `${where}: access denied (${status})${detail}`, {
      hint: "It is private, gated or absent. Accept its licence on its page, then set HF_TOKEN.",
    });
  }
  if (status === 404 || status === 410) {
    throw new TinferError("notFound", `${where}: not found (${status})${detail}`, {
      hint: "Check the spelling; names are case-sensitive.",
    });
  }
  throw new TinferError("network", `${where}: the server answered ${status}${detail}`);
}

/** Retry-After in seconds or as a date; a server that asks for hours is asked again sooner. */
function retryAfterMs(value: string | null): number | undefined {
  if (value === null) return undefined;
  const waitMs = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(waitMs) ? Math.min(Math.max(waitMs, 0), 60_000) : undefined;
}

/** An address for messages: the query may hold a signature. */
export function shown(address: string): string {
  const url = new URL(address);
  return `${url.origin}${url.pathname}`;
}

export interface RetryPolicy {
  /** Tries in a row that bring nothing new. */
  maxTries: number;
  firstDelayMs: number;
  /** A connection that brings nothing for so long counts as cut. */
  stallMs: number;
}

/** Eight tries without progress last about half a minute. */
export const defaultRetry: RetryPolicy = { maxTries: 8, firstDelayMs: 250, stallMs: 60_000 };

export function retryDelayMs(
  policy: RetryPolicy,
  tries: number,
  asked: number | undefined,
): number {
  return Math.max(asked ?? 0, Math.min(policy.firstDelayMs * 2 ** tries, 30_000));
}

/** Waits, or throws what the signal says. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

/** A small document, with the retries of a transfer; `next` is the address of a further page. */
export async function fetchJson(
  address: string,
  headers: Record<string, string>,
  access: Access,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<{ value: unknown; next: string | undefined }> {
  for (let tries = 0; ; tries++) {
    try {
      const limited = AbortSignal.any([signal, AbortSignal.timeout(retry.stallMs)]);
      const { response } = await openUrl(address, headers, access, limited);
      if (response.status !== 200) await refuseStatus(response, address);
      const text = await boundedText(response, address);
      const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "")?.[1];
      const next = link === undefined ? undefined : new URL(link, address).href;
      return { value: parseJson(text, address), next };
    } catch (error) {
      signal.throwIfAborted();
      const failure = explainFailure(error, new URL(address));
      if (!(failure instanceof TransferInterrupted)) throw failure;
      if (tries + 1 >= Math.min(4, retry.maxTries)) throw gaveUp(failure, tries + 1);
      await pause(retryDelayMs(retry, tries, failure.retryAfterMs), signal);
    }
  }
}

export function gaveUp(failure: TransferInterrupted, tries: number): TinferError {
  return new TinferError("network", `${failure.message} (gave up after ${tries} tries)`, {
    hint: "Check the connection and pull again: what has arrived is kept.",
    cause: failure,
  });
}

/** A listing of a thousand files is about 300 KiB; more than 16 MiB is not a listing. */
const maxDocumentBytes = 16 << 20;

async function boundedText(response: Response, address: string): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxDocumentBytes) {
      throw new TinferError("network", `${shown(address)}: the answer exceeds 16 MiB`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function parseJson(text: string, address: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TinferError("network", `${shown(address)}: the answer is not JSON`, { cause: error });
  }
}
