// The running chat is written after every turn, so that no crash loses a finished one; the newest
// chats are kept and can be taken up again.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseSavedChat, readText, type SavedChat, writeSavedChat } from "./session-file.ts";

/** Chats kept on disk; older ones are removed when a new one is first saved. */
export const maxKeptChats = 100;

/** Where chats and input history are: `$XDG_STATE_HOME/tinfer` or `~/.local/state/tinfer`. */
export function stateFolder(env: Readonly<Record<string, string | undefined>>): string {
  const home = env["HOME"] || homedir();
  return join(env["XDG_STATE_HOME"] || join(home, ".local", "state"), "tinfer");
}

export interface FoundChat {
  readonly path: string;
  /** What the file held. */
  readonly text: string;
  readonly chat: SavedChat;
}

export class Autosave {
  readonly #folder: string;
  readonly #startsFiles: boolean;
  #path: string | undefined;
  /** What the file holds, as far as this chat knows. */
  #text: string | undefined;

  /** `startsFiles`: false saves only a chat that was taken up, and no new one. */
  constructor(folder: string, { startsFiles = true } = {}) {
    this.#folder = join(folder, "chats");
    this.#startsFiles = startsFiles;
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
        const text = readText(path);
        return { path, text, chat: parseSavedChat(text, path) };
      } catch {
        // A damaged file must not stand between a person and the chat before it.
      }
    }
    return undefined;
  }

  /** Further saves go to this file. */
  continueAt({ path, text }: FoundChat): void {
    this.#path = path;
    this.#text = text;
  }

  /** The next save starts a new file. */
  startNew(): void {
    this.#path = undefined;
  }

  /** True: another chat goes on in the file, and this one has a new one from now on. */
  save(chat: SavedChat): boolean {
    const isTaken = this.#isTaken();
    if (isTaken) this.startNew();
    if (chat.messages.length === 0) {
      // A chat that nothing is said in is none to take up.
      if (this.#path !== undefined) rmSync(this.#path, { force: true });
    } else if (this.#path !== undefined || this.#startsFiles || isTaken) {
      this.#path ??= this.#newPath();
      this.#text = writeSavedChat(this.#path, chat);
    }
    return isTaken;
  }

  #isTaken(): boolean {
    const path = this.#path;
    return path !== undefined && existsSync(path) && readFileSync(path, "utf8") !== this.#text;
  }

  /** Makes room for a new chat. */
  #newPath(): string {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const old = this.#saved();
    for (const name of old.slice(0, Math.max(0, old.length - maxKeptChats + 1))) {
      rmSync(join(this.#folder, name), { force: true });
    }
    const time = new Date().toISOString().replaceAll(/[:.]/g, "-");
    return join(this.#folder, `${time}-${process.pid}.json`);
  }
}
