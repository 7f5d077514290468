// How typed text becomes messages, commands and completions; files of a chat; word wrap.
import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allCommands, findCommand } from "../../src/chat/command-list.ts";
import { completeLine } from "../../src/chat/completion.ts";
import { InputHistory } from "../../src/chat/input-history.ts";
import { MessageReader } from "../../src/chat/message-reader.ts";
import { formatSavedChat, parseSavedChat, type SavedChat } from "../../src/chat/session-file.ts";
import { defaultChatSettings } from "../../src/chat/settings.ts";
import { type InputPart, LongTexts, PasteFilter } from "../../src/cli/bracketed-paste.ts";
import { WordWrap } from "../../src/cli/word-wrap.ts";

const newFolder = () => mkdtempSync(join(tmpdir(), "tinfer-chat-unit-"));

describe("commands", () => {
  test("names, aliases, capitals and arguments", () => {
    expect(findCommand("/exit")?.command.name).toBe("quit");
    expect(findCommand("/REGEN")?.command.name).toBe("retry");
    expect(findCommand("/top_k  5 ")).toMatchObject({ argument: "5" });
    expect(findCommand("/system two\nlines")).toMatchObject({ argument: "two\nlines" });
  });

  test("paths, spaces and other text are messages", () => {
    for (const text of ["/etc/hosts is what?", " /help", "help", "/", "// comment", "/4"]) {
      expect(findCommand(text)).toBeUndefined();
    }
  });

  test("unknown commands name the nearest", () => {
    expect(() => findCommand("/hlep")).toThrow("there is no command /hlep");
    const hint = (text: string) => {
      try {
        return findCommand(text) && "";
      } catch (error) {
        return (error as { hint: string }).hint;
      }
    };
    expect(hint("/cont")).toContain("did you mean /context?");
    expect(hint("/stta")).toContain("did you mean /stats?");
    expect(hint("/xylophonist")).toContain("/help lists them");
  });

  test("an argument that nobody looks at is refused", () => {
    for (const text of ["/undo 3", "/clear x", "/stats x", "/help nope"]) {
      expect(() => findCommand(text)).toThrow(`${text.split(" ")[0]} takes no argument`);
      expect(findCommand(text.replace(/ .*/, "  "))).toMatchObject({ argument: "" });
    }
  });

  test("no two commands share a name", () => {
    const names = allCommands.flatMap(({ name, aliases = [] }) => [name, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
  });
});

test("completion offers commands, values and paths", () => {
  expect(completeLine("/temp")).toEqual([["/temperature ", "/template "], "/temp"]);
  expect(completeLine("/thinking o")).toEqual([["on", "off"], "o"]);
  expect(completeLine("/set top")).toEqual([["top-k ", "top-p "], "top"]);
  expect(completeLine("hello /he")[0]).toEqual([]);
  const folder = newFolder();
  mkdirSync(join(folder, "sub"));
  writeFileSync(join(folder, "some.json"), "");
  const [hits] = completeLine(`/load ${folder}/s`);
  expect(hits).toEqual([`${folder}/some.json`, `${folder}/sub/`]);
  expect(completeLine("/save /no/such/folder/x")[0]).toEqual([]);
});

describe("messages of many lines", () => {
  const read = (lines: readonly string[]) => {
    const reader = new MessageReader();
    return lines.map((line) => reader.push(line)).filter((text) => text !== undefined);
  };
  test("between triple quotes", () => {
    expect(read(['"""', "a", "", "b", '"""'])).toEqual(["a\n\nb"]);
    expect(read(['"""', "", "a", '"""'])).toEqual(["\na"]);
    expect(read(['"""a', 'b"""', "c"])).toEqual(["a\nb", "c"]);
    expect(read(['"""one line"""'])).toEqual(["one line"]);
    expect(read(['say """this"""'])).toEqual(['say """this"""']);
  });
  test("an end that never comes is said", () => {
    const reader = new MessageReader();
    reader.push('"""a');
    expect(() => reader.end()).toThrow("has no end");
    expect(() => reader.end()).not.toThrow();
  });
});

describe("saved chats", () => {
  const chat: SavedChat = {
    model: "/models/a.gguf",
    savedAt: "2025-01-02T03:04:05.000Z",
    settings: {
      ...defaultChatSettings,
      sampling: {
        ...defaultChatSettings.sampling,
        ...{
          seed: 5,
          topK: 3,
          logitBias: new Map([
            [13, -Infinity],
            [14, 1.5],
          ]),
        },
      },
      ...{ maxTokens: 9, stop: ["\n"], system: "Hi", thinking: "off", template: "chatml" },
    },
    messages: [
      { role: "user", content: "ä\n\u{1f600}" },
      { role: "assistant", content: " x ", reasoning_content: "r" },
    ],
  };

  test("come back as they were", () => {
    expect(parseSavedChat(formatSavedChat(chat), "f")).toEqual(chat);
    const plain = { ...chat, model: undefined, settings: defaultChatSettings };
    expect(parseSavedChat(formatSavedChat(plain), "f")).toEqual(plain);
    // The system message is the first one, so that `tinfer render` can read the file.
    expect(JSON.parse(formatSavedChat(chat)).messages[0]).toEqual({
      role: "system",
      content: "Hi",
    });
  });

  test("anything else is refused with its name", () => {
    const document = JSON.parse(formatSavedChat(chat));
    const bad = [
      "",
      "[]",
      "{}",
      '{"format": "tinfer-chat", "version": 2}',
      JSON.stringify({ ...document, messages: [{ role: "user" }] }),
      JSON.stringify({ ...document, settings: null }),
      JSON.stringify({ ...document, settings: { thinking: "maybe" } }),
    ];
    for (const text of bad) expect(() => parseSavedChat(text, "a.json")).toThrow("a.json is not a");
    const wild = JSON.stringify({ ...document, settings: { topP: 7 } });
    expect(() => parseSavedChat(wild, "a.json")).toThrow("topP");
  });
});

test("history: bounded, private, walks back and forth, survives a torn line", () => {
  const folder = newFolder();
  const path = join(folder, "chat-history.jsonl");
  const history = new InputHistory(folder);
  for (let i = 0; i < 1005; i++) history.add(`entry ${i}`);
  history.add("two\nlines");
  history.add("two\nlines");
  history.add("  ");
  writeFileSync(path, `${readFileSync(path, "utf8")}"torn`);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const again = new InputHistory(folder);
  expect(again.entries.length).toBe(1000);
  expect(again.previous("typing")).toBe("two\nlines");
  expect(again.previous("two\nlines")).toBe("entry 1004");
  expect(again.next()).toBe("two\nlines");
  expect(again.next()).toBe("typing");
  expect(again.next()).toBeUndefined();
});

describe("pastes", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  test("are found however the bytes are cut", () => {
    const text = "a\x1b[Ab\x1b[200~1\r\n2\r\x07é\x1b[201~c";
    const whole = bytes(text);
    for (let size = 1; size <= whole.length; size++) {
      const filter = new PasteFilter();
      const parts: InputPart[] = [];
      for (let at = 0; at < whole.length; at += size) {
        parts.push(...filter.push(whole.subarray(at, at + size)));
      }
      const of = (kind: string) => parts.filter((part) => part.kind === kind);
      expect(
        of("keys")
          .map((part) => part.text)
          .join(""),
      ).toBe("a\x1b[Abc");
      expect(of("paste")).toEqual([{ kind: "paste", text: "1\n2\né" }]);
    }
  });
  test("a lone escape key is held until it is asked for", () => {
    const filter = new PasteFilter();
    expect(filter.push(bytes("\x1b"))).toEqual([]);
    expect(filter.isHoldingKeys).toBe(true);
    expect(filter.flushKeys()).toEqual([{ kind: "keys", text: "\x1b" }]);
    expect(filter.isHoldingKeys).toBe(false);
  });
  test("long ones are marks that expand", () => {
    const texts = new LongTexts();
    const long = "x\n".repeat(50);
    expect(texts.shorten("a\nb")).toBe("a\nb");
    expect(texts.shorten(long)).toBe("[text 1: 51 lines]");
    expect(texts.expand("see [text 1: 51 lines] and [text 9: 1 lines]")).toBe(
      `see ${long} and [text 9: 1 lines]`,
    );
  });
});

describe("word wrap", () => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one.
  const erasing = /^\x1b\[(\d+)D\x1b\[K/;
  /** What a terminal shows: applies the only two sequences that WordWrap writes. */
  const shown = (output: string) => {
    let screen = "";
    for (let i = 0; i < output.length; i++) {
      const back = erasing.exec(output.slice(i));
      if (back === null) {
        screen += output[i];
        continue;
      }
      const width = Bun.stringWidth(screen) - Number(back[1]);
      while (Bun.stringWidth(screen) > width) screen = screen.slice(0, -1);
      i += back[0].length - 1;
    }
    return screen;
  };
  const wrap = (text: string, columns: number, size: number) => {
    const wrapper = new WordWrap(() => columns);
    let output = "";
    for (let at = 0; at < text.length; at += size)
      output += wrapper.push(text.slice(at, at + size));
    return shown(output);
  };

  test("breaks between words, however the text comes", () => {
    for (let size = 1; size < 20; size++) {
      const lines = wrap("the quick brown fox jumps over it", 10, size).split("\n");
      expect(lines.map((line) => line.trimEnd())).toEqual([
        "the quick",
        "brown fox",
        "jumps over",
        "it",
      ]);
    }
  });
  test("leaves code and words longer than a line alone", () => {
    const code = "```\nlet a = some + very + long + line\n```\n";
    const long = "abcdefghijklmnopqrstuvwxyz";
    for (let size = 1; size < 9; size++) {
      expect(wrap(code, 10, size)).toBe(code);
      expect(wrap(long, 10, size)).toBe(long);
      expect(wrap(`${code}the quick brown`, 10, size)).toBe(`${code}the quick \nbrown`);
    }
  });
  test("counts wide characters twice", () => {
    expect(wrap("日本語 日本語", 10, 1)).toBe("日本語 \n日本語");
  });
});
