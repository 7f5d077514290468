// Loads libtinfer, checks its ABI version, and turns statuses into errors. Where the temporary
// folder cannot hold or run the embedded library, it is loaded from memory or the cache folder.
import { type CString, dlopen, type Pointer, ptr } from "bun:ffi";
import { existsSync, mkdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../core/cache-folder.ts";
import { type ErrorCode, TinferError } from "../core/errors.ts";
import { libraryPath } from "./library-path.ts";
import { abiVersion, symbols } from "./symbols.ts";

type Native = ReturnType<typeof dlopen<typeof symbols>>["symbols"];

export type { CString, Pointer };

interface LoadedLibrary {
  readonly functions: Native;
  /** Path of the file, or how it was loaded without one. */
  readonly origin: string;
}

let loaded: LoadedLibrary | undefined;

/** The library's functions; loaded at the first call. */
export function native(): Native {
  loaded ??= load();
  return loaded.functions;
}

/** Where the library came from, and the version of its interface. */
export function libraryOrigin(): { readonly origin: string; readonly abiVersion: number } {
  loaded ??= load();
  return { origin: loaded.origin, abiVersion };
}

function load(): LoadedLibrary {
  const failures: string[] = [];
  for (const attempt of [openInPlace, openFromMemory, openFromCacheFolder]) {
    try {
      const library = attempt();
      if (library.functions.tinfer_abi_version() === abiVersion) return library;
      failures.push("the library has another ABI version; run `npm run setup`");
    } catch (error) {
      failures.push(`${attempt.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new TinferError("native", `the native library cannot be loaded\n${failures.join("\n")}`, {
    hint: "set TMPDIR to a writable folder that is not mounted noexec",
  });
}

/** From where Bun put it: the build folder, or a temporary file of the compiled binary. */
function openInPlace(): LoadedLibrary {
  return { functions: dlopen(libraryPath, symbols).symbols, origin: libraryPath };
}

/** Linux: an anonymous file in memory needs no folder at all. */
function openFromMemory(): LoadedLibrary {
  if (process.platform !== "linux") throw new Error("only on Linux");
  const memfdType = { memfd_create: { args: ["ptr", "u32"], returns: "i32" } } as const;
  const libc = ["libc.so.6", "libc.so"].map((name) => () => dlopen(name, memfdType).symbols);
  const create = firstThatWorks(libc);
  const closeOnExec = 1;
  const fd = create.memfd_create(ptr(Buffer.from("libtinfer\0")), closeOnExec);
  if (fd < 0) throw new Error("memfd_create failed");
  const bytes = readFileSync(libraryPath);
  for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
  const functions = dlopen(`/proc/self/fd/${fd}`, symbols).symbols;
  return { functions, origin: "memory (the temporary folder cannot hold or run it)" };
}

function openFromCacheFolder(): LoadedLibrary {
  const folder = cacheFolder();
  mkdirSync(folder, { recursive: true });
  const bytes = readFileSync(libraryPath);
  const path = join(folder, `libtinfer-${Bun.hash(bytes).toString(16)}.so`);
  if (!existsSync(path)) writeFileSync(path, bytes);
  return { functions: dlopen(path, symbols).symbols, origin: path };
}

function firstThatWorks<T>(attempts: readonly (() => T)[]): T {
  let last: unknown;
  for (const attempt of attempts) {
    try {
      return attempt();
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** `Status.stopped` of kernels/abi.zig: a step was cancelled on its way; `check` never sees it. */
export const stoppedStatus = 7;

/** The other values of `Status`, by number. */
const codes: readonly ErrorCode[] = [
  "native",
  "native",
  "outOfMemory",
  "notFound",
  "unreadable",
  "native",
  "unsupported",
];

/** Throws the library's last error, prefixed by `what`, unless `status` is ok. */
export function check(status: number, what: string, hint?: string): void {
  if (status === 0) return;
  const buffer = new Uint8Array(512);
  const length = native().tinfer_last_error(ptr(buffer), buffer.length);
  const text = new TextDecoder().decode(buffer.subarray(0, length));
  const options = hint === undefined ? {} : { hint };
  throw new TinferError(codes[status] ?? "native", `${what}: ${text}`, options);
}
