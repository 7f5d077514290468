// One prompt through the node-llama-cpp package in a folder of the caller's:
// node judge-node-llama-cpp.mjs FOLDER MODEL THREADS TOKENS → {"tokensPerSecond": N}
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, modelPath, threads, numTokens] = process.argv.slice(2);
const entry = createRequire(join(folder, "package.json")).resolve("node-llama-cpp");
const { getLlama } = await import(pathToFileURL(entry).href);

const llama = await getLlama({ gpu: false, maxThreads: Number(threads), build: "never" });
const model = await llama.loadModel({ modelPath });
const count = Number(numTokens);
const context = await model.createContext({ contextSize: count + 64, batchSize: 512 });
const sequence = context.getSequence();
const tokens = Array.from({ length: count }, (_, index) => (index * 7919 + 13) % 30000);
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 32));
await sequence.clearHistory();
const start = performance.now();
await sequence.evaluateWithoutGeneratingNewTokens(tokens);
const seconds = (performance.now() - start) / 1000;
process.stdout.write(JSON.stringify({ tokensPerSecond: count / seconds }));
await context.dispose();
process.exit(0);
