// Makes a fresh clone ready with nothing but git and Node 20+: pinned Bun and packages from npm, and
// the native library; then runs `bun <arguments>`. Does nothing that is already done.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const [, bunVersion] = manifest.packageManager.split("@");

function fail(message) {
  process.stderr.write(`setup: ${message}\n`);
  process.exit(1);
}

if (Number(process.versions.node.split(".")[0]) < 20) {
  fail(`Node 20 or newer is needed, this is ${process.versions.node}`);
}

/** Runs a command with its output on stderr, so that stdout stays the program's own. */
function run(what, command, args) {
  process.stderr.write(`setup: ${what}\n`);
  const windows = process.platform === "win32";
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], shell: windows });
  if (result.error) fail(`${command} could not be started: ${result.error.message}`);
  if (result.status !== 0) fail(`${what} failed: ${command} ${args.join(" ")}`);
}

/** The Bun executable inside the platform package that npm chose, or undefined. */
function findBun(tools) {
  const folder = join(tools, "node_modules", "@oven");
  if (!existsSync(folder)) return undefined;
  const name = process.platform === "win32" ? "bun.exe" : "bun";
  const candidates = readdirSync(folder).map((entry) => join(folder, entry, "bin", name));
  const works = (path) => {
    const result = spawnSync(path, ["--version"], { encoding: "utf8" });
    return result.status === 0 && result.stdout.trim() === bunVersion;
  };
  return candidates.filter(existsSync).find(works);
}

function installBun() {
  const tools = join(root, ".tools", `bun-${bunVersion}`);
  const found = findBun(tools);
  if (found) return found;
  mkdirSync(tools, { recursive: true });
  writeFileSync(join(tools, "package.json"), '{ "private": true }\n');
  run(`installing Bun ${bunVersion}`, "npm", [
    ...["install", "--prefix", tools, "--no-audit", "--no-fund", "--ignore-scripts"],
    ...["--loglevel=error", `bun@${bunVersion}`],
  ]);
  return findBun(tools) ?? fail(`npm brought no Bun ${bunVersion} for this platform`);
}

/** Newest modification time in milliseconds of the files below the given paths. */
function newest(paths) {
  let time = 0;
  for (const path of paths) {
    const stat = statSync(path);
    if (stat.isDirectory())
      time = Math.max(time, newest(readdirSync(path).map((e) => join(path, e))));
    else time = Math.max(time, stat.mtimeMs);
  }
  return time;
}

const inRoot = (...paths) => paths.map((path) => join(root, path));
/** True when `stamp` is missing or older than one of `sources`. */
function stale(stamp, sources) {
  return !existsSync(stamp) || statSync(stamp).mtimeMs < newest(sources);
}

const bun = installBun();
const packagesStamp = join(root, "node_modules", ".tinfer-installed");
if (stale(packagesStamp, inRoot("package.json", "bun.lock"))) {
  run("installing packages", bun, ["install", "--frozen-lockfile"]);
  writeFileSync(packagesStamp, "");
}
const nativeStamp = join(root, "zig-out", ".built");
if (stale(nativeStamp, inRoot("kernels", "build.zig", "build.zig.zon"))) {
  run("building the native library", bun, ["scripts/build-native.ts"]);
  writeFileSync(nativeStamp, "");
}
const args = process.argv.slice(2);
if (args.length > 0) {
  const program = spawnSync(bun, args, { cwd: root, stdio: "inherit" });
  process.exit(program.status ?? 130);
}
