// Built-in templates, the choice between them and the file's, reasoning markers, and the JSON
// that keeps what Python would print.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { builtinTemplate, builtinTemplateNames } from "../../src/template/builtin.ts";
import { compileChatTemplate } from "../../src/template/chat-template.ts";
import { parsePythonJson } from "../../src/template/python-json.ts";
import {
  detectReasoning,
  endsInsideReasoning,
  type ReasoningMarkers,
  ReasoningSplitter,
} from "../../src/template/reasoning.ts";
import { resolveChatTemplate, type TemplateChoice } from "../../src/template/resolve.ts";

const conversation = {
  messages: [
    { role: "system", content: "Be kind." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello" },
    { role: "user", content: [{ type: "text", text: "More" }] },
  ],
  bos_token: "<s>",
  eos_token: "</s>",
  add_generation_prompt: true,
};

function failure(choice: TemplateChoice): TinferError {
  try {
    resolveChatTemplate(choice);
  } catch (error) {
    if (error instanceof TinferError) return error;
  }
  throw new Error("no failure");
}

describe("built-in templates", () => {
  test("render every text of a conversation, in order", () => {
    for (const name of builtinTemplateNames()) {
      const text = compileChatTemplate(builtinTemplate(name)!).render(conversation);
      const places = ["Be kind.", "Hi", "Hello", "More"].map((part) => text.indexOf(part));
      expect([name, places.toSorted((a, b) => a - b)]).toEqual([name, places]);
      expect([name, places.includes(-1)]).toEqual([name, false]);
    }
  });

  test("have the shapes that models were trained on", () => {
    const render = (name: string) =>
      compileChatTemplate(builtinTemplate(name)!).render(conversation);
    expect(render("chatml")).toStartWith(
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
    );
    expect(render("llama2")).toBe(
      "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] More [/INST]",
    );
    expect(render("llama3")).toEndWith("<|start_header_id|>assistant<|end_header_id|>\n\n");
    expect(render("gemma")).toStartWith("<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n");
    expect(render("plain")).toBe("<s>Be kind.HiHelloMore");
  });

  test("refuse what they cannot express", () => {
    const chatml = compileChatTemplate(builtinTemplate("chatml")!);
    const image = [{ role: "user", content: [{ type: "image" }] }];
    expect(() => chatml.render({ messages: image })).toThrow("takes text only, not image");
    expect(() => chatml.render({ messages: [], tools: [{}] })).toThrow("no form for tools");
    const calls = [{ role: "assistant", content: null, tool_calls: [{}] }];
    expect(() => chatml.render({ messages: calls })).toThrow("no form for tool calls");
  });
});

describe("the choice of a template", () => {
  test("prefers the override, by name or as text", () => {
    const fromFile = "file";
    expect(resolveChatTemplate({ fromFile }).source).toBe("file");
    expect(resolveChatTemplate({ fromFile, override: "{{ 1 }}" }).source).toBe("{{ 1 }}");
    const named = resolveChatTemplate({ fromFile, override: "chatml" });
    expect(named.source).toBe(builtinTemplate("chatml")!);
  });

  test("has no silent fallback", () => {
    const none = failure({ fromFile: undefined });
    expect(none.code).toBe("template");
    for (const name of builtinTemplateNames()) expect(none.hint).toContain(name);
    expect(failure({ fromFile: "x", override: "chatlm" }).message).toContain(
      "did you mean chatml?",
    );
    expect(failure({ fromFile: "x", override: "toString" }).code).toBe("template");
  });
});

describe("reasoning", () => {
  const noTokens = { hasToken: () => false };

  test("is detected from template or vocabulary", () => {
    const think = { open: "<think>", close: "</think>" };
    expect(detectReasoning({ templateSource: "a</think>b", ...noTokens })).toEqual(think);
    const tokens = new Set(["[THINK]", "[/THINK]"]);
    const hasToken = (text: string) => tokens.has(text);
    expect(detectReasoning({ templateSource: undefined, hasToken })?.open).toBe("[THINK]");
    expect(detectReasoning({ templateSource: "{{ 1 }}", ...noTokens })).toBeUndefined();
    // QwQ opens the reasoning in the prompt; distills of R1 may come without a template.
    const opens = "{{ '<|im_start|>assistant\\n<think>\\n' }}";
    expect(detectReasoning({ templateSource: opens, ...noTokens })).toEqual(think);
    const r1 = { hasToken: (text: string) => text === "<think>" || text === "</think>" };
    expect(detectReasoning({ templateSource: undefined, ...r1 })).toEqual(think);
    expect(endsInsideReasoning("<|im_start|>assistant\n<think>\n", think)).toBe(true);
    expect(endsInsideReasoning("<think>\n\n</think>\n\n", think)).toBe(false);
  });

  /** Feeds `text` in pieces of `size` and joins what comes out. */
  function split(
    text: string,
    size: number,
    startsInside: boolean,
    markers: ReasoningMarkers = { open: "<think>", close: "</think>" },
  ) {
    const splitter = new ReasoningSplitter(markers, startsInside);
    const parts = [];
    for (let at = 0; at < text.length; at += size)
      parts.push(splitter.push(text.slice(at, at + size)));
    parts.push(splitter.end());
    return {
      reasoning: parts.map((part) => part.reasoning).join(""),
      content: parts.map((part) => part.content).join(""),
    };
  }

  test("is split the same however the text arrives", () => {
    for (let size = 1; size < 20; size++) {
      expect(split("<think>a < b</think>\nc", size, false)).toEqual({
        reasoning: "a < b",
        content: "\nc",
      });
      expect(split("a</thin</think>c", size, true)).toEqual({ reasoning: "a</thin", content: "c" });
      expect(split("<think>a</think>c", size, true)).toEqual({ reasoning: "a", content: "c" });
      expect(split("say <think>", size, false)).toEqual({ reasoning: "", content: "say <think>" });
      expect(split("<thi", size, false)).toEqual({ reasoning: "", content: "<thi" });
      expect(split("a</th", size, true)).toEqual({ reasoning: "a</th", content: "" });
    }
  });

  test("channels: an answer without reasoning sheds its marker too", () => {
    const templateSource = "<|channel|>analysis<|message|>";
    const markers = detectReasoning({ templateSource, ...noTokens })!;
    const [analysis, final] = ["<|channel|>analysis<|message|>", "<|channel|>final<|message|>"];
    for (let size = 1; size < 40; size += 3) {
      const both = `${analysis}why<|end|><|start|>assistant${final}so`;
      expect(split(both, size, false, markers)).toEqual({ reasoning: "why", content: "so" });
      const answer = `${final}a ${final}`;
      expect(split(answer, size, false, markers)).toEqual({ reasoning: "", content: `a ${final}` });
      const other = { reasoning: "", content: "<|channel|>fin" };
      expect(split(other.content, size, false, markers)).toEqual(other);
    }
  });

  test("passes everything through without markers", () => {
    const splitter = new ReasoningSplitter(undefined, false);
    expect(splitter.push("<think>")).toEqual({ reasoning: "", content: "<think>" });
  });
});

describe("JSON as Python reads it", () => {
  const echo = compileChatTemplate("{{ value | tojson }}");
  const roundTrip = (json: string) => echo.render({ messages: [], value: parsePythonJson(json) });

  test("keeps floats, large integers and the order of keys", () => {
    for (const json of [
      '{"b": 2.0, "2": 1, "1": 1.5, "__proto__": null}',
      "[12345678901234567890, 1e+20, 0.1, true, false, -1]",
      '"a\\n\\"\\\\é😀"',
      "[]",
      "{}",
    ]) {
      expect(roundTrip(json)).toBe(json);
    }
  });

  test("names the place of a mistake", () => {
    expect(() => parsePythonJson('{"a": 1,\n "b" 2}')).toThrow("line 2, column 6");
    for (const json of ["", "[1,]", "{", '"a', "nul", "1 2", "01", "[".repeat(9999)]) {
      expect(() => parsePythonJson(json)).toThrow(TinferError);
    }
  });
});
