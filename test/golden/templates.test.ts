// Every chat template of the golden data over every conversation: equal text, or a failure
// where Hugging Face's renderer fails, with the template's own message where it raises one.
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import {
  type ChatTemplate,
  compileChatTemplate,
  type RenderVariables,
} from "../../src/template/chat-template.ts";
import { parsePythonJson } from "../../src/template/python-json.ts";
import { goldenFolder } from "../golden-folder.ts";

type Conversation = RenderVariables & { id: string };

interface Conversations {
  now: string;
  variables: Record<string, unknown>;
  conversations: Conversation[];
}

interface Golden {
  name: string;
  template: string;
  renders: { conversation: string; output?: string; error?: string; errorKind?: string }[];
}

const folder = goldenFolder("golden templates");
if (folder !== undefined) runGoldens(join(folder, "templates"));

function runGoldens(directory: string): void {
  const read = (file: string) => parsePythonJson(readFileSync(join(directory, file), "utf8"));
  const { now, variables, conversations } = read("conversations.json") as Conversations;
  const time = new Date(now);
  const files = readdirSync(directory).filter((file) => file !== "conversations.json");

  describe("golden templates", () => {
    test("are there", () => expect(files.length).toBeGreaterThan(0));
    for (const file of files) {
      const golden = read(file) as Golden;
      test(golden.name, () => {
        for (const { conversation: wanted, output, error, errorKind } of golden.renders) {
          const found = conversations.find(({ id }) => id === wanted);
          expect(found).toBeDefined();
          const { id, ...conversation } = found!;
          const result = render(golden.template, { ...variables, ...conversation }, time);
          if (error === undefined) expect({ id, result }).toEqual({ id, result: output! });
          else expect({ id, result }).toEqual({ id, result: expect.any(TinferError) });
          if (errorKind === "raise_exception") {
            expect({ id, message: (result as TinferError).message }).toEqual({
              id,
              message: error!,
            });
          }
        }
      });
    }
  });
}

const compiled = new Map<string, ChatTemplate>();

function render(source: string, variables: RenderVariables, now: Date): string | TinferError {
  try {
    const template = compiled.get(source) ?? compileChatTemplate(source);
    compiled.set(source, template);
    return template.render(variables, now);
  } catch (error) {
    if (error instanceof TinferError && error.code === "template") return error;
    throw error;
  }
}
