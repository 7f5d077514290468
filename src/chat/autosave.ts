// The running chat is written after every turn, so that no crash loses a finished one; the newest
// chats are kept and can be taken up again.
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { readSavedChat, type SavedChat, writeSavedChat } from "./session-file.ts";

/** Chats kept on disk; older ones are removed when a new one is first saved. */
const maxKept = 100;

/** Where chats and input history are: `$XDG_STATE_HOME/tinfer` or `~/.local/state/tinfer`. */
export function stateFolder(env: Readonly<Record<string, string | undefined>>): string {
  const home = env["HOME"] || homedir();
  return join(env["XDG_STATE_HOME"] || join(home, ".local", "state"), "tinfer");
}

export interface FoundChat {
  readonly path: string;
  readonly chat: SavedChat;
}

export class Autosave {
  readonly #folder: string;
  #path: string | undefined;

  constructor(folder: string) {
    this.#folder = join(folder, "chats");
  }

  /** Names sort by time. */
  #saved(): string[] {
    try {
      return readdirSync(this.#folder)
        .filter((name) => name.endsWith(".json"))
        .sort();
    } catch {
      return []; // No chat was ever saved.
    }
  }

  /** The newest chat that can be read, other than the running one. */
  latest(): FoundChat | undefined {
    for (const name of this.#saved().reverse()) {
      const path = join(this.#folder, name);
      if (path === this.#path) continue;
      try {
        return { path, chat: readSavedChat(path) };
      } catch {
        // A damaged file must not stand between a person and the chat before it.
      }
    }
    return undefined;
  }

  /** Further saves go to this file. */
  continueAt(path: string): void {
    this.#path = path;
  }

  /** The next save starts a new file. */
  startNew(): void {
    this.#path = undefined;
  }

  save(chat: SavedChat): void {
    if (this.#path === undefined) {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      const old = this.#saved();
      for (const name of old.slice(0, Math.max(0, old.length - maxKept + 1))) {
        rmSync(join(this.#folder, name), { force: true });
      }
      const time = new Date().toISOString().replaceAll(/[:.]/g, "-");
      this.#path = join(this.#folder, `${time}-${process.pid}.json`);
    }
    writeSavedChat(this.#path, chat);
  }
}
