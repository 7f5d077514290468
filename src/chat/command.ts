// What a /command is.
import type { Chat } from "./chat.ts";

/** What Tab offers for the argument of a command. */
export type ArgumentKind = "path" | "setting" | "template" | readonly string[];

export interface ChatCommand {
  /** Without the slash. */
  readonly name: string;
  readonly aliases?: readonly string[];
  /** As help shows it, e.g. "FILE". */
  readonly argument?: string;
  readonly summary: string;
  readonly completes?: ArgumentKind;
  run(chat: Chat, argument: string): void | Promise<void>;
}
