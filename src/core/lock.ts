// Locks between processes as small files: who holds it stands in the file, and the lock of a
// process that has died is taken over. No file-system locking is needed, so it works on network
// folders too.
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { TinferError } from "./errors.ts";

export interface LockOwner {
  pid: number;
  host: string;
  /** Kernel start time of the process where it can be read: process ids are reused. */
  startedAt: string;
}

export interface FileLock extends Disposable {
  /** Says that its owner lives, to other machines: long synchronous work calls it now and then. */
  refresh(): void;
}

/**
 * A lock of another machine counts as left behind when its owner has not touched it for so long.
 */
const silentMs = 5 * 60_000;
const heartbeatMs = 30_000;
/** Taking over is a few file operations; a guard older than this belongs to a process that died. */
const guardMs = 10_000;

/** The lock, or its present owner. */
export function tryLock(path: string): FileLock | LockOwner {
  mkdirSync(dirname(path), { recursive: true });
  for (let attempt = 0; attempt < 3; attempt++) {
    if (createLockFile(path)) return heldLock(path);
    const owner = readOwner(path);
    if (owner !== undefined && isAlive(owner, path)) return owner;
    if (!removeLeftLock(path)) break;
  }
  return readOwner(path) ?? { pid: 0, host: "", startedAt: "" };
}

export function isLock(result: FileLock | LockOwner): result is FileLock {
  return Symbol.dispose in result;
}

/** For short sections in synchronous code: waits up to five seconds. */
export function lockNow(path: string): FileLock {
  for (const end = Date.now() + 5_000; ; Bun.sleepSync(10)) {
    const result = tryLock(path);
    if (isLock(result)) return result;
    if (Date.now() > end) {
      throw new TinferError("overloaded", `${describeOwner(result)} keeps ${path}`, {
        hint: `Wait for it, or delete ${path} when no tinfer is running.`,
      });
    }
  }
}

export function describeOwner(owner: LockOwner): string {
  return owner.host === hostname()
    ? `process ${owner.pid}`
    : `process ${owner.pid} on ${owner.host}`;
}

function heldLock(path: string): FileLock {
  const refresh = () => {
    try {
      utimesSync(path, new Date(), new Date());
    } catch {
      // The folder was removed under us; the write that follows will say so.
    }
  };
  const heartbeat = setInterval(refresh, heartbeatMs);
  heartbeat.unref();
  return {
    refresh,
    [Symbol.dispose]() {
      clearInterval(heartbeat);
      rmSync(path, { force: true });
    },
  };
}

/** The file appears with its content or not at all, so that nobody reads a lock without owner. */
function createLockFile(path: string): boolean {
  const owner: LockOwner = { pid: process.pid, host: hostname(), startedAt: startOf(process.pid) };
  const draft = `${path}.${process.pid}.${crypto.randomUUID()}`;
  writeFileSync(draft, JSON.stringify(owner));
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    return createExclusively(path, owner);
  } finally {
    rmSync(draft, { force: true });
  }
}

/** For file systems without hard links. */
function createExclusively(path: string, owner: LockOwner): boolean {
  try {
    writeFileSync(path, JSON.stringify(owner), { flag: "wx" });
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** One process at a time may remove a left lock: else two would, the second a living one's. */
function removeLeftLock(path: string): boolean {
  const guard = `${path}.takeover`;
  try {
    closeSync(openSync(guard, "wx"));
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    if (ageMs(guard) > guardMs) rmSync(guard, { force: true });
    return false;
  }
  try {
    const owner = readOwner(path);
    if (owner === undefined ? ageMs(path) > guardMs : !isAlive(owner, path)) {
      rmSync(path, { force: true });
    }
    return !existsSync(path);
  } finally {
    rmSync(guard, { force: true });
  }
}

function readOwner(path: string): LockOwner | undefined {
  try {
    const owner: Partial<LockOwner> = JSON.parse(readFileSync(path, "utf8"));
    if (typeof owner.pid !== "number" || typeof owner.host !== "string") return undefined;
    return { pid: owner.pid, host: owner.host, startedAt: owner.startedAt ?? "" };
  } catch {
    return undefined;
  }
}

function isAlive(owner: LockOwner, path: string): boolean {
  if (owner.host !== hostname()) return ageMs(path) < silentMs;
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if (codeOf(error) === "ESRCH") return false;
  }
  const startedAt = startOf(owner.pid);
  return startedAt === "" || owner.startedAt === "" || startedAt === owner.startedAt;
}

/** Field 22 of /proc/PID/stat on Linux, counted after the name, which may hold blanks; else "". */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

function ageMs(path: string): number {
  try {
    return Date.now() - statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}
