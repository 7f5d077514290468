// Where threads run and memory lies: --cpus, --numa, --mlock, and how many threads by default.
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { allowedCpus, memoryNodes } from "../../src/engine/machine.ts";
import { cleanEnvironment, root, storyModel, tinfer, tinferCommand, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

const story = ["run", storyModel, "Once", "--raw", "--temperature", "0", "--max-tokens", "8"];
const isLinux = process.platform === "linux";
const [firstCpu, secondCpu] = allowedCpus();

test("--cpus, --numa and --mlock change nothing of the answer, or say why they cannot", async () => {
  const plain = await tinfer(story);
  expect(plain.exitCode).toBe(0);
  const [pinned, spread, locked] = await Promise.all([
    tinfer([...story, "--cpus", String(firstCpu)]),
    tinfer([...story, "--numa"]),
    tinfer([...story, "--mlock", "--load", "eager"]),
  ]);
  if (isLinux) expect(pinned).toEqual(plain);
  else expect(pinned.stderr).toContain("cannot be pinned");
  if (memoryNodes().length === 1) {
    expect(spread.stderr).toContain("one memory node");
    expect(spread.stdout).toBe(plain.stdout);
  }
  if (locked.exitCode === 0) expect(locked.stdout).toBe(plain.stdout);
  else expect(locked.stderr).toMatch(/--mlock: \d+ bytes cannot be locked in memory\s+.*ulimit/s);
});

test("CPUs that are not there, too few or misspelt are wrong usage", async () => {
  const wrong = [
    ["--cpus", "99999"],
    ["--cpus", "one"],
    ["--cpus", String(firstCpu), "--threads", "2"],
  ];
  const ends = await Promise.all(wrong.map((flags) => tinfer([...story, ...flags])));
  for (const { exitCode, stderr } of ends) {
    expect(exitCode).toBe(2);
    expect(stderr).toContain("--cpus");
  }
});

test.skipIf(!isLinux || secondCpu === undefined)("threads are pinned one to a CPU", () => {
  const script = `
    import { LoadedModel } from "${join(root, "src/engine/loaded-model.ts")}";
    import { defaultModelOptions } from "${join(root, "src/engine/options.ts")}";
    import { builtInModel } from "${join(root, "src/cli/built-in-model.ts")}";
    import { readdirSync, readFileSync } from "node:fs";
    const cpus = [${firstCpu}, ${secondCpu}];
    using model = new LoadedModel(builtInModel(), { ...defaultModelOptions, cpus });
    const lists = readdirSync("/proc/self/task").map((task) => {
      const status = readFileSync("/proc/self/task/" + task + "/status", "utf8");
      return /^Cpus_allowed_list:\\s*(\\S+)/m.exec(status)[1];
    });
    console.log(JSON.stringify({ threads: model.facts.numThreads, lists }));`;
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", script], { cwd: root });
  expect(stderr.toString()).toBe("");
  const { threads, lists } = JSON.parse(stdout.toString()) as { threads: number; lists: string[] };
  expect(threads).toBe(2);
  expect(lists.filter((list) => list === String(secondCpu))).toHaveLength(1);
});

test.skipIf(!isLinux || Bun.which("taskset") === null)(
  "the default is one thread per core that is open to the process",
  async () => {
    const command = ["taskset", "-c", String(firstCpu), ...tinferCommand(), "doctor", "--json"];
    const child = Bun.spawn(command, { env: cleanEnvironment(), stdin: "ignore", stdout: "pipe" });
    const report = (await new Response(child.stdout).json()) as { cpu: { defaultThreads: number } };
    expect(report.cpu.defaultThreads).toBe(1);
    const { cpu } = await tinferJson<{ cpu: { defaultThreads: number } }>(["doctor"]);
    expect(cpu.defaultThreads).toBeLessThanOrEqual(allowedCpus().length);
  },
);
