// Commands that write and read a chat as a file: /save and /load.
import { homedir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import type { Chat } from "./chat.ts";
import type { ChatCommand } from "./command.ts";
import { checkOverwrite, readSavedChat, type SavedChat, writeSavedChat } from "./session-file.ts";

export const fileCommands: readonly ChatCommand[] = [
  {
    name: "save",
    argument: "FILE",
    summary: "write messages and settings as JSON",
    completes: "path",
    run: saveCommand,
  },
  {
    name: "load",
    argument: "[FILE]",
    summary: "take a saved chat up; without FILE the last one",
    completes: "path",
    run: loadCommand,
  },
];

/** `~/` is the home folder, as in a shell. */
export function expandHome(path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}

function saveCommand(chat: Chat, argument: string): void {
  if (argument === "") {
    throw new TinferError("usage", "/save lacks the name of a file", { hint: "/save chat.json" });
  }
  const path = expandHome(argument);
  checkOverwrite(path);
  writeSavedChat(path, chat.saved());
  chat.terminal.note(`saved ${chat.session.messages.length} messages to ${path}`);
}

function loadCommand(chat: Chat, argument: string): void {
  if (argument !== "") {
    takeUp(chat, readSavedChat(expandHome(argument)));
    // The file is the person's: what follows is saved apart from it.
    chat.autosave?.startNew();
    return;
  }
  const latest = chat.autosave?.latest();
  if (latest === undefined) {
    throw new TinferError("notFound", "there is no earlier chat", { hint: "/load FILE reads one" });
  }
  takeUp(chat, latest.chat);
  chat.autosave?.continueAt(latest);
}

/** Makes a saved chat the running one; throws, with nothing changed, where it does not render. */
export function takeUp(chat: Chat, saved: SavedChat): void {
  const { session, terminal } = chat;
  const old = { model: session.model, settings: session.settings, messages: session.messages };
  try {
    session.model = chat.sessionModel(chat.model, saved.settings.template);
    session.settings = saved.settings;
    session.replaceMessages(saved.messages);
    if (saved.messages.length > 0) session.render();
  } catch (error) {
    session.model = old.model;
    session.settings = old.settings;
    session.replaceMessages(old.messages);
    throw error;
  }
  const { maxContextLen } = session.model.context;
  const length = session.promptLen();
  terminal.note(`took up ${saved.messages.length} messages, ${length} of ${maxContextLen} tokens`);
  if (saved.model !== chat.model.argument) {
    terminal.note(`it was held with ${saved.model ?? "the built-in model"}`);
  }
  if (length >= maxContextLen) {
    terminal.note("that does not fit the context: /undo takes a turn back, /clear starts anew");
  }
  if (saved.messages.at(-1)?.role === "user") {
    terminal.note("the last message has no answer yet: /retry asks for it");
  }
}
