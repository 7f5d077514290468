//! sample: chooses the next token of each output row.
//!
//! Stages, as users of llama.cpp expect them: logit bias, penalties, top-k, top-p, min-p,
//! temperature, draw. Each filter keeps a prefix of the order "larger logit first, then lower
//! id"; the draw walks the kept tokens in id order with the seed's counter-based random number,
//! so a row depends on nothing but itself. src/sampling/reference.ts says the same in plain form.
//!
//! Out-of-range values: a NaN logit counts as -infinity and is never chosen; +infinity counts as
//! the largest finite number. A row with no token left gets token id -1, which the caller reports.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const math = @import("sample_math.zig");
const select = @import("sample_select.zig");
const Candidates = select.Candidates;
const Scan = select.Scan;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

/// Rows that are chosen at the same time; each takes 12 bytes per vocabulary entry of scratch.
const max_places = 16;

pub fn run(step: *const Step, op: *const plan.Sample, worker: *Worker) void {
    const memory = Memory.init(step, op.logits, worker.count);
    const num_rows = step.data.num_outputs;
    const num_slices: u32 = @intCast(Scan.numSlices(memory.vocab_size));

    var slices = worker.phase(num_rows * num_slices);
    while (slices.next()) |unit| memory.scan(step, unit / num_slices).scanSlice(unit % num_slices);
    worker.sync();

    if (worker.index < memory.num_places) {
        var rows = worker.phase(num_rows);
        while (rows.next()) |index| {
            var row: Row = .{
                .scan = memory.scan(step, index),
                .logits = memory.row(step, index),
                .candidates = memory.candidates(step, worker.index),
                .sampling = &step.array(plan.SamplingRow, step.data.sampling)[index],
                .all_biases = step.array(plan.LogitBias, step.data.logit_biases),
                .all_penalty_ids = step.array(i32, step.data.penalty_ids),
            };
            row.choose(&step.array(plan.SampledRow, step.data.sampled)[index]);
        }
    }
}

pub fn scratchNeed(step: *const Step, op: *const plan.Sample, num_threads: u32) ScratchNeed {
    const memory = Memory.init(step, op.logits, num_threads);
    return .{ .shared_bytes = memory.bytes() };
}

/// The shared scratch: a scan for every row, then candidates for `num_places` rows at a time.
const Memory = struct {
    logits_id: u32,
    vocab_size: usize,
    scan_len: usize,
    array_len: usize,
    num_scans: usize,
    num_places: u32,

    fn init(step: *const Step, logits_id: u32, num_threads: u32) Memory {
        const vocab_size = step.tensors[logits_id].width;
        return .{
            .logits_id = logits_id,
            .vocab_size = vocab_size,
            .scan_len = Scan.storageLen(vocab_size),
            .array_len = std.mem.alignForward(usize, vocab_size, math.lanes) + math.lanes,
            .num_scans = step.header.max_outputs,
            .num_places = @min(num_threads, step.header.max_outputs, max_places),
        };
    }

    fn bytes(memory: Memory) u64 {
        const candidates_len = 3 * memory.array_len * memory.num_places;
        return @sizeOf(f32) * @as(u64, memory.num_scans * memory.scan_len + candidates_len);
    }

    fn row(memory: Memory, step: *const Step, index: usize) []f32 {
        const all = step.tensor(memory.logits_id);
        return all[index * memory.vocab_size ..][0..memory.vocab_size];
    }

    fn scan(memory: Memory, step: *const Step, index: usize) Scan {
        const floats: [*]f32 = @ptrCast(@alignCast(step.scratch.ptr));
        return .init(memory.row(step, index), floats + index * memory.scan_len);
    }

    fn candidates(memory: Memory, step: *const Step, place: usize) Candidates {
        const floats: [*]align(64) f32 = @ptrCast(@alignCast(step.scratch.ptr));
        const first = memory.num_scans * memory.scan_len + place * 3 * memory.array_len;
        const arrays: [*]align(64) f32 = @alignCast(floats + first);
        return .{
            .ids = @ptrCast(arrays),
            .logits = @alignCast(arrays + memory.array_len),
            .weights = @alignCast(arrays + 2 * memory.array_len),
        };
    }
};

/// One output row while its token is chosen.
const Row = struct {
    scan: Scan,
    /// The row in the arena. Bias and penalties are written into it for as long as the filters
    /// look, and the raw logits are put back to the bit.
    logits: []f32,
    candidates: Candidates,
    sampling: *const plan.SamplingRow,
    /// The step's lists; the row's own parts of them are `biases()` and `penaltyIds()`.
    all_biases: [*]const plan.LogitBias,
    all_penalty_ids: [*]const i32,

    fn choose(row: *Row, sampled: *plan.SampledRow) void {
        const raw_max = row.scan.largest();
        const raw_total = row.scan.total(raw_max);
        const log_total = if (raw_max > -math.infinity) math.ln(raw_total) else 0;
        row.listBest(sampled, raw_max, log_total);

        row.adjust();
        const max = row.scan.largest();
        sampled.token_id = -1;
        sampled.logprob = -math.infinity;
        if (max == -math.infinity) return row.restore();
        const token_id = if (row.sampling.temperature > 0) drawn: {
            row.filter(max);
            break :drawn row.draw(max);
        } else row.greedy(max);
        sampled.token_id = @intCast(token_id);
        sampled.logprob = logprobOf(row.logits[token_id], raw_max, log_total);
    }

    /// Reports the `num_logprobs` best tokens by raw logits; unused places hold -1, -infinity.
    fn listBest(row: *Row, sampled: *plan.SampledRow, raw_max: f32, log_total: f64) void {
        sampled.top_ids = @splat(-1);
        sampled.top_logprobs = @splat(-math.infinity);
        const wanted = @min(row.sampling.num_logprobs, plan.max_logprobs);
        if (wanted == 0) return;
        row.candidates.collectLargest(&row.scan, wanted);
        var logits: [plan.max_logprobs]f32 = undefined;
        for (0..row.candidates.len) |i| { // insertion keeps the lower of equal ids first
            const logit = row.candidates.logits[i];
            var at = i;
            while (at > 0 and logits[at - 1] < logit) : (at -= 1) {
                logits[at] = logits[at - 1];
                sampled.top_ids[at] = sampled.top_ids[at - 1];
            }
            logits[at] = logit;
            sampled.top_ids[at] = @intCast(row.candidates.ids[i]);
        }
        for (0..row.candidates.len) |i| {
            sampled.top_logprobs[i] = logprobOf(logits[i], raw_max, log_total);
        }
    }

    fn greedy(row: *Row, max: f32) usize {
        const token_id = row.scan.firstOf(max);
        row.restore();
        return token_id;
    }

    /// Leaves in `candidates` what top-k, top-p and min-p keep, and the raw logits in the arena.
    fn filter(row: *Row, max: f32) void {
        const sampling = row.sampling;
        const candidates = &row.candidates;
        const min_logit = if (sampling.min_p > 0) minLogit(max, sampling.min_p) else -math.infinity;
        const has_top_k = sampling.top_k > 0 and sampling.top_k < row.logits.len;
        // Without top-k the mass that top-p refers to is that of all tokens, which is known;
        // those that min-p removes anyway need no look, since both keep a prefix of one order.
        if (has_top_k) {
            candidates.collectLargest(&row.scan, sampling.top_k);
        } else candidates.collect(&row.scan, min_logit);
        const all_mass = row.scan.total(max);
        row.restore();

        if (sampling.top_p < 1) {
            candidates.weigh(max, 1);
            const mass = if (has_top_k) candidates.mass() else all_mass;
            candidates.keepMass(mass * @as(f64, sampling.top_p));
        }
        if (has_top_k and min_logit > -math.infinity) candidates.keepAtLeast(min_logit);
    }

    fn draw(row: *Row, max: f32) usize {
        const sampling = row.sampling;
        row.candidates.weigh(max, sampling.temperature);
        return row.candidates.draw(
            math.uniform(sampling.seed_low, sampling.seed_high, sampling.draw_index),
        );
    }

    /// Applies bias and penalties to the logits, keeping the raw ones in `candidates.weights` by
    /// id. Ids outside the vocabulary are passed over: the caller has refused them.
    fn adjust(row: *Row) void {
        for (row.biases()) |bias| row.save(bias.token_id);
        for (row.penaltyIds()) |id| row.save(@bitCast(id));
        for (row.biases()) |bias| {
            if (bias.token_id < row.logits.len) row.logits[bias.token_id] += bias.value;
        }
        const sampling = row.sampling;
        const counts = row.candidates.ids;
        for (row.penaltyIds()) |signed_id| {
            const id: u32 = @bitCast(signed_id);
            if (id < row.logits.len) counts[id] += 1;
        }
        for (row.penaltyIds()) |signed_id| {
            const id: u32 = @bitCast(signed_id);
            if (id >= row.logits.len or counts[id] == 0) continue;
            const logit = row.logits[id];
            const repeat = sampling.repeat_penalty;
            const repeated = if (logit > 0) logit / repeat else logit * repeat;
            const count: f32 = @floatFromInt(counts[id]);
            const penalty = count * sampling.frequency_penalty + sampling.presence_penalty;
            row.logits[id] = repeated - penalty;
            counts[id] = 0; // a token in the list more than once is penalised once, by its count
        }
        row.scan.refresh();
    }

    fn save(row: *Row, id: u32) void {
        if (id >= row.logits.len) return;
        row.candidates.weights[id] = row.logits[id];
        row.candidates.ids[id] = 0;
        row.scan.touch(id);
    }

    fn restore(row: *Row) void {
        for (row.biases()) |bias| row.putBack(bias.token_id);
        for (row.penaltyIds()) |id| row.putBack(@bitCast(id));
    }

    fn putBack(row: *Row, id: u32) void {
        if (id < row.logits.len) row.logits[id] = row.candidates.weights[id];
    }

    fn biases(row: *const Row) []const plan.LogitBias {
        return row.all_biases[row.sampling.bias_start..][0..row.sampling.num_biases];
    }

    fn penaltyIds(row: *const Row) []const i32 {
        const sampling = row.sampling;
        const neutral = sampling.repeat_penalty == 1 and
            sampling.presence_penalty == 0 and sampling.frequency_penalty == 0;
        if (neutral) return &.{};
        return row.all_penalty_ids[sampling.penalty_start..][0..sampling.num_penalties];
    }
};

/// ln of the token's probability under the softmax of the raw logits.
fn logprobOf(logit: f32, max: f32, log_total: f64) f32 {
    if (!(logit > -math.infinity)) return -math.infinity; // NaN too
    const bounded: f64 = @min(logit, math.largest);
    return @floatCast(bounded - @as(f64, max) - log_total);
}

/// The smallest logit whose probability is at least `min_p` times that of the largest, `max`.
fn minLogit(max: f32, min_p: f32) f32 {
    if (min_p >= 1) return max;
    const exact = @as(f64, max) + math.ln(min_p);
    const rounded: f32 = @floatCast(exact);
    if (rounded >= exact) return rounded;
    return std.math.nextAfter(f32, rounded, math.infinity);
}
