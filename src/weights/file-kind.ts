// Recognises, from its first bytes, what a file is when it is not GGUF, so that the message can
// say what the person has in hand and what to do with it.

export interface FileKind {
  /** Ends the sentence "this is …". */
  readonly what: string;
  readonly hint: string;
}

interface Signature extends FileKind {
  readonly bytes: readonly number[];
}

const unpack = "unpack it first, then give the .gguf file inside";
const oldGgml = "this format is older than GGUF: download the model as .gguf";
const pytorch = "convert the folder that it comes from to GGUF, or download the model as .gguf";

function ascii(text: string): number[] {
  return Array.from(text, (letter) => letter.charCodeAt(0));
}

const signatures: readonly Signature[] = [
  { bytes: ascii("lmgg"), what: "an old GGML file (unversioned)", hint: oldGgml },
  { bytes: ascii("fmgg"), what: "an old GGML file (GGMF)", hint: oldGgml },
  { bytes: ascii("tjgg"), what: "an old GGML file (GGJT)", hint: oldGgml },
  { bytes: ascii("algg"), what: "an old GGML adapter (GGLA)", hint: oldGgml },
  { bytes: ascii("PK\x03\x04"), what: "a zip archive or PyTorch checkpoint", hint: pytorch },
  { bytes: [0x1f, 0x8b], what: "a gzip archive", hint: unpack },
  { bytes: [0x28, 0xb5, 0x2f, 0xfd], what: "a Zstandard archive", hint: unpack },
  { bytes: [0xfd, ...ascii("7zXZ")], what: "an xz archive", hint: unpack },
  { bytes: ascii("BZh"), what: "a bzip2 archive", hint: unpack },
  { bytes: [...ascii("7z"), 0xbc, 0xaf], what: "a 7-Zip archive", hint: unpack },
  { bytes: [0x89, ...ascii("HDF")], what: "an HDF5 file", hint: pytorch },
  { bytes: [0x7f, ...ascii("ELF")], what: "a program", hint: "give the path of a .gguf file" },
];

/** What `head`, the first bytes of a file that is not GGUF, looks like. */
export function fileKindOf(head: Uint8Array): FileKind | undefined {
  for (const signature of signatures) {
    if (signature.bytes.every((byte, index) => head[index] === byte)) return signature;
  }
  return binaryKind(head) ?? textKind(head);
}

function binaryKind(head: Uint8Array): FileKind | undefined {
  // Pickle protocol 2 to 5: 0x80, the protocol.
  if (head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5) {
    return { what: "a Python pickle (PyTorch checkpoint)", hint: pytorch };
  }
  // Safetensors: the length of the JSON header as u64, then the JSON itself.
  if (head.length >= 9 && head[8] === 0x7b && head[5] === 0 && head[6] === 0 && head[7] === 0) {
    return {
      what: "a safetensors file",
      hint: "give the folder that holds it together with config.json and tokenizer.json",
    };
  }
  if (head.every((byte) => byte === 0)) {
    return {
      what: "filled with zero bytes",
      hint: "the download was reserved on disk but never finished: download it again",
    };
  }
  return undefined;
}

function textKind(head: Uint8Array): FileKind | undefined {
  const text = new TextDecoder().decode(head).trimStart().toLowerCase();
  if (text.startsWith("version ") && text.includes("git-lfs")) {
    return {
      what: "a Git LFS pointer, not the file itself",
      hint: "run `git lfs pull` in that folder, or download the file directly",
    };
  }
  if (text.startsWith("<!doctype html") || text.startsWith("<html")) {
    return {
      what: "a web page, probably a login or error page saved as the model",
      hint: "download the file itself; private files need a token",
    };
  }
  if (text.startsWith("{") || text.startsWith("[")) {
    return { what: "a JSON text", hint: "give the path of a .gguf file, or a model folder" };
  }
  return undefined;
}
