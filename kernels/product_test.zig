//! Products against their definition (`define` below), bit for bit: every weight type,
//! both regimes, several threads. `zig test kernels/product_test.zig -O ReleaseSafe -lc -fllvm`.
const std = @import("std");
const plan = @import("plan.zig");
const worker_file = @import("worker.zig");
const quant = @import("quant/quant.zig");
const Scales = @import("quant/scales.zig").Scales;
const simd = @import("simd.zig");
const activation = @import("cpu/activation.zig");
const product = @import("cpu/product.zig");
const Tuning = @import("tuning.zig").Tuning;

/// All but the types without a scale field of their own for an activation group, whose bits
/// test/kernel/linear.test.ts defines.
const types = blk: {
    var known: []const quant.Type = &.{};
    for (std.enums.values(quant.Type)) |t| {
        if (isDefined(quant.Format(t))) known = known ++ [_]quant.Type{t};
    }
    break :blk known;
};
fn isDefined(comptime Q: type) bool {
    if (Q.block_len == 1) return true;
    const has_scale = @hasField(Q.Block, "d") or @hasField(Q.Block, "e");
    return has_scale and (Q.block_len == 32 or Q.block_len == 256);
}

/// Random weights of reasonable size; with `extreme` all quants at one end of their range.
fn randomWeight(
    a: std.mem.Allocator,
    t: quant.Type,
    n: usize,
    k: usize,
    rng: std.Random,
) !plan.Weight {
    const bytes = try a.alignedAlloc(u8, .@"64", n * quant.rowBytes(@intFromEnum(t), k) + 64);
    rng.bytes(bytes);
    const extreme = rng.boolean();
    switch (t) {
        inline else => |known| {
            const Block = quant.Format(known).Block;
            const blocks: [*]align(1) Block = @ptrCast(bytes.ptr);
            for (blocks[0 .. (bytes.len - 64) / @sizeOf(Block)]) |*block| switch (Block) {
                f32 => block.* = rng.floatNorm(f32),
                f16 => block.* = @floatCast(rng.floatNorm(f32)),
                u16 => block.* = @truncate(@as(u32, @bitCast(rng.floatNorm(f32))) >> 16),
                // Neither infinite nor NaN in either format.
                u8 => block.* = rng.int(u8) & 0xfb,
                else => {
                    const low = known == .q8_0 or known == .q6_k;
                    if (extreme) @memset(std.mem.asBytes(block), if (low) 0x80 else 0xff);
                    if (@hasField(Block, "e")) block.e = rng.intRangeAtMost(u8, 110, 124);
                    if (@hasField(Block, "d")) block.d = @floatCast(0.004 * rng.float(f32) - 0.002);
                    if (@hasField(Block, "m")) block.m = @floatCast(rng.floatNorm(f32));
                    if (@hasField(Block, "dmin")) block.dmin = @floatCast(0.003 * rng.float(f32));
                },
            };
        },
    }
    var weight: plan.Weight = .{
        .address = @intFromPtr(bytes.ptr),
        .type = @intFromEnum(t),
        .rows = @intCast(n),
        .cols = @intCast(k),
    };
    if (quant.isScaled(t) and rng.boolean()) try addScales(a, &weight, rng);
    return weight;
}

/// Blocks of the whole tensor, of rows, or of whole steps, the first one cut.
fn addScales(a: std.mem.Allocator, weight: *plan.Weight, rng: std.Random) !void {
    weight.scales = 0;
    weight.first_row = rng.uintLessThan(u32, 50);
    weight.block_rows = ([_]u32{ 1000, 1, 3 })[rng.uintLessThan(usize, 3)];
    weight.block_cols = ([_]u32{ 2000, 16, 48, 128 })[rng.uintLessThan(usize, 4)];
    const num_rows = (weight.first_row + weight.rows - 1) / weight.block_rows + 1;
    const per_row = (weight.cols + weight.block_cols - 1) / weight.block_cols;
    const scales = try a.alloc(f32, num_rows * per_row);
    for (scales) |*scale| scale.* = @exp(6 * rng.float(f32) - 6);
    weight.scale_address = @intFromPtr(scales.ptr);
}

/// One output by the definition. The exact integers come from dequantising blocks whose float
/// scales are replaced by 1 and 0.
fn define(comptime t: quant.Type, row: [*]const u8, x: []const f32) f32 {
    const Q = quant.Format(t);
    const blocks: [*]align(1) const Q.Block = @ptrCast(row);
    if (t == .bf16) return defineBrain(blocks, x);
    if (Q.block_len == 1) return defineFloat(Q, blocks, x);
    if (comptime !isDefined(Q)) unreachable;
    var acc: f32 = 0;
    for (0..x.len / Q.block_len) |b| {
        const block = &blocks[b];
        var q: [Q.block_len]i8 = undefined;
        var d: [1]f32 = undefined;
        activation.quantizeRow(Q.block_len, x[b * Q.block_len ..][0..Q.block_len], &q, &d);
        var unit = block.*;
        const of_one: f32 = if (@hasDecl(Q, "unit")) Q.unit else 1;
        if (@hasField(Q.Block, "e")) unit.e = 128 else unit.d = 1 / of_one;
        if (@hasField(Q.Block, "m")) unit.m = 0;
        if (@hasField(Q.Block, "dmin")) unit.dmin = 0;
        const d_w = if (@hasField(Q.Block, "e"))
            Q.halfPowers(1, .{block.e})[0]
        else
            simd.widenHalf(block.d) * of_one;
        var term = blockSum(Q, &unit, &q) * d_w;
        if (@hasField(Q.Block, "m")) {
            var sum: i32 = 0;
            for (q) |v| sum += v;
            term = simd.fma(f32, @floatFromInt(sum), simd.widenHalf(block.m), term);
        }
        if (@hasField(Q.Block, "dmin")) {
            unit.d = 0;
            unit.dmin = 1;
            term = simd.fma(f32, blockSum(Q, &unit, &q), simd.widenHalf(block.dmin), term);
        }
        acc = simd.fma(f32, term, d[0], acc);
    }
    return acc;
}
fn blockSum(comptime Q: type, block: *const Q.Block, q: *const [Q.block_len]i8) f32 {
    var weights: [Q.block_len]f32 = undefined;
    quant.dequantizeBlock(Q, block, &weights);
    var sum: i32 = 0;
    for (weights, q) |w, v| sum += @as(i32, @intFromFloat(w)) * v;
    return @floatFromInt(sum);
}
/// Values of usual size: nothing here is flushed to zero.
fn defineBrain(blocks: [*]align(1) const u16, x: []const f32) f32 {
    var strands: [16]f32 = @splat(0);
    for (0..(x.len + 1) / 2) |pair| for ([_]usize{ 2 * pair + 1, 2 * pair }) |k| {
        if (k >= x.len) continue;
        const w: f32 = @bitCast(@as(u32, blocks[k]) << 16);
        const bits: u32 = @bitCast(x[k]);
        const rounded = bits + 0x7fff + ((bits >> 16) & 1);
        const v: f32 = @bitCast(rounded & 0xffff0000);
        strands[pair % 16] = simd.fma(f32, w, v, strands[pair % 16]);
    };
    return sumHalving(&strands);
}
fn defineFloat(comptime Q: type, blocks: [*]align(1) const Q.Block, x: []const f32) f32 {
    var strands: [16]f32 = @splat(0);
    for (0..(x.len + 15) / 16 * 16) |k| {
        var w: [1]f32 = .{0};
        if (k < x.len) Q.dequantize(&blocks[k], &w);
        strands[k % 16] = simd.fma(f32, w[0], if (k < x.len) x[k] else 0, strands[k % 16]);
    }
    return sumHalving(&strands);
}
/// Each weight is rounded to f32 before it is multiplied.
fn defineScaled(w: plan.Weight, row: usize, codes: []const f32, x: []const f32) f32 {
    const scales: Scales = .of(&w);
    var strands: [16]f32 = @splat(0);
    for (x, codes, 0..) |value, code, k| {
        const weight = code * scales.ofRow(row).values[k / scales.block_cols];
        strands[k % 16] = simd.fma(f32, weight, value, strands[k % 16]);
    }
    return sumHalving(&strands);
}
fn sumHalving(strands: *[16]f32) f32 {
    for ([_]usize{ 8, 4, 2, 1 }) |half| for (0..half) |i| {
        strands[i] += strands[i + half];
    };
    return strands[0];
}
fn defineOne(w: plan.Weight, n: usize, x: []const f32) f32 {
    const row = @as([*]const u8, @ptrFromInt(w.address)) + n * quant.rowBytes(w.type, w.cols);
    const known = quant.fromId(w.type).?;
    if (quant.isScaled(known)) {
        var codes: [2048]f32 = undefined;
        _ = quant.dequantize(w.type, row, codes[0..x.len]);
        return defineScaled(w, n, codes[0..x.len], x);
    }
    return switch (known) {
        inline else => |t| define(t, row, x),
    };
}

const Run = struct {
    shared: worker_file.Shared,
    need: worker_file.ScratchNeed,
    memory: []align(64) u8,
    input: product.Input,
    products: []const product.Product,
    cancel: u32 = 0,

    fn thread(run: *Run, index: u32) void {
        const a = std.heap.page_allocator;
        const scratch = a.alignedAlloc(u8, .@"64", run.need.thread_bytes) catch unreachable;
        defer a.free(scratch);
        var worker: worker_file.Worker = .{
            .shared = &run.shared,
            .index = index,
            .count = run.shared.num_threads,
            .scratch = scratch,
            .cancel_word = &run.cancel,
        };
        product.run(run.memory, &worker, run.input, run.products);
    }
};

const no_norm: plan.RowNorm = .{
    .kind = .absent,
    .weight = plan.none,
    .bias = plan.none,
    .epsilon = 0,
};

fn runProducts(
    a: std.mem.Allocator,
    threads: u32,
    tuning: Tuning,
    input: product.Input,
    products: []const product.Product,
) !void {
    var header = std.mem.zeroes(plan.Header);
    header.max_tokens = @intCast(input.rows);
    const tensors = [1]plan.Tensor{.{ .offset = 0, .width = @intCast(input.k), .rows = .tokens }};
    var step: worker_file.Step = undefined;
    step.header = &header;
    step.tensors = &tensors;
    var weights: [8]plan.Weight = undefined;
    for (products, 0..) |*p, i| weights[i] = p.weights[0];
    const need = product.scratchNeed(&step, 0, &no_norm, weights[0..products.len]);
    var run: Run = .{
        .shared = .{ .num_threads = threads, .tuning = tuning },
        .need = need,
        .memory = try a.alignedAlloc(u8, .@"64", need.shared_bytes + 64),
        .input = input,
        .products = products,
    };
    var others: [8]std.Thread = undefined;
    for (1..threads) |i| {
        others[i] = try std.Thread.spawn(.{}, Run.thread, .{ &run, @as(u32, @intCast(i)) });
    }
    run.thread(0);
    for (others[1..threads]) |other| other.join();
}

/// In both regimes, wherever the defaults change from one to the other.
fn checkShape(k: usize, rows: usize, threads: u32, seed: u64) !void {
    for ([_]u32{ 0, Tuning.max_rows_regime }) |most| {
        const tuning: Tuning = .{ .rows_regime = most, .float_rows_regime = most };
        try checkTuned(tuning, k, rows, threads, seed);
    }
}

fn checkTuned(tuning: Tuning, k: usize, rows: usize, threads: u32, seed: u64) !void {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    var prng = std.Random.DefaultPrng.init(seed);
    const rng = prng.random();
    const x = try a.alloc(f32, rows * k);
    for (x) |*v| v.* = rng.floatNorm(f32) * @exp(12 * rng.float(f32) - 6);
    if (k >= 32) @memset(x[0..32], 0);
    for (types, 0..) |t, i| {
        const group = @max(quant.group(t), 1);
        if (k % group != 0) continue;
        const n = ([_]usize{ 1, 7, 37, 64, 130 })[(i + rows) % 5];
        const w = try randomWeight(a, t, n, k, rng);
        const output = try a.alloc(f32, rows * n);
        const bias = try a.alloc(f32, n);
        for (output) |*v| v.* = rng.floatNorm(f32);
        for (bias) |*v| v.* = rng.floatNorm(f32);
        const want = try a.dupe(f32, output);
        for (0..rows) |m| for (0..n) |c| {
            want[m * n + c] += defineOne(w, c, x[m * k ..][0..k]) * w.gain + bias[c];
        };
        try runProducts(a, threads, tuning, .{ .x = x.ptr, .rows = rows, .k = k }, &.{.{
            .weights = .{ w, undefined },
            .num_weights = 1,
            .epilogue = .{
                .kind = .accumulate,
                .output = output.ptr,
                .width = n,
                .gain = w.gain,
                .bias = bias.ptr,
            },
        }});
        for (want, output, 0..) |expected, actual, at| {
            if (@as(u32, @bitCast(expected)) == @as(u32, @bitCast(actual))) continue;
            std.debug.print("{s}, k {d}, rows {d}, output {d}: {d}, not {d}\n", .{
                @tagName(t), k, rows, at, actual, expected,
            });
            return error.TestUnexpectedResult;
        }
    }
}

test "every type, row count and thread count gives the definition's bits" {
    for ([_]usize{ 256, 768 }) |k| for ([_]usize{ 1, 2, 3, 5, 8, 9, 13, 40 }) |rows| {
        try checkShape(k, rows, if (rows % 2 == 0) 3 else 1, k + rows);
    };
    try checkShape(256, 1, 5, 1);
    try checkShape(256, 520, 2, 2);
}

test "columns that fill no whole step" {
    for ([_]usize{ 1, 5, 31, 32, 64, 96, 172, 576, 1055 }) |k| {
        for ([_]usize{ 1, 4, 11 }) |rows| try checkShape(k, rows, 2, k * rows);
    }
}

test "no tuning changes a bit" {
    const tunings = [_]Tuning{
        .{
            .prefetch_bytes = 0,
            .stream_bytes = 0,
            .cached_stream_bytes = 0,
            .rows_regime = 0,
            .float_rows_regime = 0,
        },
        .{
            .rows_regime = Tuning.max_rows_regime,
            .float_rows_regime = Tuning.max_rows_regime,
            .stream_bytes = 1,
            .spin_limit = 0,
        },
        .{ .prefetch_bytes = 1 << 24, .stream_bytes = 1 << 24, .cached_stream_bytes = 1 << 24 },
    };
    for (tunings) |tuning| for ([_]usize{ 1, 2, 8, 9, 15, 16, 17 }) |rows| {
        try checkTuned(tuning, 768, rows, 3, rows);
    };
}
