// Records one benchmark test for its roofline report: op times of the counted runs, and a sample of
// the machine's limits beside each of them, since both move with what else the machine does.
import { OpTimes } from "../backend/op-times.ts";
import type { LoadedModel } from "./loaded-model.ts";
import { defaultNumThreads } from "./machine.ts";
import { LimitProbe, longestRun } from "./machine-limits.ts";
import type { StepShape } from "./op-cost.ts";
import { makeRoofline, type RooflineReport } from "./roofline.ts";
import { adviseOn } from "./roofline-advice.ts";

/** Samples of one thread's limits, which no ceiling depends on. */
const oneThreadSamples = 3;

export class RooflineRecorder implements Disposable {
  readonly #model: LoadedModel;
  readonly #probe: LimitProbe;
  readonly #times: OpTimes;
  #steps: readonly StepShape[] = [];
  #runMs: number[] = [];
  /** Bytes per second read before each run; one more at the end. */
  #reads: number[] = [];

  constructor(model: LoadedModel) {
    this.#model = model;
    const { file, memoryPlan, session, plan } = model;
    const tensors = plan.weights.filter(({ constant }) => constant === undefined);
    const weights = longestRun(
      tensors.map(({ name }) => ({ address: file.address(name), bytes: file.bytes(name) })),
    );
    const { numThreads, layout } = memoryPlan;
    using cleanup = new DisposableStack();
    this.#probe = cleanup.use(new LimitProbe(session, numThreads, weights, layout.arenaBytes));
    this.#times = new OpTimes(plan.ops.length, numThreads);
    for (let i = 0; i < oneThreadSamples; i++) this.#probe.sampleOneThread();
    cleanup.move();
  }

  /** Memory taken for measuring, which the model alone would not need. */
  get takenBytes(): number {
    return this.#probe.takenBytes;
  }

  /** Starts a new test, whose every run takes these steps. */
  begin(steps: readonly StepShape[]): void {
    this.#steps = steps;
    this.#runMs = [];
    this.#reads = [];
    this.#times.clear();
  }

  /** Makes one counted run, which returns its milliseconds. */
  record(run: () => number): number {
    this.#reads.push(this.#probe.sample());
    this.#model.session.recordOpTimes(this.#times);
    try {
      const ms = run();
      this.#runMs.push(ms);
      return ms;
    } finally {
      this.#model.session.recordOpTimes(undefined);
    }
  }

  report(test: { generates: boolean; batch: number }): RooflineReport {
    this.#reads.push(this.#probe.sample());
    const { plan, memoryPlan, facts } = this.#model;
    const { limits, numThreads } = memoryPlan;
    const numTokens = this.#steps.reduce((sum, s) => sum + s.numTokens * s.numSequences, 0);
    const measured = {
      ...{ plan, kvTypes: limits, steps: this.#steps, times: this.#times, numTokens },
      runs: this.#runMs.map((ms, i) => {
        return { ms, readBytesPerSecond: (this.#reads[i]! + this.#reads[i + 1]!) / 2 };
      }),
    };
    return makeRoofline(measured, this.#probe.limits, (report) => {
      const { mainType, weightBytes, parameters } = facts;
      const kvType = limits.kvTypeK;
      const defaultThreads = defaultNumThreads();
      const own = { mainType, weightBytes, parameters, numThreads, defaultThreads, kvType };
      return adviseOn(report, { ...own, ...test });
    });
  }

  [Symbol.dispose](): void {
    this.#probe[Symbol.dispose]();
  }
}
