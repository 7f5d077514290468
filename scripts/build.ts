// `npm run build`: the native library, then dist/tinfer, one file that runs where it is copied.
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { buildNative } from "./build-native.ts";
import { generateSymbols } from "./generate-symbols.ts";

const root = join(import.meta.dir, "..");
const symbolsPath = join(root, "src", "native", "symbols.ts");

const start = performance.now();
const symbols = generateSymbols(await Bun.file(join(root, "kernels", "abi.zig")).text());
if ((await Bun.file(symbolsPath).text()) !== symbols) await Bun.write(symbolsPath, symbols);

buildNative([]);
const outfile = join(root, "dist", process.platform === "win32" ? "tinfer.exe" : "tinfer");
mkdirSync(join(root, "dist"), { recursive: true });
const result = await Bun.build({
  entrypoints: [join(root, "src", "main.ts")],
  compile: { outfile },
  minify: { syntax: true, whitespace: true, identifiers: false },
  sourcemap: "none",
  bytecode: true,
  format: "esm",
  target: "bun",
});
if (!result.success) throw new AggregateError(result.logs, "bun build failed");
const megabytes = (statSync(outfile).size / 1e6).toFixed(0);
const seconds = ((performance.now() - start) / 1000).toFixed(1);
process.stdout.write(`${outfile}: ${megabytes} MB, built in ${seconds} s\n`);
