//! route: chooses each token's experts from the router's logits, and their weights. One fixed
//! order of sums and comparisons, so the choice depends on the token alone.
const std = @import("std");
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const exp_file = @import("exp.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const Floats = simd.Floats;

/// One value per expert, padded to whole vectors.
const PerExpert = [plan.max_experts]f32;
/// What a token's weights are divided by at least: the smallest normal F16, as llama.cpp has it.
const smallest_sum: f32 = 0x1p-14;

pub fn run(step: *const Step, op: *const plan.Route, worker: *Worker) void {
    const num_experts = step.tensors[op.logits].width;
    const bias = step.vector(op.selection_bias);
    var phase = worker.phase(step.rows(op.logits));
    while (phase.next()) |t| {
        const logits = step.tensor(op.logits) + t * num_experts;
        const output = step.tensor(op.output) + 2 * t * op.num_slots;
        routeToken(op, logits[0..num_experts], bias, output);
        const counts = step.expert_counts orelse continue;
        for (output[0..op.num_slots]) |expert| {
            const counter = &counts[op.first_counter + @as(usize, @intFromFloat(expert))];
            _ = @atomicRmw(u64, counter, .Add, 1, .monotonic);
        }
    }
}

fn routeToken(
    op: *const plan.Route,
    logits: []const f32,
    bias: ?[*]const f32,
    output: [*]f32,
) void {
    var probabilities: PerExpert align(64) = undefined;
    @memcpy(probabilities[0..logits.len], logits);
    switch (op.scoring) {
        .softmax, .softmax_selected => softmax(&probabilities, logits.len),
        .sigmoid => sigmoid(&probabilities, logits.len),
    }
    const by_logit = bias == null and (op.group_score == .max or op.num_groups == 1);
    var scores: PerExpert align(64) = undefined;
    if (by_logit) @memcpy(scores[0..logits.len], logits) else {
        for (scores[0..logits.len], probabilities[0..logits.len], 0..) |*score, p, e| {
            score.* = if (bias) |values| p + values[e] else p;
        }
    }
    var is_open: [plan.max_experts]bool = undefined;
    openGroups(op, scores[0..logits.len], is_open[0..logits.len]);
    const num_slots = op.num_slots;
    var weights: PerExpert align(64) = undefined;
    for (0..num_slots) |slot| {
        const e = takeLargest(scores[0..logits.len], is_open[0..logits.len]);
        output[slot] = @floatFromInt(e);
        weights[slot] = if (op.scoring == .softmax_selected) logits[e] else probabilities[e];
    }
    if (op.scoring == .softmax_selected) softmax(&weights, num_slots);
    var divisor: f32 = 1;
    if (op.is_normalised != 0) {
        divisor = 0;
        for (weights[0..num_slots]) |p| divisor += p;
        divisor = @max(divisor, smallest_sum);
    }
    for (weights[0..num_slots], output[num_slots..][0..num_slots]) |p, *weight| {
        weight.* = p / divisor * op.scale;
    }
}

/// Which experts may be chosen: those of the best groups.
fn openGroups(op: *const plan.Route, scores: []const f32, is_open: []bool) void {
    @memset(is_open, op.num_groups == 1);
    if (op.num_groups == 1) return;
    const size = scores.len / op.num_groups;
    var group_scores: PerExpert = undefined;
    var is_left: [plan.max_experts]bool = undefined;
    for (0..op.num_groups) |g| {
        group_scores[g] = groupScore(op.group_score, scores[g * size ..][0..size]);
        is_left[g] = true;
    }
    for (0..op.num_groups_used) |_| {
        const g = takeLargest(group_scores[0..op.num_groups], is_left[0..op.num_groups]);
        @memset(is_open[g * size ..][0..size], true);
    }
}

fn groupScore(kind: plan.GroupScore, scores: []const f32) f32 {
    var largest = scores[0];
    var second = -std.math.inf(f32);
    for (scores[1..]) |score| {
        if (score > largest) {
            second = largest;
            largest = score;
        } else if (score > second) second = score;
    }
    return if (kind == .max or scores.len == 1) largest else largest + second;
}

/// The index of the largest value that is left, the lowest of equal ones; it is then taken. Some
/// index even where no value can be compared.
fn takeLargest(values: []const f32, is_left: []bool) usize {
    var best: ?usize = null;
    for (values, is_left, 0..) |value, left, i| {
        if (left and (best == null or value > values[best.?])) best = i;
    }
    is_left[best.?] = false;
    return best.?;
}

/// Over the first `count` values; sums go over 16 strands, then halves.
fn softmax(values: *align(64) PerExpert, count: usize) void {
    var largest = values[0];
    for (values[1..count]) |value| if (value > largest) {
        largest = value;
    };
    const end = std.mem.alignForward(usize, count, 16);
    @memset(values[count..end], 0);
    var strands: Floats = @splat(0);
    var at: usize = 0;
    while (at < end) : (at += 16) {
        const shifted = simd.load(Floats, values[at..]) - @as(Floats, @splat(largest));
        simd.store(values[at..], exp_file.exp(16, shifted));
        if (at + 16 > count) @memset(values[count..end], 0);
        strands += simd.load(Floats, values[at..]);
    }
    const sum = simd.sumHalving(strands);
    for (values[0..count]) |*value| value.* /= sum;
}

fn sigmoid(values: *align(64) PerExpert, count: usize) void {
    @memset(values[count..std.mem.alignForward(usize, count, 16)], 0);
    var at: usize = 0;
    while (at < count) : (at += 16) {
        const one: Floats = @splat(1);
        const x = simd.load(Floats, values[at..]);
        simd.store(values[at..], one / (one + exp_file.exp(16, -x)));
    }
}
