// A model host for tests that fails on demand: it speaks the listing and download routes of Hugging
// Face and of an Ollama registry, and writes HTTP itself, because a connection must be cut after an
// exact byte and what went out must be counted to the byte.
import { createServer, type Server, type Socket } from "node:net";

export interface ServedRequest {
  path: string;
  status: number;
  headers: Record<string, string>;
  /** First byte of the file in this answer. */
  start: number;
  /** Bytes of the file that this answer put on the wire. */
  sentBytes: number;
}

export interface Faults {
  /** Offsets in the file: an answer that would go past the next one ends there. Each works once. */
  cuts: number[];
  /** How a cut looks: the usual end of the connection, or a reset that loses bytes under way. */
  cutWith: "end" | "reset";
  /** Offsets after which an answer goes silent and stays open. Each works once. */
  stalls: number[];
  ignoreRange: boolean;
  /** undefined: no ETag header. */
  etag: string | undefined;
  lastModified: string | undefined;
  /** This byte of the file arrives inverted. */
  corruptAt: number | undefined;
  /** Pause between pieces of 64 KiB. */
  pieceDelayMs: number;
  /** File requests answer with a redirect to this origin. */
  redirectTo: string | undefined;
  /** Statuses given, in order, instead of the next answers. */
  refusals: { status: number; headers?: Record<string, string> }[];
  chunked: boolean;
  /** Published for the file instead of its real hash. */
  publishedSha256: string | undefined;
  extraHeaders: Record<string, string>;
}

const noFaults: Faults = {
  cuts: [],
  cutWith: "end",
  stalls: [],
  ignoreRange: false,
  etag: '"one"',
  lastModified: undefined,
  corruptAt: undefined,
  pieceDelayMs: 0,
  redirectTo: undefined,
  refusals: [],
  chunked: false,
  publishedSha256: undefined,
  extraHeaders: {},
};

const pieceBytes = 64 << 10;

export class FaultServer implements AsyncDisposable {
  /** Path in the repository → content. */
  readonly files: Map<string, Uint8Array>;
  faults: Faults;
  readonly log: ServedRequest[] = [];
  readonly origin: string;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(files: Map<string, Uint8Array>, faults: Partial<Faults>, server: Server) {
    this.files = files;
    this.faults = { ...noFaults, ...faults };
    this.server = server;
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    this.origin = `http://127.0.0.1:${address.port}`;
    server.on("connection", (socket) => this.connect(socket));
  }

  static async start(
    files: Record<string, Uint8Array>,
    faults: Partial<Faults> = {},
  ): Promise<FaultServer> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new FaultServer(new Map(Object.entries(files)), faults, server);
  }

  /** Requests for files, without listings. */
  get transfers(): ServedRequest[] {
    return this.log.filter((request) => request.status === 200 || request.status === 206);
  }

  get sentBytes(): number {
    return this.transfers.reduce((sum, request) => sum + request.sentBytes, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private connect(socket: Socket): void {
    this.sockets.add(socket);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("error", () => {});
    let head = "";
    const read = (bytes: Uint8Array) => {
      head += Buffer.from(bytes).toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      socket.off("data", read);
      void this.answer(socket, head).catch(() => socket.destroy());
    };
    socket.on("data", read);
  }

  private async answer(socket: Socket, head: string): Promise<void> {
    const [first = "", ...lines] = head.split("\r\n");
    const path = decodeURIComponent(first.split(" ")[1] ?? "");
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon > 0) headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const request: ServedRequest = { path, status: 0, headers, start: 0, sentBytes: 0 };
    const listing = this.listingFor(path);
    if (listing !== undefined) return respond(socket, 200, {}, listing);
    this.log.push(request);
    const refusal = this.faults.refusals.shift();
    if (refusal !== undefined) {
      request.status = refusal.status;
      return respond(socket, refusal.status, refusal.headers ?? {}, "refused");
    }
    if (this.faults.redirectTo !== undefined) {
      request.status = 302;
      return respond(socket, 302, { Location: `${this.faults.redirectTo}${path}` }, "");
    }
    const content = this.contentFor(path);
    if (content === undefined) {
      request.status = 404;
      return respond(socket, 404, {}, "<html>no such file</html>");
    }
    await this.sendFile(socket, request, content);
  }

  /** The listing of any repository, and the manifest of any Ollama model with the first file. */
  private listingFor(path: string): string | undefined {
    if (/^\/api\/models\/[^/]+\/[^/]+\/tree\/[^/]+\?recursive=true$/.test(path)) {
      const entries = [...this.files].map(([name, content]) => ({
        type: "file",
        path: name,
        size: content.length,
        lfs: { oid: this.publishedHash(content), size: content.length, pointerSize: 134 },
      }));
      return JSON.stringify([{ type: "directory", path: "folder", size: 0 }, ...entries]);
    }
    if (/^\/v2\/.+\/manifests\/[^/]+$/.test(path)) {
      const [content] = this.files.values();
      const digest = `sha256:${this.publishedHash(content!)}`;
      const type = "application/vnd.ollama.image";
      return JSON.stringify({
        layers: [
          { mediaType: `${type}.model`, digest, size: content!.length },
          { mediaType: `${type}.template`, digest: `sha256:${"0".repeat(64)}`, size: 3 },
        ],
      });
    }
    return undefined;
  }

  private publishedHash(content: Uint8Array): string {
    return this.faults.publishedSha256 ?? sha256(content);
  }

  private contentFor(path: string): Uint8Array | undefined {
    const digest = /\/blobs\/sha256:([0-9a-f]{64})$/.exec(path)?.[1];
    if (digest !== undefined) {
      return [...this.files.values()].find((content) => sha256(content) === digest);
    }
    const name = path.replace(/^\/[^/]+\/[^/]+\/resolve\/[^/]+\//, "").replace(/^\/|\?.*$/g, "");
    return this.files.get(name);
  }

  private async sendFile(socket: Socket, request: ServedRequest, whole: Uint8Array) {
    const { faults } = this;
    const { range, "if-range": ifRange, "if-none-match": ifNoneMatch } = request.headers;
    const validators = {
      ...(faults.etag === undefined ? {} : { ETag: faults.etag }),
      ...(faults.lastModified === undefined ? {} : { "Last-Modified": faults.lastModified }),
      ...faults.extraHeaders,
    };
    if (ifNoneMatch !== undefined && ifNoneMatch === faults.etag) {
      request.status = 304;
      return respond(socket, 304, validators, undefined);
    }
    const current = faults.etag ?? faults.lastModified;
    const asked = /^bytes=(\d+)-$/.exec(range ?? "")?.[1];
    const honoured =
      asked !== undefined && !faults.ignoreRange && (ifRange === undefined || ifRange === current);
    request.start = honoured ? Number(asked) : 0;
    if (honoured && request.start >= whole.length) {
      request.status = 416;
      return respond(socket, 416, { "Content-Range": `bytes */${whole.length}` }, "");
    }
    request.status = honoured ? 206 : 200;
    const last = whole.length - 1;
    const length = whole.length - request.start;
    writeHead(socket, request.status, {
      ...validators,
      ...(faults.chunked
        ? { "Transfer-Encoding": "chunked" }
        : { "Content-Length": String(length) }),
      ...(honoured ? { "Content-Range": `bytes ${request.start}-${last}/${whole.length}` } : {}),
    });
    await this.sendBody(socket, request, whole);
  }

  private async sendBody(socket: Socket, request: ServedRequest, whole: Uint8Array) {
    const { faults } = this;
    const ahead = (offset: number) => offset > request.start && offset < whole.length;
    const cut = faults.cuts.find(ahead);
    const stall = faults.stalls.find(ahead);
    const end = Math.min(cut ?? whole.length, stall ?? whole.length);
    for (let at = request.start; at < end && !socket.destroyed; ) {
      const piece = Uint8Array.from(whole.subarray(at, Math.min(at + pieceBytes, end)));
      const wrong = faults.corruptAt === undefined ? -1 : faults.corruptAt - at;
      if (wrong >= 0 && wrong < piece.length) piece[wrong] = piece[wrong]! ^ 0xff;
      await write(socket, faults.chunked ? asChunk(piece) : piece);
      at += piece.length;
      request.sentBytes += piece.length;
      if (faults.pieceDelayMs > 0) await Bun.sleep(faults.pieceDelayMs);
    }
    if (end === stall) {
      faults.stalls.splice(faults.stalls.indexOf(end), 1);
    } else if (end === cut) {
      faults.cuts.splice(faults.cuts.indexOf(end), 1);
      if (faults.cutWith === "reset") socket.resetAndDestroy();
      else socket.end();
    } else {
      socket.end(faults.chunked ? "0\r\n\r\n" : "");
    }
  }
}

export function sha256(content: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(content).digest("hex");
}

/** A GGUF file without metadata or tensors, and further bytes that repeat nowhere. */
export function randomModel(numBytes: number): Uint8Array {
  const content = new Uint8Array(numBytes);
  for (let at = 0; at < numBytes; at += 65536) {
    crypto.getRandomValues(content.subarray(at, Math.min(at + 65536, numBytes)));
  }
  content.set(Buffer.from(`GGUF\x03${"\0".repeat(19)}`).subarray(0, numBytes));
  return content;
}

function asChunk(piece: Uint8Array): Uint8Array {
  return Buffer.concat([
    Buffer.from(`${piece.length.toString(16)}\r\n`),
    piece,
    Buffer.from("\r\n"),
  ]);
}

function writeHead(socket: Socket, status: number, headers: Record<string, string>): void {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 ${status} Said\r\nConnection: close\r\n${lines.join("")}\r\n`);
}

function respond(
  socket: Socket,
  status: number,
  headers: Record<string, string>,
  body: string | undefined,
): void {
  const length = body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(body)) };
  writeHead(socket, status, { ...headers, ...length });
  socket.end(body ?? "");
}

function write(socket: Socket, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (socket.destroyed) return resolve();
    socket.once("close", resolve);
    socket.write(bytes, (error) => {
      socket.off("close", resolve);
      if (error) reject(error);
      else resolve();
    });
  });
}
