// Answers in pieces: server-sent events for OpenAI's dialect, lines of JSON for Ollama's. A
// stream that nobody reads any more stops the work behind it.
import { type Dialect, errorBody } from "./dialect.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError, toRequestError } from "./request-error.ts";

/** Proxies and clients give up on connections that are silent for long. */
const pingMs = 10_000;

/**
 * Bytes of a stream that may wait for its reader: many minutes of one answer. Beyond, nobody is
 * likely to come back, and the answer ends: memory would be the only limit.
 */
const maxUnreadBytes = 32e6;

interface StreamFormat {
  readonly contentType: string;
  frame(value: object): string;
  /** Sent while nothing else is; clients skip it. */
  readonly ping: string | undefined;
  /** Sent after the last value. */
  readonly last: string;
}

const formats: Readonly<Record<Dialect, StreamFormat>> = {
  openai: {
    contentType: "text/event-stream; charset=utf-8",
    frame: (value) => `data: ${JSON.stringify(value)}\n\n`,
    ping: ": ping\n\n",
    last: "data: [DONE]\n\n",
  },
  ollama: {
    contentType: "application/x-ndjson",
    frame: (value) => `${JSON.stringify(value)}\n`,
    ping: undefined,
    last: "",
  },
};

export type Send = (value: object) => void;

/** What a stream needs from outside; tests make the ping faster. */
export interface StreamOptions {
  readonly pingMs?: number;
  /** Told about errors that are bugs. */
  onError(error: unknown): void;
}

/** Runs `write` and sends what it gives to `send`; errors become the stream's last value. */
export function streamResponse(
  dialect: Dialect,
  exchange: Exchange,
  options: StreamOptions,
  write: (send: Send) => Promise<void>,
): Response {
  const format = formats[dialect];
  const encoder = new TextEncoder();
  exchange.isStreaming = true;
  exchange.record.stream = true;
  exchange.record.status = 200;
  const source = {
    start(controller: ReadableStreamDefaultController<Uint8Array>) {
      let isOpen = true;
      const put = (text: string) => {
        if (isOpen && !exchange.isClientGone) controller.enqueue(encoder.encode(text));
      };
      const { ping } = format;
      const timer =
        ping === undefined ? undefined : setInterval(() => put(ping), options.pingMs ?? pingMs);
      const send = (value: object) => {
        if (!exchange.isClientGone && controller.desiredSize! <= 0) throw unread();
        put(format.frame(value));
      };
      const run = async () => {
        try {
          await write(send);
          put(format.last);
        } catch (error) {
          options.onError(error);
          const known = toRequestError(error);
          exchange.record.error = known.message;
          put(format.frame(errorBody(dialect, known)));
        } finally {
          isOpen = false;
          clearInterval(timer);
          exchange.finish();
          try {
            controller.close();
          } catch {
            // The client has closed it already.
          }
        }
      };
      void run();
    },
    cancel() {
      exchange.leave();
    },
  };
  const room = new ByteLengthQueuingStrategy({ highWaterMark: maxUnreadBytes });
  const body = new ReadableStream(source, room);
  // `no-transform` and the X- header keep proxies from holding pieces back.
  const headers = {
    "Content-Type": format.contentType,
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
  };
  return new Response(body, { headers });
}

function unread(): RequestError {
  const megabytes = maxUnreadBytes / 1e6;
  return new RequestError(408, `the client left ${megabytes} MB of the answer unread`, {
    code: "unread_answer",
    hint: "read the stream as it comes, or ask for less: n, logprobs",
  });
}
