// Help, wrong usage and exit codes of every command.
import { expect, setDefaultTimeout, test } from "bun:test";
import { type Finished, tinfer } from "./spawn.ts";

setDefaultTimeout(60_000);

/** Names from the overview: a command that is not listed there does not exist for people. */
async function commandNames(): Promise<string[]> {
  const { stdout } = await tinfer(["--help"]);
  return [...stdout.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].map((match) => match[1]!);
}

function expectUsageError({ stdout, stderr, exitCode }: Finished, ...texts: string[]): void {
  expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
  for (const text of texts) expect(stderr).toContain(text);
  expect(stderr).not.toMatch(/\n\s+at /);
}

test("the overview lists the commands; no arguments, help and --version work", async () => {
  const runs = await Promise.all([[], ["help"], ["-h"], ["--version"]].map((args) => tinfer(args)));
  expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0]);
  expect(runs[0]!.stdout).toBe(runs[1]!.stdout);
  expect(runs[0]!.stdout).toBe(runs[2]!.stdout);
  expect(runs[3]!.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  const wanted = ["run", "pull", "ls", "show", "cp", "rm", "bench", "embed", "tokenize", "render"];
  const names = await commandNames();
  expect(names).toEqual(expect.arrayContaining([...wanted, "logits", "plan", "doctor"]));
});

test("every command explains itself, with examples, and knows no other flag", async () => {
  const names = await commandNames();
  const runs = names.map(async (name) => {
    const help = await tinfer([name, "--help"]);
    expect({ name, exitCode: help.exitCode, stderr: help.stderr }).toEqual({
      name,
      exitCode: 0,
      stderr: "",
    });
    for (const part of [`Usage: tinfer ${name}`, "Flags:", "--help", "Examples:", "  tinfer "]) {
      expect(help.stdout).toContain(part);
    }
    expectUsageError(await tinfer([name, "--no-such-flag"]), "--no-such-flag");
  });
  await Promise.all(runs);
});

test("flags show their default, their choices and their variable", async () => {
  const { stdout } = await tinfer(["help", "plan"]);
  expect(stdout).toContain("--kv-type f32|f16|bf16|q8_0|q4_0");
  expect(stdout).toContain(
    "default: f32 for F32 weights, f16 for F16 and Q8_0, else bf16 [TINFER_KV_TYPE]",
  );
  expect(stdout).toContain('(default "auto") [TINFER_BACKEND]');
  expect(stdout).toContain("(default 1) [TINFER_PARALLEL]");
  // A required MODEL has no default.
  expect((await tinfer(["embed", "--help"])).stdout).not.toContain("built-in");
});

test("wrong usage names the nearest match and ends with 2", async () => {
  const [command, flag, choice, number, boolean, missing, extra, ...bench] = await Promise.all([
    tinfer(["shwo"]),
    tinfer(["show", "--jsn"]),
    tinfer(["plan", "--kv-type", "f15"]),
    tinfer(["run", "--temperature", "warm"]),
    tinfer(["show", "--json=perhaps"]),
    tinfer(["cp", "one"]),
    tinfer(["plan", "a", "b"]),
    tinfer(["bench", "--type", "q8_0"]),
    tinfer(["bench", "-o", "csv", "--json"]),
  ]);
  expectUsageError(command, "shwo", "'show'");
  expectUsageError(flag, "--jsn", "--json");
  expectUsageError(choice, "f15", "f16, bf16");
  expectUsageError(number, "--temperature", "warm");
  expectUsageError(boolean, "--json", "perhaps");
  expectUsageError(missing, "TO");
  expectUsageError(extra, "'b'");
  expectUsageError(bench[0]!, "--type needs --shape");
  expectUsageError(bench[1]!, "either --output or --json");
});
