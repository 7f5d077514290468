// Where tinfer keeps what it can make again: the folder of the user's caches.
import { homedir } from "node:os";
import { join, resolve } from "node:path";

export function cacheFolder(env: Record<string, string | undefined> = process.env): string {
  // Who moves tinfer's home moves everything it writes.
  const chosen = env["TINFER_HOME"];
  if (chosen) return join(resolve(chosen), "cache");
  return join(env["XDG_CACHE_HOME"] || join(env["HOME"] || homedir(), ".cache"), "tinfer");
}
