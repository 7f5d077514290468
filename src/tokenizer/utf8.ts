// UTF-8 as the tokenizers need it: encoding into scratch, and decoding a stream of byte pieces
// into whole characters.

const textEncoder = new TextEncoder();
/** A leading U+FEFF is text like any other. */
const textDecoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Writes `text` to the front of `target`, which must hold 3 bytes per UTF-16 unit. */
export function encodeUtf8(text: string, target: Uint8Array): number {
  return textEncoder.encodeInto(text, target).written;
}

/** Invalid bytes become U+FFFD. */
export function decodeUtf8(bytes: Uint8Array): string {
  return textDecoder.decode(bytes);
}

/** The length of the character that begins with `lead` in valid UTF-8. */
export function utf8SequenceBytes(lead: number): number {
  if (lead < 0xc0) return 1;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

/** Collects bytes and yields the characters that are complete. */
export class Utf8Stream {
  /** The beginning of a character, at most 3 bytes. */
  private pending = new Uint8Array(0);

  push(bytes: Uint8Array): string {
    let all = bytes;
    if (this.pending.length > 0) {
      all = new Uint8Array(this.pending.length + bytes.length);
      all.set(this.pending);
      all.set(bytes, this.pending.length);
    }
    const complete = all.length - unfinishedBytes(all);
    this.pending = all.slice(complete);
    return complete === 0 ? "" : decodeUtf8(all.subarray(0, complete));
  }

  end(): string {
    const rest = this.pending;
    this.pending = new Uint8Array(0);
    return rest.length === 0 ? "" : decodeUtf8(rest);
  }
}

/** Bytes at the end that are the beginning of a valid character whose rest may still come. */
function unfinishedBytes(bytes: Uint8Array): number {
  const { length } = bytes;
  for (let size = 1; size <= 3 && size <= length; size++) {
    const lead = bytes[length - size]!;
    if ((lead & 0xc0) === 0x80) continue;
    if (lead < 0xc2 || lead > 0xf4 || utf8SequenceBytes(lead) <= size) return 0;
    return size === 1 || allowsSecond(lead, bytes[length - size + 1]!) ? size : 0;
  }
  return 0;
}

/** Not every continuation byte may follow: overlong forms, surrogates and beyond U+10FFFF. */
function allowsSecond(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  return lead !== 0xf4 || second < 0x90;
}
