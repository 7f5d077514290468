// The bytes of a piece in which U+2581 stands for a space.

export function restoreSpaces(bytes: Uint8Array): Uint8Array {
  if (!bytes.includes(0xe2)) return bytes;
  const restored = new Uint8Array(bytes.length);
  let size = 0;
  for (let i = 0; i < bytes.length; i++) {
    const isMark = bytes[i] === 0xe2 && bytes[i + 1] === 0x96 && bytes[i + 2] === 0x81;
    restored[size++] = isMark ? 0x20 : bytes[i]!;
    if (isMark) i += 2;
  }
  return restored.subarray(0, size);
}

export function startsWithMark(bytes: Uint8Array): boolean {
  return bytes[0] === 0xe2 && bytes[1] === 0x96 && bytes[2] === 0x81;
}
