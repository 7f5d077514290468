// Drives `tinfer chat` in a pseudo-terminal as a person would: types, waits for what appears.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const mainFile = join(import.meta.dir, "..", "..", "src", "main.ts");

/** Shared machines are slow at times; nothing here waits this long when all is well. */
const patienceMs = 30_000;

export function newFolder(): string {
  return mkdtempSync(join(tmpdir(), "tinfer-chat-"));
}

/** The environment of a chat whose state is in `folder`, with nothing of the tester's own. */
export function chatEnvironment(folder: string): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "",
    HOME: folder,
    XDG_STATE_HOME: folder,
    TERM: "xterm-256color",
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one.
const escapes = /\x1b\[[0-9;?]*[A-Za-z]/g;

export class ChatPty implements Disposable {
  readonly process: Bun.Subprocess;
  readonly folder: string;
  readonly #terminal: Bun.Terminal;
  readonly #decoder = new TextDecoder();
  #raw = "";
  #seen = 0;

  constructor(
    args: readonly string[],
    environment: Record<string, string>,
    program: readonly string[] = [mainFile, "chat"],
  ) {
    this.folder = environment["HOME"]!;
    this.#terminal = new Bun.Terminal({
      cols: 100,
      rows: 40,
      data: (_, bytes) => {
        this.#raw += this.#decoder.decode(bytes, { stream: true });
      },
    });
    this.process = Bun.spawn([process.execPath, ...program, ...args], {
      terminal: this.#terminal,
      env: environment,
      cwd: this.folder,
    });
  }

  /** All output so far, with its escape sequences. */
  get raw(): string {
    return this.#raw;
  }
  /** All output so far, as text. */
  get text(): string {
    return this.#raw.replaceAll(escapes, "").replaceAll("\r\n", "\n");
  }

  type(keys: string): void {
    this.#terminal.write(keys);
  }

  /** Waits until `wanted` appears after what was waited for before; returns the text up to it. */
  async waitFor(wanted: string | RegExp): Promise<string> {
    const pattern = typeof wanted === "string" ? new RegExp(RegExp.escape(wanted)) : wanted;
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const fresh = this.text.slice(this.#seen);
      const match = pattern.exec(fresh);
      if (match !== null) {
        this.#seen += match.index + match[0].length;
        return fresh.slice(0, match.index + match[0].length);
      }
      if (performance.now() > deadline || this.process.exitCode !== null) {
        throw new Error(`${pattern} never appeared in:\n${fresh}`);
      }
      await Bun.sleep(10);
    }
  }

  /** Closes the terminal, as closing its window does. */
  hangUp(): void {
    this.#terminal.close();
  }

  [Symbol.dispose](): void {
    this.process.kill("SIGKILL");
    if (!this.#terminal.closed) this.#terminal.close();
  }
}
