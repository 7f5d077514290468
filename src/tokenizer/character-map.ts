// SentencePiece's compiled normalisation: replaces the longest known sequence of characters at
// each place. The table is an XOR-compressed double array (Kanda 2018) as GGUF carries it.
import { TinferError } from "../core/errors.ts";
import type { NumericArray } from "../weights/metadata.ts";
import { decodeUtf8, utf8SequenceBytes } from "./utf8.ts";

const HEADER_BYTES = 4;

export class CharacterMap {
  /** Nodes: base in bits 10 to 30, shifted by 8 more if bit 9 is set; bit 8 marks an end. */
  private readonly nodes: Uint32Array;
  /** Replacements, each closed by a zero byte. */
  private readonly replacements: Uint8Array;

  constructor(compiled: NumericArray | undefined) {
    const source = compiled ?? new Uint8Array(0);
    const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength).slice();
    const view = new DataView(bytes.buffer);
    const numBytes = bytes.length < HEADER_BYTES ? 0 : view.getUint32(0, true);
    if (numBytes % 4 !== 0 || HEADER_BYTES + numBytes > Math.max(bytes.length, HEADER_BYTES)) {
      throw invalid("is cut off");
    }
    this.nodes = Uint32Array.from({ length: numBytes / 4 }, (_, i) =>
      view.getUint32(HEADER_BYTES + i * 4, true),
    );
    this.replacements = bytes.subarray(HEADER_BYTES + numBytes);
  }

  apply(text: string): string {
    if (this.nodes.length === 0) return text;
    const input = Buffer.from(text);
    const output: Uint8Array[] = [];
    for (let at = 0; at < input.length; ) {
      const match = this.longestMatch(input, at);
      if (match.size > 0) {
        const end = this.replacements.indexOf(0, match.replacement);
        if (end < 0) throw invalid("names a replacement that does not exist");
        output.push(this.replacements.subarray(match.replacement, end));
        at += match.size;
      } else {
        const size = utf8SequenceBytes(input[at]!);
        output.push(input.subarray(at, at + size));
        at += size;
      }
    }
    return decodeUtf8(Buffer.concat(output));
  }

  private longestMatch(input: Uint8Array, start: number): { size: number; replacement: number } {
    const match = { size: 0, replacement: 0 };
    let index = baseOf(this.node(0));
    for (let at = start; at < input.length && input[at] !== 0; at++) {
      index ^= input[at]!;
      const node = this.node(index);
      // The label of the node, with bit 31 so that no leaf is taken for an inner node.
      if ((node & 0x800000ff) >>> 0 !== input[at]) break;
      index ^= baseOf(node);
      if ((node & 0x100) !== 0) {
        match.size = at - start + 1;
        match.replacement = this.node(index) & 0x7fffffff;
      }
    }
    return match;
  }

  private node(index: number): number {
    const node = this.nodes[index];
    if (node === undefined) throw invalid("points outside itself");
    return node;
  }
}

function baseOf(node: number): number {
  return (node >>> 10) << ((node & 0x200) >>> 6);
}

function invalid(what: string): TinferError {
  return new TinferError("invalidFile", `the tokenizer's character map ${what}`, {
    hint: "the file was written by a faulty converter; convert or download it again",
  });
}
