// Commands that change how the model answers: /settings, /set and its short forms, /system,
// /thinking, /template. A change that does not work leaves everything as it was.
import { TinferError } from "../core/errors.ts";
import type { Chat } from "./chat.ts";
import type { ChatCommand } from "./command.ts";
import { excerpt } from "./conversation-commands.ts";
import {
  type ChatSettings,
  defaultChatSettings,
  type SettingKey,
  settingKey,
  settingKeys,
  type Thinking,
} from "./settings.ts";

const shortForms = ["temperature", "top-k", "top-p", "min-p", "max-tokens", "seed"];

export const settingCommands: readonly ChatCommand[] = [
  { name: "settings", summary: "all settings and their values", run: showSettings },
  {
    name: "set",
    argument: "KEY VALUE",
    summary: "change a setting; VALUE default resets it",
    completes: "setting",
    run: setCommand,
  },
  ...shortForms.map((name) => {
    const key = settingKey(name);
    return {
      name,
      argument: "VALUE",
      summary: key.meaning,
      run: (chat: Chat, value: string) => changeOrShow(chat, key, value),
    };
  }),
  {
    name: "system",
    argument: "TEXT|off",
    summary: "what the model is told first",
    completes: ["off"],
    run: systemCommand,
  },
  {
    name: "thinking",
    argument: "on|off|show|hide",
    summary: "whether the model thinks, and whether you see it",
    completes: ["on", "off", "auto", "show", "hide"],
    run: thinkingCommand,
  },
  {
    name: "template",
    argument: "NAME|FILE|auto",
    summary: "the chat template; auto: the model's own",
    completes: "template",
    run: templateCommand,
  },
];

function showSettings({ session, terminal }: Chat): void {
  const { settings } = session;
  const rows = settingKeys.map(({ name, meaning, show }) => {
    const value = show(settings);
    const changed = value !== show(defaultChatSettings);
    return { name, value, meaning, changed };
  });
  const shown = settings.showThinking ? "shown" : "hidden";
  const others = [
    ["system", settings.system === undefined ? "off" : excerpt(settings.system, 60)],
    ["thinking", `${settings.thinking}, ${shown}`],
    ["template", settings.template ?? "auto"],
  ] as const;
  const lines = rows.map(({ name, value, meaning, changed }) => {
    const padded = value.padEnd(8);
    return `  ${name.padEnd(18)} ${changed ? terminal.bold(padded) : padded} ${terminal.dim(meaning)}`;
  });
  for (const [name, value] of others) lines.push(`  ${name.padEnd(18)} ${value}`);
  terminal.print(lines.join("\n"));
}

async function setCommand(chat: Chat, argument: string): Promise<void> {
  const [, name = "", value = ""] = /^(\S*)\s*([\s\S]*)$/.exec(argument) ?? [];
  if (name === "") return showSettings(chat);
  const own = settingCommands.find((command) => command.name === name.toLowerCase());
  if (own !== undefined && !["settings", "set"].includes(own.name)) return own.run(chat, value);
  changeOrShow(chat, settingKey(name), value);
}

function changeOrShow({ session, terminal }: Chat, key: SettingKey, value: string): void {
  if (value !== "") session.settings = key.change(session.settings, value);
  terminal.note(`${key.name} is ${key.show(session.settings)}`);
}

/** Takes the settings over when the template renders the conversation with them. */
function tryRendering({ session }: Chat, settings: ChatSettings): void {
  const old = session.settings;
  session.settings = settings;
  try {
    const messages = session.allMessages();
    const hasUser = messages.some(({ role }) => role === "user");
    session.render(hasUser ? messages : [...messages, { role: "user", content: "Hello" }]);
  } catch (error) {
    session.settings = old;
    throw error;
  }
}

function systemCommand(chat: Chat, argument: string): void {
  const { session, terminal } = chat;
  if (argument !== "") {
    const system = argument === "off" ? undefined : argument;
    tryRendering(chat, { ...session.settings, system });
    sayCost(chat);
  }
  const { system } = session.settings;
  terminal.note(system === undefined ? "there is no system message" : `system: ${system}`);
}

/** Whether the template lets thinking be switched. */
function canSwitchThinking(templateSource: string): boolean {
  const conditions = /\bthinking\s+(is|if|else|and|or|%\})|\b(if|not|and|or)\s+thinking\b/;
  return /\benable_thinking\b/.test(templateSource) || conditions.test(templateSource);
}

function thinkingCommand(chat: Chat, argument: string): void {
  const { session, terminal } = chat;
  const { settings } = session;
  if (argument === "show" || argument === "hide") {
    session.settings = { ...settings, showThinking: argument === "show" };
  } else if (["on", "off", "auto"].includes(argument)) {
    if (argument !== "auto" && !canSwitchThinking(session.model.prompt.template.source)) {
      throw new TinferError("unsupported", "the model's chat template has no switch for thinking", {
        hint: "/thinking hide hides what it thinks",
      });
    }
    tryRendering(chat, { ...settings, thinking: argument as Thinking });
  } else if (argument !== "") {
    throw new TinferError("usage", `/thinking takes on, off, auto, show or hide`);
  }
  const { thinking, showThinking } = session.settings;
  terminal.note(`thinking is ${thinking} and ${showThinking ? "shown" : "hidden"}`);
}

function templateCommand(chat: Chat, argument: string): void {
  const { session, terminal } = chat;
  if (argument !== "") {
    const template = argument === "auto" ? undefined : argument;
    const old = session.model;
    session.model = chat.sessionModel(chat.model, template);
    try {
      tryRendering(chat, { ...session.settings, template });
    } catch (error) {
      session.model = old;
      throw error;
    }
    sayCost(chat);
  }
  terminal.note(`template is ${session.settings.template ?? "auto"}`);
}

/** The conversation is read again with the next message: says how much that is. */
export function sayCost({ session, terminal }: Chat): void {
  if (session.messages.length === 0) return;
  const { maxContextLen } = session.model.context;
  const length = session.promptLen();
  if (length < maxContextLen) {
    terminal.note(`the conversation is now ${length} tokens, read again with your next message`);
    return;
  }
  terminal.note(
    `the conversation is now ${length} tokens and the context holds ${maxContextLen}: ` +
      "/undo takes a turn back, /clear starts anew",
  );
}
