// Properties of scheduler and block allocator under random arrivals, ends and tiny pools: blocks
// are all accounted for, budgets hold, everything finishes, and a hit shares equal content only.
import { describe, expect, test } from "bun:test";
import { Batch } from "../../src/engine/batch.ts";
import { BlockAllocator } from "../../src/engine/block-allocator.ts";
import { Scheduler } from "../../src/engine/scheduler.ts";
import { Sequence } from "../../src/engine/sequence.ts";
import { blockSize } from "../../src/plan/arena.ts";

const sampling = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seedLow: 0,
  seedHigh: 0,
  numLogprobs: 0,
};
const penalties = { repeatLastN: 0, logitBias: undefined };

/** mulberry32: a seeded stream of numbers in [0, 1). */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface World {
  readonly numBlocks: number;
  readonly maxSequences: number;
  readonly maxTokensPerStep: number;
  readonly maxContextLen: number;
}

/** Runs random traffic to its end; returns how many sequences finished and were cancelled. */
function simulate(seed: number, world: World, numRequests: number) {
  const random = makeRandom(seed);
  const below = (n: number) => Math.floor(random() * n);
  const allocator = new BlockAllocator(world.numBlocks);
  const scheduler = new Scheduler(world, allocator);
  const batch = new Batch();
  const alive = new Set<Sequence>();
  /** What each slot of the pool holds: the token and all tokens before it, as one text. */
  const contents = new Map<number, string>();
  let finished = 0;
  let cancelled = 0;
  let arrived = 0;
  for (let step = 0; arrived < numRequests || alive.size > 0; step++) {
    expect(step).toBeLessThan(20000);
    while (arrived < numRequests && random() < 0.4) {
      const shared = below(3);
      const length = 1 + below(world.maxContextLen - 2);
      const tokens = Int32Array.from({ length }, (_, i) => (i < 70 ? shared : below(5)));
      const limits = { maxTokens: 1 + below(40), maxContextLen: world.maxContextLen };
      const sequence = new Sequence(arrived++, tokens, limits, sampling, penalties);
      alive.add(sequence);
      scheduler.add(sequence);
    }
    if (alive.size > 0 && random() < 0.05) {
      const victim = [...alive][below(alive.size)]!;
      scheduler.remove(victim);
      alive.delete(victim);
      cancelled++;
    }
    if (!scheduler.hasWork) continue;
    scheduler.schedule(batch);
    expect(batch.numTokens).toBeGreaterThan(0);
    expect(batch.numTokens).toBeLessThanOrEqual(world.maxTokensPerStep);
    expect(batch.sequences.length).toBeLessThanOrEqual(world.maxSequences);
    expect(new Set(batch.sequences).size).toBe(batch.sequences.length);
    batch.sequences.forEach((sequence, index) => {
      writeAndCheck(sequence, batch.counts[index]!, contents);
    });
    batch.sequences.forEach((sequence, index) => {
      const yields = batch.yieldsToken(index);
      sequence.commit(batch.counts[index]!, allocator);
      if (!yields) return;
      sequence.append(below(5));
      if (sequence.completionLen < sequence.maxTokens) return;
      scheduler.remove(sequence);
      alive.delete(sequence);
      finished++;
    });
    allocator.checkIntegrity();
  }
  expect(allocator.numAvailable).toBe(world.numBlocks);
  return { finished, cancelled, preemptions: scheduler.numPreemptions };
}

/** Plays the model: stores `count` tokens, then checks that the whole past is really there. */
function writeAndCheck(sequence: Sequence, count: number, contents: Map<number, string>): void {
  const text = sequence.tokens.subarray(0, sequence.numComputed + count).join(",");
  const prefixEnds: number[] = [];
  let at = 0;
  for (let i = 0; i < sequence.numComputed + count; i++) {
    at += String(sequence.tokens[i]).length + (i > 0 ? 1 : 0);
    prefixEnds.push(at);
  }
  for (let i = 0; i < sequence.numComputed + count; i++) {
    const slot = sequence.blocks[Math.floor(i / blockSize)]! * blockSize + (i % blockSize);
    const wanted = text.slice(0, prefixEnds[i]);
    if (i >= sequence.numComputed) contents.set(slot, wanted);
    else if (contents.get(slot) !== wanted) throw new Error(`slot ${slot} holds another past`);
  }
}

describe("scheduler", () => {
  const worlds: World[] = [
    { numBlocks: 6, maxSequences: 3, maxTokensPerStep: 16, maxContextLen: 150 },
    { numBlocks: 40, maxSequences: 8, maxTokensPerStep: 64, maxContextLen: 200 },
    { numBlocks: 5, maxSequences: 1, maxTokensPerStep: 512, maxContextLen: 160 },
  ];
  const firstSeed = Number(process.env["TINFER_TEST_SEED"] ?? 1);
  for (const [index, world] of worlds.entries()) {
    test(`world ${index}: random traffic ends with every block given back`, () => {
      let preemptions = 0;
      for (let seed = firstSeed; seed < firstSeed + 10; seed++) {
        const result = simulate(seed, world, 40);
        expect(result.finished + result.cancelled).toBe(40);
        preemptions += result.preemptions;
      }
      if (index === 0) expect(preemptions).toBeGreaterThan(0);
    });
  }
});

describe("prefix cache", () => {
  test("a second prompt takes the blocks of the first, but computes its last token", () => {
    const allocator = new BlockAllocator(16);
    const prompt = Int32Array.from({ length: 3 * blockSize }, (_, i) => i);
    const limits = { maxTokens: 8, maxContextLen: 512 };
    const first = new Sequence(1, prompt, limits, sampling, penalties);
    first.reserve(prompt.length, allocator);
    first.commit(prompt.length, allocator);
    const second = new Sequence(2, prompt, limits, sampling, penalties);
    second.adoptCachedPrefix(allocator);
    expect(second.blocks).toEqual(first.blocks.slice(0, 2));
    expect(second.numComputed).toBe(2 * blockSize);
    const other = new Sequence(
      3,
      prompt.map((id) => id + 1),
      limits,
      sampling,
      penalties,
    );
    other.adoptCachedPrefix(allocator);
    expect(other.blocks).toEqual([]);
    for (const sequence of [first, second, other]) sequence.release(allocator);
    allocator.checkIntegrity();
    expect(allocator.numCached).toBe(3);
  });
});

test("blocks after one that could not be sealed are not found, whatever takes its place", () => {
  const allocator = new BlockAllocator(4);
  const tokens = Int32Array.from({ length: blockSize }, (_, i) => i);
  const unsealed = allocator.allocate(-1);
  const after = allocator.allocate(unsealed);
  expect(allocator.seal(after, unsealed, tokens, 0)).toBe(after);
  expect(allocator.find(unsealed, tokens, 0)).toBe(-1);
  for (const block of [unsealed, after]) allocator.release(block);
  allocator.checkIntegrity();
  expect(allocator.numFree).toBe(4);
});
