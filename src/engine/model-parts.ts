// What an engine has of the model it runs, all replaced together when the weights change type.
import { HiddenStates } from "./hidden-states.ts";
import { IdleTuner } from "./idle-tuner.ts";
import type { LoadedModel } from "./loaded-model.ts";
import { ModelRunner } from "./model-runner.ts";
import type { ModelOptions } from "./options.ts";
import { Residency } from "./residency.ts";

export class ModelParts implements Disposable {
  readonly model: LoadedModel;
  #runner: ModelRunner;
  readonly hidden: HiddenStates;
  readonly tuner: IdleTuner;
  readonly residency: Residency;

  /** Owns the model from now on. */
  constructor(
    model: LoadedModel,
    options: Pick<ModelOptions, "load" | "lock">,
    idleSince: () => number | undefined,
  ) {
    this.model = model;
    this.#runner = new ModelRunner(model.session);
    this.hidden = new HiddenStates(model);
    this.tuner = new IdleTuner(model);
    this.residency = new Residency(model, options, idleSince);
  }

  get runner(): ModelRunner {
    return this.#runner;
  }

  /** After the model has taken a new session. */
  renewRunner(): void {
    this.#runner = new ModelRunner(this.model.session);
  }

  [Symbol.dispose](): void {
    this.tuner[Symbol.dispose]();
    this.residency[Symbol.dispose]();
    this.hidden[Symbol.dispose]();
    this.model[Symbol.dispose]();
  }
}
