// Assembles the command tree and runs it; the only place that ends the process.
import { defineCommand, runCommand } from "citty";
import manifest from "../package.json" with { type: "json" };
import { bench } from "./cli/bench.ts";
import { chat } from "./cli/chat.ts";
import { type Command, isHelp, toCitty } from "./cli/command.ts";
import { convert } from "./cli/convert.ts";
import { makeDoctor } from "./cli/doctor.ts";
import { embed } from "./cli/embed.ts";
import { imatrix } from "./cli/imatrix.ts";
import { logits } from "./cli/logits.ts";
import { perplexity } from "./cli/perplexity.ts";
import { plan } from "./cli/plan.ts";
import { pull } from "./cli/pull.ts";
import { quantize } from "./cli/quantize.ts";
import { render } from "./cli/render.ts";
import { run } from "./cli/run.ts";
import { serve } from "./cli/serve.ts";
import { unknownKeys } from "./cli/settings-report.ts";
import { show } from "./cli/show.ts";
import { merge, split } from "./cli/split-merge.ts";
import { cp, ls, rm } from "./cli/store-commands.ts";
import { OutputClosed, out, sayError, warn } from "./cli/terminal.ts";
import { tokenize } from "./cli/tokenize.ts";
import { exitCodeOf, nearestMatch, TinferError } from "./core/errors.ts";

/** In the order of the overview. */
const commands: readonly Command[] = [
  run,
  chat,
  serve,
  pull,
  ls,
  show,
  cp,
  rm,
  convert,
  quantize,
  split,
  merge,
  imatrix,
  perplexity,
  bench,
  embed,
  tokenize,
  render,
  logits,
  plan,
  makeDoctor(() => commands),
];

const names = commands.flatMap((command) => [command.name, ...(command.aliases ?? [])]);

function overview(): string {
  const lines = [
    `tinfer ${manifest.version}: ${manifest.description}`,
    "",
    "Usage: tinfer COMMAND [arguments] [flags]",
    "",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(10)} ${summary}`),
    "",
    "tinfer COMMAND --help shows flags and examples.",
  ];
  return lines.join("\n");
}

/** What is misspelt in the config file should not go unnoticed; `doctor` lists it itself. */
function warnOfKeys(command: Command, config: Readonly<Record<string, unknown>>): void {
  if (command.name === "doctor") return;
  const flags = new Set(commands.flatMap((one) => Object.keys(one.flags)));
  for (const problem of unknownKeys(flags, config)) warn(problem);
}

async function main(args: readonly string[]): Promise<void> {
  const [first, ...rest] = args;
  if (first === "help" && rest[0] !== undefined) return main([rest[0], "--help"]);
  if (first === undefined || isHelp(first) || first === "help") return out(overview());
  if (first === "--version" || first === "-v") return out(manifest.version);
  const command = commands.find((c) => c.name === first || c.aliases?.includes(first));
  if (command === undefined) {
    const nearest = nearestMatch(first, names);
    throw new TinferError("usage", `unknown command '${first}'`, {
      hint: nearest ? `did you mean '${nearest}'?` : "tinfer --help lists the commands",
    });
  }
  const root = defineCommand({
    subCommands: { [first]: toCitty(command, (config) => warnOfKeys(command, config)) },
  });
  await runCommand(root, { rawArgs: [first, ...rest] });
}

// The engine's Worker is this same file in a compiled binary; there only the engine runs.
if (Bun.isMainThread) {
  let exitCode = 0;
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof OutputClosed)) {
      sayError(error);
      exitCode = exitCodeOf(error);
      // Behind work that never yields, the handler that knows the signal has its turn only now.
      await Bun.sleep(0);
      if (exitCode === 130) exitCode = Number(process.exitCode ?? exitCode);
    }
  }
  process.exit(exitCode);
}
