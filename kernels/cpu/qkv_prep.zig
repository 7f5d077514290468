//! qkv_prep: rotates queries and keys and stores keys and values in the KV cache.
const std = @import("std");
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const worker_file = @import("../worker.zig");
const kv_cache = @import("kv_cache.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

/// Token rows in one unit of work.
const rows_per_unit = 32;

/// A unit is (up to 32 token rows, kv head): that head's keys and values and its group's queries.
pub fn run(step: *const Step, op: *const plan.QkvPrep, worker: *Worker) void {
    const cache = &step.caches[op.cache];
    const layout = kv_cache.Layout.of(cache, step.header.num_blocks);
    const num_tokens = step.data.num_tokens;
    const num_kv_heads = cache.num_kv_heads;
    const num_groups = (num_tokens + rows_per_unit - 1) / rows_per_unit;

    var phase = worker.phase(num_groups * num_kv_heads);
    while (phase.next()) |unit| {
        const first = unit / num_kv_heads * rows_per_unit;
        const last = @min(first + rows_per_unit, num_tokens);
        prepareRows(step, op, &layout, unit % num_kv_heads, first, last);
    }
}

/// More tokens than this are so much work that their blocks are read meanwhile.
const most_asked_tokens = 8;

/// Asks for the blocks that this thread will store to and then attend to: since the last step all
/// weights have passed through the caches.
pub fn askAhead(step: *const Step, op: *const plan.QkvPrep, worker: *const Worker) void {
    if (step.data.num_tokens > most_asked_tokens) return;
    const cache = &step.caches[op.cache];
    const layout = kv_cache.Layout.of(cache, step.header.num_blocks);
    const kv_lens = step.array(u32, step.data.kv_lens);
    const heads = worker.firstUnits(cache.num_kv_heads);
    for (0..step.data.num_sequences) |sequence| {
        const last = kv_lens[sequence] -| 1;
        for (heads.begin..heads.end) |head| {
            const block = layout.block(step, cache, sequence, head, last / kv_cache.block_size);
            var at: usize = 0;
            while (at < layout.block_bytes) : (at += 64) simd.prefetch(block + at);
        }
    }
}

fn prepareRows(
    step: *const Step,
    op: *const plan.QkvPrep,
    layout: *const kv_cache.Layout,
    kv_head: u32,
    first: u32,
    last: u32,
) void {
    const cache = &step.caches[op.cache];
    const heads_per_kv_head = op.num_heads / cache.num_kv_heads;
    const starts = step.array(u32, step.data.query_starts);
    const kv_lens = step.array(u32, step.data.kv_lens);
    const dims = layout.head_dim;

    var sequence: usize = 0;
    for (first..last) |row| {
        while (starts[sequence + 1] <= row) sequence += 1;
        const q_width = op.num_heads * dims;
        const k = (step.tensor(op.k) + (row * cache.num_kv_heads + kv_head) * dims)[0..dims];
        const v_start = (row * cache.num_kv_heads + kv_head) * layout.value_dim;
        const v = (step.tensor(op.v) + v_start)[0..layout.value_dim];
        const q = step.tensor(op.q) + row * q_width + kv_head * heads_per_kv_head * dims;
        if (op.pairing != .none) {
            const n = step.tensors[op.rotations].width / 2;
            const table = step.tensor(op.rotations) + row * 2 * n;
            for (0..heads_per_kv_head) |head| rotate(op.pairing, q + head * dims, table, n);
            rotate(op.pairing, k.ptr, table, n);
        }
        const index = kv_lens[sequence] - (starts[sequence + 1] - row);
        const slot = index % kv_cache.block_size;
        const block = layout.block(step, cache, sequence, kv_head, index / kv_cache.block_size);
        kv_cache.storeKey(layout, block, slot, k);
        kv_cache.storeValue(layout, block + layout.key_bytes, slot, v);
    }
}

/// Turns the first 2n dims of one head by the angles of `table`: n cosines, then n sines.
fn rotate(pairing: plan.RopePairing, head: [*]f32, table: [*]const f32, n: usize) void {
    var i: usize = 0;
    while (i + 8 <= n) : (i += 8) rotatePairs(8, pairing, head, table, n, i);
    while (i < n) : (i += 1) rotatePairs(1, pairing, head, table, n, i);
}

inline fn rotatePairs(
    comptime lanes: comptime_int,
    pairing: plan.RopePairing,
    head: [*]f32,
    table: [*]const f32,
    n: usize,
    i: usize,
) void {
    const Vec = @Vector(lanes, f32);
    const cos: Vec = table[i..][0..lanes].*;
    const sin: Vec = table[n + i ..][0..lanes].*;
    if (pairing == .half_split) {
        const x: Vec = head[i..][0..lanes].*;
        const y: Vec = head[n + i ..][0..lanes].*;
        head[i..][0..lanes].* = x * cos - y * sin;
        head[n + i ..][0..lanes].* = x * sin + y * cos;
    } else {
        const pairs: @Vector(2 * lanes, f32) = head[2 * i ..][0 .. 2 * lanes].*;
        const x, const y = std.simd.deinterlace(2, pairs);
        head[2 * i ..][0 .. 2 * lanes].* = std.simd.interlace(.{
            x * cos - y * sin,
            x * sin + y * cos,
        });
    }
}
