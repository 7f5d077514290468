// The first lines of a chat: which model answers and how, and how to take the last chat up.
import type { FoundChat } from "../chat/autosave.ts";
import type { ChatModel } from "../chat/model.ts";
import { accent, bold, dim, formatBytes, out, write } from "./terminal.ts";

export function greet(model: ChatModel, last: FoundChat | undefined, isResuming: boolean): void {
  const { facts } = model.engine;
  const name = facts.cpuVariant === "" ? facts.backend : `${facts.backend} ${facts.cpuVariant}`;
  const parts = [
    `${formatCount(facts.parameters)} parameters`,
    `${facts.mainType}, ${formatBytes(facts.weightBytes)}`,
    `context ${facts.maxContextLen}`,
    `${name}, ${facts.numThreads} ${facts.numThreads === 1 ? "thread" : "threads"}`,
  ];
  out("");
  out(`${accent(bold("tinfer"))}  ${bold(model.label)}  ${dim(parts.join(" · "))}`);
  if (model.argument === undefined) {
    out("This is the built-in story teller, a very small model: begin a story, it goes on.");
  }
  out(
    `${bold("/help")} lists the commands, ${bold("Ctrl-C")} stops an answer, ${bold("Ctrl-D")} leaves.`,
  );
  if (last !== undefined && !isResuming) {
    const { messages, savedAt } = last.chat;
    const age = formatAge(Date.now() - Date.parse(savedAt));
    out(dim(`/load takes up the last chat: ${messages.length} messages, ${age}`));
  }
  out("");
}

/** 260032 → "260k", 1235814432 → "1.24B". */
function formatCount(count: number): string {
  const units = [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const;
  const [size, unit] = units.find(([limit]) => count >= limit) ?? [1, ""];
  return `${Number((count / size).toPrecision(3))}${unit}`;
}

function formatAge(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ago`;
  return `${Math.floor(hours / 24)} days ago`;
}

/** Says that a model is loading where that takes long enough to wonder. */
export class LoadingNote implements Disposable {
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #isShown = false;

  constructor(isInteractive: boolean) {
    if (!isInteractive) return;
    this.#timer = setTimeout(() => {
      this.#isShown = true;
      write(dim("loading the model …"));
    }, 300);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    if (this.#isShown) write("\r\x1b[K");
    this.#isShown = false;
  }
}
