// Experts that have a tensor each, as one stack: the form that GGUF files have since April 2024.
import { TinferError } from "../core/errors.ts";
import type { ModelHeader, ModelTensor } from "./model-header.ts";
import { rowsOf } from "./retype.ts";
import { derivedTensor, stackedRows } from "./rows.ts";

const expertName = /^(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.(weight|bias)$/;

/** The header with `blk.0.ffn_up_exps.weight` for `blk.0.ffn_up.0.weight` and so on. */
export function withStackedExperts(header: ModelHeader): ModelHeader {
  const tensors = new Map<string, ModelTensor>();
  const stacks = new Map<string, ModelTensor[]>();
  for (const tensor of header.tensors.values()) {
    const [, part, expert, ending] = expertName.exec(tensor.name) ?? [];
    if (part === undefined) {
      tensors.set(tensor.name, tensor);
      continue;
    }
    const name = `${part}_exps.${ending}`;
    const stack = stacks.get(name) ?? [];
    stacks.set(name, stack);
    stack[Number(expert)] = tensor;
  }
  for (const [name, experts] of stacks) {
    const [first] = experts;
    // Also finds holes, which `some` would pass over.
    const isWhole = Array.from(experts).every((expert) => {
      return expert?.type === first?.type && `${expert?.shape}` === `${first?.shape}`;
    });
    if (first === undefined || !isWhole) {
      throw new TinferError("invalidFile", `the experts of '${name}' are not all there and alike`, {
        hint: "download all files of the model again",
      });
    }
    const rows = stackedRows(experts.map((expert) => rowsOf(header, expert)));
    tensors.set(name, derivedTensor(name, first.type, [experts.length, ...first.shape], rows));
  }
  return { ...header, tensors };
}
