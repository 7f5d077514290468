// The model inside the executable: stories260K (MIT, see assets/README.md), a story teller small
// enough to try everything with.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import embedded from "../../assets/stories260K.gguf" with { type: "file" };
import type { SpecialTokens } from "../tokenizer/tokenizer.ts";

/** What it is asked when nobody says anything. */
export const builtInPrompt = "Once upon a time";

/** Its stories lose their thread beyond this many tokens. */
export const builtInMaxTokens = 400;

/** The tokens that end its answers: its training put BOS between two stories. */
export function builtInEndIds({ bosId, endOfGenerationIds }: SpecialTokens): number[] {
  return bosId === undefined ? [...endOfGenerationIds] : [...endOfGenerationIds, bosId];
}

/** Path of a real file that can be mapped; a compiled binary's own files cannot. */
export function builtInModel(): string {
  if (!embedded.startsWith("/$bunfs") && !embedded.includes("~BUN")) return embedded;
  const bytes = readFileSync(embedded);
  const folders = [tmpdir(), process.env["XDG_CACHE_HOME"], process.env["HOME"], "/dev/shm"];
  let failure: unknown;
  for (const folder of folders) {
    if (folder === undefined || folder === "") continue;
    const path = join(folder, `tinfer-${process.getuid?.() ?? 0}`, "stories260K.gguf");
    try {
      if (existsSync(path) && readFileSync(path).equals(bytes)) return path;
      mkdirSync(join(path, ".."), { recursive: true });
      const draft = `${path}.${process.pid}`;
      writeFileSync(draft, bytes);
      renameSync(draft, path);
      return path;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
