// One HTTP/1.1 GET over a socket of its own, answered as a standard Response. It exists because the
// built-in fetch drops up to 256 KiB that had already arrived when a connection is cut, and a pull
// promises not to download a byte twice. It follows no redirects and keeps no connections.
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

export interface GetInit {
  headers: Record<string, string>;
  signal: AbortSignal;
}

/** Bytes that wait for the reader before the socket is paused, and after which it goes on. */
const pauseBytes = 8 << 20;
const resumeBytes = 1 << 20;
/**
 * Signed addresses and security policies make long headers; 64 KiB is four times what CDNs send.
 */
const maxHeadBytes = 64 << 10;

export async function httpGet(address: string, init: GetInit): Promise<Response> {
  init.signal.throwIfAborted();
  const url = new URL(address);
  const arrived = new ArrivedBytes(openSocket(url), init.signal);
  arrived.send(requestText(url, init.headers));
  try {
    const { status, headers } = await readHead(arrived);
    if (status === 204 || status === 304) {
      arrived.close();
      return new Response(null, { status, headers });
    }
    const length = headers.get("content-length");
    if (length !== null && !/^\d{1,15}$/.test(length))
      throw new Error("Content-Length is no number");
    return new Response(bodyStream(arrived, headers), { status, headers });
  } catch (error) {
    arrived.close();
    throw error;
  }
}

function openSocket(url: URL): Socket {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (url.protocol === "http:") return connectTcp({ host, port: Number(url.port || 80) });
  const servername = /^[\d.]+$|:/.test(host) ? "" : host;
  return connectTls({ host, port: Number(url.port || 443), servername });
}

function requestText(url: URL, headers: Record<string, string>): string {
  const lines = [`GET ${url.pathname}${url.search} HTTP/1.1`, `Host: ${url.host}`];
  for (const [name, value] of Object.entries(headers)) {
    if (/[\r\n]/.test(name + value)) throw new Error(`header ${name} holds a line break`);
    lines.push(`${name}: ${value}`);
  }
  return `${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`;
}

/** What came in, in order. The failure of the connection is told only after the last byte. */
class ArrivedBytes {
  private readonly socket: Socket;
  private readonly chunks: Uint8Array[] = [];
  private waitingBytes = 0;
  private ended = false;
  private failure: unknown;
  private wake: () => void = () => {};

  constructor(socket: Socket, signal: AbortSignal) {
    this.socket = socket;
    const abort = () => socket.destroy(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    socket.setNoDelay(true);
    socket.on("data", (chunk: Uint8Array) => {
      this.chunks.push(chunk);
      this.waitingBytes += chunk.length;
      if (this.waitingBytes > pauseBytes) socket.pause();
      this.wake();
    });
    socket.on("error", (error) => this.finish(error));
    socket.on("end", () => this.finish(undefined));
    socket.on("close", () => {
      signal.removeEventListener("abort", abort);
      this.finish(signal.aborted ? signal.reason : undefined);
    });
  }

  send(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** The next bytes; undefined at the end of the connection. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.chunks.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    const chunk = this.chunks.shift();
    if (chunk === undefined) {
      if (this.failure !== undefined) throw this.failure;
      return undefined;
    }
    this.waitingBytes -= chunk.length;
    if (this.waitingBytes < resumeBytes && this.socket.isPaused()) this.socket.resume();
    return chunk;
  }

  putBack(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.chunks.unshift(chunk);
    this.waitingBytes += chunk.length;
  }

  close(): void {
    this.socket.destroy();
  }

  private finish(failure: unknown): void {
    this.ended = true;
    this.failure ??= failure;
    this.wake();
  }
}

async function readHead(arrived: ArrivedBytes): Promise<{ status: number; headers: Headers }> {
  for (;;) {
    const text = await readThrough(arrived, "\r\n\r\n", maxHeadBytes);
    const [statusLine = "", ...lines] = text.split("\r\n");
    const status = Number(/^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(statusLine)?.[1]);
    if (!(status >= 100 && status <= 599)) throw new Error("the answer is not HTTP/1.1");
    if (status < 200) continue;
    const headers = new Headers();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon > 0) headers.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
    }
    return { status, headers };
  }
}

/** The text before `mark`; what follows the mark stays in line. */
async function readThrough(arrived: ArrivedBytes, mark: string, limit: number): Promise<string> {
  let text = Buffer.alloc(0);
  for (;;) {
    const chunk = await arrived.next();
    if (chunk === undefined) throw cutShort();
    const from = Math.max(0, text.length - mark.length);
    text = Buffer.concat([text, chunk]);
    const at = text.indexOf(mark, from, "latin1");
    if (at >= 0) {
      arrived.putBack(text.subarray(at + mark.length));
      return text.toString("latin1", 0, at);
    }
    if (text.length > limit) throw new Error(`the answer's head exceeds ${limit} bytes`);
  }
}

/** No read-ahead (highWaterMark 0): a stream that fails throws away what it has queued. */
function bodyStream(arrived: ArrivedBytes, headers: Headers): ReadableStream<Uint8Array> {
  const length = headers.get("content-length");
  const parts = /\bchunked\b/i.test(headers.get("transfer-encoding") ?? "")
    ? chunkedBody(arrived)
    : sizedBody(arrived, length === null ? Number.POSITIVE_INFINITY : Number(length));
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const part = await parts.next();
        if (!part.done) return controller.enqueue(part.value);
        arrived.close();
        controller.close();
      },
      cancel() {
        arrived.close();
      },
    },
    { highWaterMark: 0 },
  );
}

/** `length` bytes; an infinite length means up to the end of the connection. */
async function* sizedBody(arrived: ArrivedBytes, length: number): AsyncGenerator<Uint8Array> {
  let remaining = length;
  while (remaining > 0) {
    const chunk = await arrived.next();
    if (chunk === undefined) {
      if (length === Number.POSITIVE_INFINITY) return;
      throw cutShort();
    }
    const part = chunk.length > remaining ? chunk.subarray(0, remaining) : chunk;
    arrived.putBack(chunk.subarray(part.length));
    remaining -= part.length;
    yield part;
  }
}

async function* chunkedBody(arrived: ArrivedBytes): AsyncGenerator<Uint8Array> {
  for (;;) {
    const line = await readThrough(arrived, "\r\n", 1 << 10);
    const size = /^\s*([0-9a-f]{1,12})\s*(;|$)/i.exec(line)?.[1];
    if (size === undefined) throw new Error("the answer's chunks are malformed");
    const length = Number.parseInt(size, 16);
    // What follows the last chunk are trailers, which nobody asked for.
    if (length === 0) return;
    yield* sizedBody(arrived, length);
    if ((await readThrough(arrived, "\r\n", 2)) !== "") {
      throw new Error("the answer's chunks are malformed");
    }
  }
}

function cutShort(): Error {
  return new Error("the connection was cut");
}
