// Commands on the conversation itself: /clear /retry /undo /context.
import { TinferError } from "../core/errors.ts";
import type { Chat } from "./chat.ts";
import type { ChatCommand } from "./command.ts";
import { type ContextUse, contentText } from "./session.ts";

export const conversationCommands: readonly ChatCommand[] = [
  {
    name: "clear",
    aliases: ["reset", "new"],
    summary: "start anew; settings and system message stay",
    run: clear,
  },
  {
    name: "retry",
    aliases: ["regen"],
    summary: "another answer to the last message",
    run: retry,
  },
  {
    name: "undo",
    summary: "take the last message and its answer back",
    run: undo,
  },
  {
    name: "context",
    summary: "tokens per message, and how many are free",
    run: ({ session, terminal }) => terminal.print(contextText(session.contextUse())),
  },
];

function clear(chat: Chat): void {
  const count = chat.session.messages.length;
  chat.session.replaceMessages([]);
  // What was said stays on disk as a chat of its own.
  chat.autosave?.startNew();
  chat.terminal.note(count === 0 ? "nothing to clear" : `cleared ${count} messages`);
}

async function retry(chat: Chat): Promise<void> {
  const { session, terminal } = chat;
  const old = session.dropAnswer();
  if (old === undefined) {
    throw new TinferError("usage", "there is no message to answer again", {
      hint: "send one first",
    });
  }
  const { temperature, seed } = session.settings.sampling;
  if (old.length > 0 && temperature === 0) terminal.note("temperature 0 gives the same answer");
  else if (old.length > 0 && seed !== undefined) {
    terminal.note("the seed is fixed, so the answer will be the same; /seed off gives new ones");
  }
  try {
    if (!(await chat.answer()) && old.length > 0)
      terminal.note("stopped; the earlier answer stays");
  } finally {
    if (!session.isAnswered) session.restore(old);
  }
}

function undo(chat: Chat): void {
  const taken = chat.session.undo();
  const [message] = taken;
  if (message === undefined) {
    throw new TinferError("usage", "there is no message to take back");
  }
  chat.save();
  chat.terminal.note(`taken back: ${excerpt(contentText(message), 60)}`);
}

/** The beginning of a text on one line. */
export function excerpt(text: string, length: number): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  const characters = [...line];
  return characters.length <= length ? line : `${characters.slice(0, length - 1).join("")}…`;
}

function contextText(use: ContextUse): string {
  const { promptTokens, maxContextLen, messages, templateTokens } = use;
  const row = (tokens: number, name: string, text = "") =>
    `${String(tokens).padStart(7)}  ${name.padEnd(10)} ${text}`.trimEnd();
  const lines = messages.map(({ role, tokens, text }) => row(tokens, role, excerpt(text, 56)));
  if (messages.length > 0)
    lines.push(row(templateTokens, "template", "what surrounds the messages"));
  const percent = ((100 * promptTokens) / maxContextLen).toFixed(0);
  lines.push(
    row(promptTokens, "used", `${percent}% of ${maxContextLen}`),
    row(Math.max(0, maxContextLen - promptTokens), "free", "for your next message and its answer"),
  );
  if (promptTokens >= maxContextLen) {
    lines.push("the conversation no longer fits: /undo takes a turn back, /clear starts anew");
  }
  return lines.join("\n");
}
