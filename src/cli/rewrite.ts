// What `quantize`, `split` and `merge` share: writing the new files with progress, and saying what
// came of it.
import { existsSync, realpathSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { type NewFile, newFileBytes, rewriteModel } from "../weights/rewrite-model.ts";
import { type SplitLimit, splitFiles } from "../weights/split-model.ts";
import { interruptSignal } from "./interrupt.ts";
import { formatBytes, out, outJson, Progress, say } from "./terminal.ts";

export interface RewriteReport {
  readonly output: readonly string[];
  readonly sourceBytes: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Tensors that were finished by an earlier run that was stopped. */
  readonly keptTensors: number;
}

/** The files of a limit; what is larger all the same is said. */
export function limitedFiles(content: NewFile, limit: SplitLimit): NewFile[] {
  const files = splitFiles(content, limit);
  const { maxBytes = Number.POSITIVE_INFINITY } = limit;
  const large = files.map(newFileBytes).filter((bytes) => bytes > maxBytes);
  if (large.length > 0) {
    const most = formatBytes(Math.max(...large));
    const counts = `${large.length} of ${files.length} files are larger than --split-max-size`;
    say(`${counts}, up to ${most}: tensors are not divided, and headers come on top`);
  }
  return files;
}

export function writeModel(
  label: string,
  input: ModelHeader,
  files: readonly NewFile[],
  numThreads: number,
): RewriteReport {
  for (const { path } of files) {
    const real = existsSync(path) ? realpathSync(path) : undefined;
    if (real === undefined || !input.paths.some((source) => realpathSync(source) === real))
      continue;
    throw new TinferError("usage", `${path} is the source itself`, { hint: "give another name" });
  }
  using interrupt = interruptSignal();
  const start = performance.now();
  const progress = new Progress(label, formatBytes);
  let keptTensors = 0;
  try {
    for (const { doneBytes, totalBytes, tensor, numKept } of rewriteModel(
      input,
      files,
      numThreads,
    )) {
      interrupt.throwIfRaised();
      keptTensors = numKept;
      progress.update(doneBytes, totalBytes, tensor);
    }
  } catch (error) {
    if (!(error instanceof TinferError) || error.code !== "cancelled") throw error;
    const hint = "the same command keeps the tensors that are finished, and goes on with the next";
    throw new TinferError("cancelled", error.message, { hint });
  } finally {
    progress.done();
  }
  return {
    output: files.map(({ path }) => path),
    sourceBytes: [...input.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0),
    bytes: files.reduce((sum, file) => sum + newFileBytes(file), 0),
    seconds: (performance.now() - start) / 1000,
    keptTensors,
  };
}

export function reportRewrite(report: RewriteReport, isJson: boolean): void {
  if (isJson) {
    outJson(report);
    return;
  }
  const { output, sourceBytes, bytes, seconds, keptTensors } = report;
  if (keptTensors > 0) say(`${keptTensors} tensors were finished before and kept`);
  const speed = `${formatBytes(Math.round(sourceBytes / seconds))}/s`;
  const more = output.length > 1 ? ` and ${output.length - 1} more` : "";
  const sizes = `${formatBytes(sourceBytes)} became ${formatBytes(bytes)}`;
  out(`${output[0]}${more}: ${sizes} in ${seconds.toFixed(1)} s, ${speed}`);
}
