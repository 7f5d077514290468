// Where settings come from: flag before environment before config file before default, and
// `tinfer doctor`, which says so.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MachineReport } from "../../src/cli/machine-report.ts";
import type { ModelMemory } from "../../src/cli/plan.ts";
import type { SettingsReport } from "../../src/cli/settings-report.ts";
import { tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

interface Doctor extends MachineReport, SettingsReport {
  store: { folder: string; models: number; bytes: number; freeBytes: number };
  config: { path: string; exists: boolean };
}

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-settings-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function config(name: string, text: string): string {
  const path = join(folder, `${name}.toml`);
  writeFileSync(path, text);
  return path;
}

test("flag before environment before config before default", async () => {
  const path = config("ctx", "ctx = 320\n");
  const blocks = async (args: string[], env: Record<string, string>) => {
    const memory = await tinferJson<ModelMemory>(["plan", ...args], { env });
    return memory.maxContextLen;
  };
  const both = { TINFER_CONFIG: path, TINFER_CTX: "640" };
  const found = await Promise.all([
    blocks(["--ctx", "960"], both),
    blocks([], both),
    blocks([], { TINFER_CONFIG: path }),
    blocks([], {}),
  ]);
  expect(found).toEqual([960, 640, 320, 2048]);
});

test("the config file lies where XDG says, and must be what it should be", async () => {
  const home = join(folder, "xdg");
  mkdirSync(join(home, "tinfer"), { recursive: true });
  writeFileSync(join(home, "tinfer", "config.toml"), "ctx = 512\n");
  const [found, absent, broken, wrong] = await Promise.all([
    tinferJson<ModelMemory>(["plan"], { env: { XDG_CONFIG_HOME: home } }),
    tinfer(["plan"], { env: { TINFER_CONFIG: join(folder, "absent.toml") } }),
    tinfer(["plan"], { env: { TINFER_CONFIG: config("broken", "ctx = = 3") } }),
    tinfer(["plan"], { env: { TINFER_CTX: "many" } }),
  ]);
  expect(found.maxContextLen).toBe(512);
  expect(absent).toMatchObject({ stdout: "", exitCode: 1 });
  expect(broken).toMatchObject({ stdout: "", exitCode: 2 });
  expect(broken.stderr).toContain("broken.toml");
  expect(wrong).toMatchObject({ stdout: "", exitCode: 2 });
  expect(wrong.stderr).toContain("TINFER_CTX");
});

test("errors name what was set: the flag, the variable or the key of the config file", async () => {
  const run = ["run", "--raw", "--max-tokens", "1"];
  const file = config("seed", "seed = -3\n");
  const [flag, last, bias, cpu, batch, variable, key] = await Promise.all([
    tinfer([...run, "--top-k", "-1"]),
    tinfer([...run, "--repeat-last-n", "5000"]),
    tinfer([...run, "--logit-bias", "99999=1"]),
    tinfer([...run, "--cpu", "nope"]),
    tinfer(["bench", "-b", "100000"]),
    tinfer(run, { env: { TINFER_THREADS: "-1" } }),
    tinfer(run, { env: { TINFER_CONFIG: file } }),
  ]);
  for (const { stdout, exitCode } of [flag, last, bias, cpu, batch, variable, key]) {
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
  }
  expect(flag.stderr).toContain("--top-k must be an integer from 0");
  expect(last.stderr).toContain("--repeat-last-n must be");
  expect(bias.stderr).toContain("--logit-bias names the token id 99999");
  expect(cpu.stderr).toContain("--cpu is 'nope'");
  expect(batch.stderr).toContain("--batch is '100000'");
  expect(variable.stderr).toContain("TINFER_THREADS is -1");
  expect(key.stderr).toContain("config key 'seed' must be");
});

test("keys of the config file that no command knows are warned of by all", async () => {
  const path = config("keys", "threds = 4\nport = 8080\n[run]\nctx = 320\n");
  const { stderr, exitCode } = await tinfer(["plan"], { env: { TINFER_CONFIG: path } });
  expect(exitCode).toBe(0);
  expect(stderr).toContain("config key 'threds' has no effect; did you mean threads?");
  expect(stderr).toContain("config table [run] has no effect");
  expect(stderr).not.toContain("port");
});

test("doctor reports machine, store and settings with their source", async () => {
  const env = {
    TINFER_HOME: join(folder, "store"),
    TINFER_CONFIG: config("doctor", 'kv-type = "q8_0"\nthreds = 2\n'),
    TINFER_TOP_K: "7",
    TINFER_TEMPERATUR: "1",
  };
  const [doctor, text] = await Promise.all([
    tinferJson<Doctor>(["doctor"], { env }),
    tinfer(["doctor"], { env }),
  ]);
  const setting = (flag: string) => {
    const { value, source } = doctor.settings.find((entry) => entry.flag === flag)!;
    return { value, source };
  };
  expect(setting("kv-type")).toEqual({ value: "q8_0", source: "config" });
  expect(setting("top-k")).toEqual({ value: 7, source: "environment" });
  expect(setting("backend")).toEqual({ value: "auto", source: "default" });
  expect(doctor.problems).toEqual([
    "TINFER_TEMPERATUR has no effect; did you mean TINFER_TEMPERATURE?",
    "config key 'threds' has no effect; did you mean threads?",
  ]);
  expect(doctor.store).toMatchObject({ folder: env.TINFER_HOME, models: 0, bytes: 0 });
  expect(doctor.store.freeBytes).toBeGreaterThan(0);
  expect(doctor.config).toEqual({ path: env.TINFER_CONFIG, exists: true });
  const { cpu, memory, gpus, library } = doctor;
  expect(cpu.variants.find(({ name }) => name === cpu.variant)?.available).toBe(true);
  for (const { available, reason } of [...cpu.variants, ...gpus]) {
    expect(available).toBe(reason === null);
  }
  expect(memory.availableBytes).toBeGreaterThan(0);
  expect(memory.availableBytes).toBeLessThanOrEqual(memory.totalBytes);
  expect(library.origin).toContain("tinfer");
  expect(text).toMatchObject({ stderr: "", exitCode: 0 });
  for (const part of [cpu.model, cpu.variant, "TINFER_TOP_K", "threds"]) {
    expect(text.stdout).toContain(part);
  }
});

test("a forced CPU variant is used, or named as a problem", async () => {
  const { cpu } = await tinferJson<Doctor>(["doctor"]);
  const [first] = cpu.variants;
  const [forced, wrong] = await Promise.all([
    tinferJson<Doctor>(["doctor"], { env: { TINFER_CPU: first!.name } }),
    tinferJson<Doctor>(["doctor"], { env: { TINFER_CPU: "v99" } }),
  ]);
  expect(forced.cpu.variant).toBe(first!.name);
  expect(wrong.cpu.variant).toBe(cpu.variant);
  expect(wrong.problems[0]).toContain("v99");
});

test("doctor shows tunings, and on/off are booleans in the environment", async () => {
  const { tuning, settings } = await tinferJson<{
    tuning: { folder: string; files: unknown[] };
    settings: { flag: string; value: unknown; source: string }[];
  }>(["doctor"], { env: { TINFER_TUNING: "off", TINFER_HOME: folder } });
  expect(tuning).toEqual({ folder: join(folder, "cache"), files: [] });
  const own = settings.find(({ flag }) => flag.endsWith("tuning"));
  expect(own).toMatchObject({ value: false, source: "environment" });
});
