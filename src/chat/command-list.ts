// All /commands, and how a line is recognised as one. A new command is one entry in its group.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { ChatCommand } from "./command.ts";
import { conversationCommands } from "./conversation-commands.ts";
import { fileCommands } from "./file-commands.ts";
import { modelCommands } from "./model-commands.ts";
import { settingCommands } from "./setting-commands.ts";
import type { ChatTerminal } from "./terminal.ts";

export interface CommandGroup {
  readonly title: string;
  readonly commands: readonly ChatCommand[];
}

const help: ChatCommand = {
  name: "help",
  aliases: ["?"],
  summary: "this list",
  run: ({ terminal }) => terminal.print(helpText(terminal)),
};

const quit: ChatCommand = {
  name: "quit",
  aliases: ["exit", "q", "bye"],
  summary: "leave; the chat is kept",
  run: (chat) => chat.leave(),
};

const commandGroups: readonly CommandGroup[] = [
  { title: "Conversation", commands: conversationCommands },
  { title: "Settings", commands: settingCommands },
  { title: "Model", commands: modelCommands },
  { title: "Files", commands: fileCommands },
  { title: "More", commands: [help, quit] },
];

export const allCommands: readonly ChatCommand[] = commandGroups.flatMap(
  ({ commands }) => commands,
);

export interface FoundCommand {
  readonly command: ChatCommand;
  readonly argument: string;
}

/**
 * The command that `text` calls, or undefined when it is a message. A path such as /etc/hosts, or
 * a slash after a space, begins a message. Throws on a command that does not exist, or that is
 * given an argument it would not look at.
 */
export function findCommand(text: string): FoundCommand | undefined {
  const match = /^\/([a-z?][a-z0-9_?-]*)(?:\s+([\s\S]*))?$/i.exec(text);
  if (match === null) return undefined;
  const name = match[1]!.toLowerCase().replaceAll("_", "-");
  const command = allCommands.find((c) => c.name === name || c.aliases?.includes(name));
  if (command !== undefined) {
    const argument = (match[2] ?? "").trim();
    if (argument === "" || command.argument !== undefined) return { command, argument };
    throw new TinferError("usage", `/${match[1]} takes no argument`, { hint: asMessage });
  }
  const names = allCommands.flatMap((c) => [c.name, ...(c.aliases ?? [])]);
  const nearest = nearestCommand(name, names);
  const suggestion = nearest === undefined ? "/help lists them" : `did you mean /${nearest}?`;
  throw new TinferError("usage", `there is no command /${match[1]}`, {
    hint: `${suggestion} (${asMessage})`,
  });
}

const asMessage = "to send it as a message, put a space in front";

/** The command that begins like this, else the nearest by letters. */
function nearestCommand(name: string, names: readonly string[]): string | undefined {
  const commonLen = (other: string) => {
    const end = [...other].findIndex((letter, index) => letter !== name[index]);
    return end < 0 ? other.length : end;
  };
  // Among equally near ones the first wins: the one with the longest common beginning.
  const sorted = names.toSorted((a, b) => commonLen(b) - commonLen(a));
  return sorted.find((other) => other.startsWith(name)) ?? nearestMatch(name, sorted);
}

export function helpText(style: Pick<ChatTerminal, "bold" | "dim">): string {
  const lines: string[] = [];
  for (const { title, commands } of commandGroups) {
    if (lines.length > 0) lines.push("");
    lines.push(style.bold(title));
    for (const { name, aliases = [], argument = "", summary } of commands) {
      const also = aliases.map((alias) => `/${alias}`);
      const usage = [`/${name}`, ...also, argument].filter((part) => part !== "").join(" ");
      lines.push(`  ${usage.padEnd(usageLen)} ${style.dim(summary)}`);
    }
  }
  lines.push("", style.bold("Keys"));
  for (const [keys, meaning] of keyHelp)
    lines.push(`  ${keys.padEnd(usageLen)} ${style.dim(meaning)}`);
  return lines.join("\n");
}

/** Room for the longest usage; with its meaning a line fits 80 columns. */
const usageLen = 28;

const keyHelp = [
  ['"""', "begins and ends a message of many lines"],
  ["Alt-Enter", "a new line in the message"],
  ["Up, Down", "earlier messages, also of other days"],
  ["Tab", "completes commands, settings and paths"],
  ["Ctrl-C", "stops the answer, clears the line; twice leaves"],
  ["Ctrl-D", "leaves"],
] as const;
