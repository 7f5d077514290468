// Text from stdin and from files: UTF-8, or an error that says where it is none. Decoders that
// write U+FFFD instead would change what is measured and answered without a word.
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { TinferError } from "../core/errors.ts";

/** `origin` begins the error's sentence: a path, "stdin", a line of it. */
function decodeText(bytes: Uint8Array, origin: string): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  if (isUtf8(bytes)) return text;
  // What was replaced is the first that differs.
  const replaced = Buffer.from(text);
  const offset = bytes.findIndex((byte, index) => byte !== replaced[index]);
  const value = bytes[offset]!.toString(16).padStart(2, "0");
  throw new TinferError("usage", `${origin} is not UTF-8: 0x${value} at byte ${offset}`, {
    hint: "convert it, e.g. `iconv -f LATIN1 -t UTF-8`; `iconv -c -t UTF-8` leaves such bytes out",
  });
}

/** The text of a file, by its path or descriptor. `what` it is begins errors about it. */
export function readTextFile(file: string | number, what: string, hint: string): string {
  try {
    return decodeText(readFileSync(file), what);
  } catch (cause) {
    if (cause instanceof TinferError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") {
      throw new TinferError("notFound", `${what}: there is no such file`, { hint, cause });
    }
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TinferError("unreadable", `${what} cannot be read: ${reason}`, { hint, cause });
  }
}

/** All of stdin, without a byte order mark. */
export async function readStdin(): Promise<string> {
  return decodeText(await Bun.stdin.bytes(), "stdin").replace(/^\uFEFF/, "");
}

const lineFeed = 0x0a;

/** The lines of stdin as they come, without their ends. */
export async function* stdinLines(): AsyncGenerator<string> {
  let number = 0;
  let begun: Uint8Array[] = [];
  const take = (end: Uint8Array) => {
    const line = Buffer.concat([...begun, end]);
    begun = [];
    return decodeText(line, `line ${++number} of stdin`).replace(/\r$/, "");
  };
  for await (const chunk of Bun.stdin.stream()) {
    let start = 0;
    for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, start)) {
      yield take(chunk.subarray(start, end));
      start = end + 1;
    }
    if (start < chunk.length) begun.push(chunk.slice(start));
  }
  if (begun.length > 0) yield take(new Uint8Array());
}
