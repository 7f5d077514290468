// `tinfer pull`: fetches a model into the store, with progress; what has arrived is never lost.
import { type PullProgress, pullModel } from "../store/pull.ts";
import { ModelStore } from "../store/store.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { interruptSignal } from "./interrupt.ts";
import { formatBytes, out, outJson, Progress, say } from "./terminal.ts";

export const pull: Command = {
  name: "pull",
  summary: "Fetch a model: resumes after a cut, checks its SHA-256.",
  positionals: [
    {
      name: "REF",
      description: "hf:user/repo[:QUANT], ollama:name[:tag], an https address, or a stored name",
      required: true,
    },
  ],
  flags: {
    sha256: {
      kind: "text",
      placeholder: "HEX",
      description: "the hash that the file must have, where the source publishes none",
    },
    json: { kind: "boolean", description: "the stored model as JSON", default: false },
  },
  examples: [
    ["tinfer pull hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "one quantisation of a model"],
    ["tinfer pull https://example.org/model.gguf --sha256 9f86…", "any address, checked"],
    ["tinfer pull llama-3.2-1b-instruct", "a stored model again: fetches what has changed"],
  ],
  run: pullCommand,
};

async function pullCommand(values: FlagValues): Promise<void> {
  const reference = values.positionals[0]!;
  const expectedSha256 = values.text("sha256");
  using interrupt = interruptSignal();
  using report = new PullReport();
  const model = await pullModel(new ModelStore(), reference, {
    signal: interrupt.signal,
    onProgress: (progress) => report.update(progress),
    ...(expectedSha256 === undefined ? {} : { expectedSha256 }),
  });
  report[Symbol.dispose]();
  if (values.boolean("json")) {
    outJson(model);
    return;
  }
  const name = model.tag === "latest" ? model.name : `${model.name}:${model.tag}`;
  out(`${name} is here: ${formatBytes(model.bytes)}, sha256 ${model.sha256}`);
  say(`  tinfer run ${name} 'your question'`);
}

/** One bar or line per file and phase, notes in between. */
class PullReport implements Disposable {
  #progress: Progress | undefined;
  #key = "";
  #speed = new Speed();

  update({ fileName, phase, receivedBytes, totalBytes, note }: PullProgress): void {
    const key = `${fileName} ${phase}`;
    if (key !== this.#key || note !== undefined) this[Symbol.dispose]();
    if (note !== undefined) say(note);
    this.#key = key;
    if (phase === "restarted") {
      if (note === undefined) say(`${fileName} has changed at its source: from the beginning`);
      return;
    }
    if (phase !== "downloading" && phase !== "verifying") return;
    const doing = phase === "verifying" ? `checking ${fileName}` : fileName;
    if (this.#progress === undefined) this.#speed = new Speed();
    this.#progress ??= new Progress(doing, formatBytes);
    this.#progress.update(receivedBytes, totalBytes, this.#speed.note(receivedBytes, totalBytes));
  }

  [Symbol.dispose](): void {
    this.#progress?.done();
    this.#progress = undefined;
  }
}

/** Bytes per second since the first report, and the time that is left. */
class Speed {
  #start: { readonly time: number; readonly bytes: number } | undefined;

  note(bytes: number, total: number | undefined): string {
    const time = performance.now();
    this.#start ??= { time, bytes };
    const seconds = (time - this.#start.time) / 1000;
    if (seconds < 0.5 || bytes <= this.#start.bytes) return "";
    const perSecond = (bytes - this.#start.bytes) / seconds;
    const left = total === undefined ? "" : `, ${formatTime((total - bytes) / perSecond)} left`;
    return `${formatBytes(Math.round(perSecond))}/s${left}`;
  }
}

function formatTime(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
