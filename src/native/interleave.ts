// The layout of weights in which 16 rows lie side by side (kernels/interleave.zig). Types are GGUF
// numbers here.
import { ptr } from "bun:ffi";
import { check, native } from "./library.ts";

/** `InterleaveArgs` of kernels/abi.zig. */
function makeArgs(address: number, rows: number, cols: number, typeId: number) {
  const args = new BigUint64Array(4);
  args.set([address, rows, cols].map(BigInt));
  new Uint32Array(args.buffer)[6] = typeId;
  return args;
}

/** By type and columns: plans have thousands of alike weights. */
const known = new Map<string, boolean>();

/** Whether kernels take rows of `cols` weights of the type in that layout. */
export function canInterleave(typeId: number, cols: number): boolean {
  const key = `${typeId} ${cols}`;
  const can = known.get(key) ?? native().tinfer_interleave(ptr(makeArgs(0, 0, cols, typeId))) === 0;
  known.set(key, can);
  return can;
}

/** Brings `rows` rows of `cols` weights, whole panels, into that layout where they are. */
export function interleaveRows(address: number, rows: number, cols: number, typeId: number): void {
  check(native().tinfer_interleave(ptr(makeArgs(address, rows, cols, typeId))), "interleave");
}
