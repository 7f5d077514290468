// Text in columns for reading, and foreign text made safe to print.
import { stringWidth } from "bun";

/** Lines of `rows` with their columns two spaces apart; numbers-only columns are the caller's. */
export function formatTable(rows: readonly (readonly string[])[], indent = "  "): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, stringWidth(cell));
    });
  }
  return rows.map((row) => {
    const cells = row.map((cell, column) => {
      const isLast = column === row.length - 1;
      return isLast ? cell : cell + " ".repeat(widths[column]! - stringWidth(cell));
    });
    return (indent + cells.join("  ")).trimEnd();
  });
}

/**
 * Text from a file on one line: control characters appear escaped, and what is longer than
 * `maxLen` ends in its length.
 */
export function oneLine(text: string, maxLen: number): string {
  const shown = text.length > maxLen ? text.slice(0, maxLen) : text;
  const safe = printable(shown).replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return text.length > maxLen ? `${safe}… (${text.length} characters)` : safe;
}

/**
 * Escapes what a terminal would obey instead of show: control characters other than line feed and
 * tab, and marks that reorder text.
 */
export function printable(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
