// One request and its answer: its id, the signal that stops its work, and what the log will say.
import { TinferError } from "../core/errors.ts";

/** One line of the request log; never contains prompt text unless the server was told so. */
export interface LogRecord {
  time: string;
  id: string;
  method: string;
  path: string;
  status: number;
  ms: number;
  stream?: boolean;
  promptTokens?: number;
  cachedTokens?: number;
  completionTokens?: number;
  finishReason?: string;
  /** Fields of the body that have no meaning here. */
  ignored?: readonly string[];
  error?: string;
  /** The prompts as the model saw them, with --log-prompts. */
  prompts?: readonly string[];
}

export class Exchange {
  readonly id: string = crypto.randomUUID().replaceAll("-", "");
  readonly createdAt = new Date();
  readonly record: LogRecord;
  readonly #start = performance.now();
  readonly #controller = new AbortController();
  readonly #onFinish: (exchange: Exchange) => void;
  /** The body is still being written after the handler has returned. */
  isStreaming = false;
  /** Nobody reads the answer any more. */
  isClientGone = false;
  /**
   * Tokens left out because the client asked for it; always said in the answer. Of a text that is
   * far too long at least so many.
   */
  truncatedTokens = 0;
  #isFinished = false;

  constructor(request: Request, path: string, onFinish: (exchange: Exchange) => void) {
    const { method } = request;
    const time = this.createdAt.toISOString();
    this.record = { time, id: this.id, method, path, status: 0, ms: 0 };
    this.#onFinish = onFinish;
    request.signal.addEventListener("abort", () => this.leave());
    if (request.signal.aborted) this.leave();
  }

  /** Raised when the work for the request must end; its reason is an error that says why. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    // After the answer, the end of the connection means nothing.
    if (!this.#isFinished) this.#controller.abort(reason);
  }

  /** The client has gone. */
  leave(): void {
    this.isClientGone = true;
    this.abort(new TinferError("cancelled", "the client has gone"));
  }

  get elapsedMs(): number {
    return performance.now() - this.#start;
  }

  finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.record.ms = Math.round(this.elapsedMs * 10) / 10;
    this.#onFinish(this);
  }
}
