// Where the store keeps bytes: finished blobs under their SHA-256, and files that still grow.
import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

export interface RemoteFile {
  fileName: string;
  url: string;
  /** As published beside the file; undefined when nobody says. */
  bytes: number | undefined;
  sha256: string | undefined;
}

export interface ReceivedFile {
  sha256: string;
  bytes: number;
}

export function blobPath(folder: string, sha256: string): string {
  return join(folder, "blobs", `sha256-${sha256}`);
}

/** Where a file grows. With a published hash any address that offers it may go on with it. */
export function partialPath(folder: string, file: RemoteFile): string {
  const key =
    file.sha256 === undefined
      ? `url-${new Bun.CryptoHasher("sha256").update(file.url).digest("hex").slice(0, 32)}`
      : `sha256-${file.sha256}`;
  return join(folder, "partial", key);
}

/** The finished blob, if it is there with the right length. */
export function presentBlob(
  folder: string,
  sha256: string,
  expectedBytes: number | undefined,
): ReceivedFile | undefined {
  const path = blobPath(folder, sha256);
  if (!existsSync(path)) return undefined;
  const bytes = statSync(path).size;
  if (expectedBytes === undefined || expectedBytes === bytes) return { sha256, bytes };
  // Only a damaged disk or another program makes a blob of the wrong length.
  rmSync(path);
  return undefined;
}

export function partialBytes(folder: string, file: RemoteFile): number {
  const path = partialPath(folder, file);
  return existsSync(path) ? statSync(path).size : 0;
}
