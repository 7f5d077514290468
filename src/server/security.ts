// Who may ask: the Host header against DNS rebinding, the Origin header against other web pages,
// and the API key.
import { createHash, timingSafeEqual } from "node:crypto";
import { RequestError } from "./request-error.ts";

/** Addresses and names of this machine that no DNS server outside can point here. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, "").toLowerCase();
  return name === "localhost" || name === "::1" || /^127(\.\d{1,3}){3}$/.test(name);
}

/** The name in a Host header, without its port. */
function hostName(header: string): string {
  return header.replace(/:\d+$/, "");
}

/**
 * A page of another site can make its name resolve to 127.0.0.1; the browser then sends that
 * name as Host. A server that listens on loopback answers to loopback names only.
 */
export function checkHost(headers: Headers, listeningHost: string): void {
  if (!isLoopback(listeningHost)) return;
  const given = headers.get("Host") ?? "";
  if (isLoopback(hostName(given))) return;
  throw new RequestError(403, `the Host '${given}' is not a name of this server`, {
    code: "wrong_host",
    hint: "use http://127.0.0.1 or http://localhost, or start with --host and an API key",
  });
}

/** The value of Access-Control-Allow-Origin, or undefined when the request comes from no page. */
export function checkOrigin(headers: Headers, allowed: readonly string[]): string | undefined {
  const origin = headers.get("Origin");
  if (origin === null) return undefined;
  const host = headers.get("Host") ?? "";
  if (origin === `http://${host}` || origin === `https://${host}`) return undefined;
  if (allowed.includes("*")) return "*";
  if (allowed.includes(origin)) return origin;
  throw new RequestError(403, `pages of ${origin} may not use this server`, {
    code: "wrong_origin",
    hint: `the operator can allow them with --cors-origin ${origin}`,
  });
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Compares hashes, so that neither length nor content of a key shows in the time taken. */
function isKey(given: string, keys: readonly string[]): boolean {
  const hash = digest(given);
  let found = false;
  for (const key of keys) found = timingSafeEqual(digest(key), hash) || found;
  return found;
}

export function checkApiKey(headers: Headers, keys: readonly string[]): void {
  if (keys.length === 0) return;
  const bearer = /^Bearer +(.+)$/i.exec(headers.get("Authorization") ?? "")?.[1];
  const given = bearer ?? headers.get("X-Api-Key") ?? undefined;
  if (given !== undefined && isKey(given.trim(), keys)) return;
  const problem = given === undefined ? "this server needs an API key" : "the API key is wrong";
  throw new RequestError(401, problem, {
    code: "invalid_api_key",
    hint: "send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
  });
}
