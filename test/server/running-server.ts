// A server for tests: in this process, on a free port, with the model of the repository or a
// larger one of the golden data.
import { join } from "node:path";
import type { AdapterChoice } from "../../src/engine/adapter-choice.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import type { KvType } from "../../src/plan/ops.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import type { LogRecord } from "../../src/server/exchange.ts";
import { type RunningServer, startServer } from "../../src/server/server.ts";
import type { ServerOptions } from "../../src/server/server-state.ts";

export const builtInModel = join(import.meta.dir, "..", "..", "assets", "stories260K.gguf");

export interface TestServer extends RunningServer, AsyncDisposable {
  readonly records: LogRecord[];
  readonly bugs: unknown[];
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  /** A value of /metrics, e.g. `tinfer_running`, or `tinfer_kv_blocks{state="used"`. */
  metric(name: string): Promise<number>;
}

interface TestOptions extends Partial<Omit<ServerOptions, "model">> {
  path?: string;
  template?: string | undefined;
  aliases?: readonly string[];
  maxSequences?: number;
  contextLen?: number;
  kvType?: KvType;
  adapters?: readonly AdapterChoice[];
}

export function launchServer(options: TestOptions = {}): TestServer {
  const {
    path,
    aliases,
    maxSequences,
    contextLen,
    kvType = "f16",
    adapters = [],
    ...others
  } = options;
  const template = "template" in options ? options.template : "plain";
  const records: LogRecord[] = [];
  const bugs: unknown[] = [];
  const server = startServer({
    host: "127.0.0.1",
    port: 0,
    apiKeys: [],
    corsOrigins: [],
    maxBodyBytes: 1_000_000,
    maxWaiting: 100,
    sampling: defaultSampling,
    maxTokens: undefined,
    logPrompts: false,
    version: "1.2.3",
    log: (record) => records.push(record),
    logError: (error) => bugs.push(error),
    ...others,
    model: {
      path: path ?? builtInModel,
      id: "tiny",
      aliases: aliases ?? ["story-teller"],
      options: {
        ...defaultModelOptions,
        // One thread: a busy machine then slows the tests down, but does not stall them.
        numThreads: 1,
        maxSequences: maxSequences ?? 4,
        contextLen: contextLen ?? 512,
        adapters,
        kvTypeK: kvType,
        kvTypeV: kvType,
      },
      template,
    },
  });
  const post = (route: string, body: unknown, init: RequestInit = {}) =>
    fetch(server.url + route, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  return {
    ...server,
    records,
    bugs,
    post,
    async metric(name) {
      const text = await (await fetch(`${server.url}/metrics`)).text();
      const line = text.split("\n").find((each) => each.startsWith(name));
      if (line === undefined) throw new Error(`no metric ${name}`);
      return Number(line.split(" ").at(-1));
    },
    [Symbol.asyncDispose]: () => server.stop(0),
  };
}

export async function startTestServer(options: TestOptions = {}): Promise<TestServer> {
  const server = launchServer(options);
  await server.ready;
  return server;
}

/** Waits for a condition that must come true soon. */
export async function until(condition: () => Promise<boolean> | boolean): Promise<number> {
  const start = performance.now();
  while (!(await condition())) {
    if (performance.now() - start > 20_000) throw new Error("it did not come true in 20 s");
    await Bun.sleep(2);
  }
  return performance.now() - start;
}

/** A reply's body, in the shape that the test goes on to check. */
export async function jsonOf<T>(reply: Response | Promise<Response>): Promise<T> {
  return (await (await reply).json()) as T;
}

/** The bodies that tests look into. */
export interface ErrorReply {
  readonly error: { message: string; type: string; param: string | null; code: string | null };
}
export interface TokensReply {
  readonly tokens: number[];
  readonly count: number;
}
export interface ChatReply {
  readonly choices: { message: { content: string; reasoning_content?: string } }[];
}

/** The JSON values of a stream of server-sent events, and whether it ended with [DONE]. */
export async function readEvents(response: Response) {
  const lines = (await response.text()).split("\n\n").filter((line) => line.startsWith("data: "));
  const isDone = lines.at(-1) === "data: [DONE]";
  const values = lines.filter((line) => line !== "data: [DONE]").map((line) => line.slice(6));
  return { isDone, values: values.map((text) => JSON.parse(text)) };
}
