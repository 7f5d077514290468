// The search for a tuning with made-up times, and the files that keep what was found.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultTuning, isTuning, type Tuning } from "../../src/backend/tuning.ts";
import {
  listTunings,
  machineKey,
  readTuning,
  type TuningKey,
  writeTuning,
} from "../../src/engine/tuning-file.ts";
import {
  type Crossover,
  crossoverOf,
  type MeasureStep,
  searchTuning,
} from "../../src/engine/tuning-search.ts";

/** Runs the search to its end; also counts its steps and what they took. */
function search(measure: MeasureStep, crossover: Crossover = "rowsRegime", budgetMs = 1000) {
  let [numSteps, spentMs] = [0, 0];
  const count: MeasureStep = (tuning, numRows) => {
    const ms = measure(tuning, numRows);
    spentMs += ms;
    numSteps++;
    return ms;
  };
  const steps = searchTuning(count, crossover, defaultTuning, budgetMs);
  for (let result = steps.next(); ; result = steps.next()) {
    if (result.done) return { tuning: result.value, numSteps, spentMs };
  }
}

const usesTiles = (tuning: Tuning, numRows: number) => numRows > tuning.rowsRegime;
/** Regimes that cross just above 4 rows. */
const usual: MeasureStep = (tuning, numRows) => (usesTiles(tuning, numRows) ? 4.5 : numRows);

describe("search", () => {
  test("defaults stay where nothing is better, and the budget holds", () => {
    const { tuning, spentMs } = search(usual);
    expect(tuning).toEqual(defaultTuning);
    expect(spentMs).toBeLessThan(1300);
  });

  test("what is clearly faster is taken, what is hardly faster is not", () => {
    const faster = (tuning: Tuning, wanted: number) => (tuning.prefetchBytes === wanted ? 1 : 0);
    const clear = search((t, rows) => usual(t, rows) * (1 - 0.1 * faster(t, 2560)));
    expect(clear.tuning).toEqual({ ...defaultTuning, prefetchBytes: 2560 });
    const slight = search((t, rows) => usual(t, rows) * (1 - 0.01 * faster(t, 2560)));
    expect(slight.tuning).toEqual(defaultTuning);
    const streams = search((t, rows) => usual(t, rows) * (t.streamBytes === 65536 ? 0.9 : 1));
    expect(streams.tuning.streamBytes).toBe(65536);
    // Counts only where the rows take the regime that the field is of.
    const inRows = (t: Tuning, rows: number) => rows > 1 && !usesTiles(t, rows);
    const cached = search((t, rows) => {
      return usual(t, rows) * (inRows(t, rows) && t.cachedStreamBytes === 262144 ? 0.9 : 1);
    });
    expect(cached.tuning.cachedStreamBytes).toBe(262144);
  });

  test("outliers among the samples do not decide", () => {
    let count = 0;
    const noisy = search((t, rows) => usual(t, rows) * (count++ % 7 === 0 ? 7 : 1));
    expect(noisy.tuning).toEqual(defaultTuning);
  });

  test("the crossover moves both ways", () => {
    const crossing = (at: number): MeasureStep => {
      return (tuning, numRows) => (usesTiles(tuning, numRows) ? at + 0.5 : numRows) / 10;
    };
    expect(search(crossing(12)).tuning.rowsRegime).toBe(12);
    expect(search(crossing(40)).tuning.rowsRegime).toBe(32);
    expect(search(crossing(5)).tuning.rowsRegime).toBe(5);
    expect(search(crossing(1)).tuning.rowsRegime).toBe(1);
  });

  test("float weights have a crossover of their own", () => {
    expect(crossoverOf("q4_0")).toBe("rowsRegime");
    for (const type of ["bf16", "f8_e4m3"]) expect(crossoverOf(type)).toBe("floatRowsRegime");
    const measure: MeasureStep = ({ floatRowsRegime }, numRows) => {
      return (numRows > floatRowsRegime ? 6.5 : numRows) / 10;
    };
    const { tuning } = search(measure, "floatRowsRegime");
    expect(tuning).toEqual({ ...defaultTuning, floatRowsRegime: 7 });
  });

  test("a machine that is too slow for the budget keeps the defaults soon", () => {
    const { tuning, numSteps } = search((t, rows) => 2000 * usual({ ...t, rowsRegime: 0 }, rows));
    expect(tuning).toEqual(defaultTuning);
    expect(numSteps).toBeLessThan(10);
  });
});

test("bounds are those of the native library", () => {
  expect(isTuning(defaultTuning)).toBe(true);
  const wrong = [
    ...[{ rowsRegime: 33 }, { prefetchBytes: -1 }, { streamBytes: 0.5 }, { spinLimit: 2 ** 25 }],
    ...[{ cachedStreamBytes: "1" }, { rowsRegime: undefined }],
  ];
  for (const fields of wrong) expect(isTuning({ ...defaultTuning, ...fields })).toBe(false);
  for (const value of [null, 1, "x", [], {}]) expect(isTuning(value)).toBe(false);
});

describe("files", () => {
  let home = "";
  let before: string | undefined;
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), "tinfer-tuning-"));
    before = process.env["TINFER_HOME"];
    process.env["TINFER_HOME"] = home;
  });
  afterEach(() => {
    if (before === undefined) delete process.env["TINFER_HOME"];
    else process.env["TINFER_HOME"] = before;
    rmSync(home, { recursive: true });
  });

  const key: TuningKey = {
    ...machineKey(),
    ...{ cpuVariant: "v4", numThreads: 2, weightType: "q4_k", interleaved: true },
  };
  const tuning: Tuning = { ...defaultTuning, prefetchBytes: 1024 };

  test("what was written is read, for its own key alone", () => {
    expect(readTuning(key)).toBeUndefined();
    expect(listTunings()).toEqual([]);
    expect(writeTuning(key, tuning)).toBe(true);
    expect(readTuning(key)).toEqual(tuning);
    expect(readdirSync(join(home, "cache")).length).toBe(1);
    const others = [
      ...[{ numThreads: 3 }, { weightType: "q8_0" }, { interleaved: false }],
      ...[{ cpu: "other" }, { version: "0" }],
    ];
    for (const other of others) expect(readTuning({ ...key, ...other })).toBeUndefined();
    expect(listTunings()[0]).toMatchObject({ content: { key, tuning }, isOurs: true });
  });

  test("unreadable, foreign and impossible files count as none, and can be replaced", () => {
    writeTuning(key, tuning);
    const { path } = listTunings()[0]!;
    const foreign = { key: { ...key, cpu: "other" }, tuning };
    const impossible = { key, tuning: { ...tuning, rowsRegime: 1e9 } };
    for (const content of ["", "{", "null", "[]", '{"key":1,"tuning":2}']) {
      writeFileSync(path, content);
      expect(readTuning(key)).toBeUndefined();
      expect(listTunings()[0]).toMatchObject({ content: undefined, isOurs: false });
    }
    for (const content of [foreign, impossible]) {
      writeFileSync(path, JSON.stringify(content));
      expect(readTuning(key)).toBeUndefined();
      expect(listTunings()[0]!.isOurs).toBe(false);
    }
    expect(writeTuning(key, tuning)).toBe(true);
    expect(readTuning(key)).toEqual(tuning);
  });

  test("a folder that cannot be made is no error", () => {
    writeFileSync(join(home, "cache"), "a file in the way");
    expect(writeTuning(key, tuning)).toBe(false);
    expect(readTuning(key)).toBeUndefined();
    expect(listTunings()).toEqual([]);
    expect(existsSync(join(home, "cache"))).toBe(true);
  });
});
