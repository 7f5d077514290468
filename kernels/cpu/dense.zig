//! Many activation rows against F32, F16 and BF16 weights, with the same bits as matvec_float.zig:
//! every output keeps 16 strands (k mod 16) in one vector and halves them at the end.
const std = @import("std");
const simd = @import("../simd.zig");
const quant = @import("../quant/quant.zig");
const Floats = simd.Floats;

/// Output columns (weight rows) of one panel, as in tile_gemm.zig.
pub const columns = 32;

/// Register tile: weight rows x activation rows, each pair one accumulator of 16 strands.
const tile_columns = if (simd.native_lanes == 16) 4 else 2;
const tile_rows = if (simd.native_lanes == 16) 6 else if (simd.native_lanes == 8) 2 else 3;
/// Columns of K at a time: the activation rows of one tile stay in the first-level cache.
const depth = 512;
/// Activation rows at a time: their accumulators stay in the second-level cache.
const chunk_rows = 96;

/// Private memory of one thread.
const Scratch = struct {
    /// Weights widened to f32, zero-padded to whole vectors.
    weights: [columns][depth]f32 align(64),
    strands: [chunk_rows][columns]Floats align(64),
    /// The last, partial vector of each activation row, zero-padded.
    tails: [chunk_rows]Floats align(64),
};

pub fn supports(weight_type: quant.Type) bool {
    return quant.group(weight_type) == 0;
}

pub const thread_bytes = @sizeOf(Scratch);

/// out `[rows][32]` = x `[rows, k]` · weight rows n0..n0+n; columns past n are unspecified.
pub fn computePanel(
    weight_type: quant.Type,
    weight: [*]const u8,
    n0: usize,
    n: usize,
    rows: usize,
    k: usize,
    x: [*]const f32,
    scratch: []align(64) u8,
    out: [*]f32,
) void {
    const memory: *Scratch = @ptrCast(scratch.ptr);
    switch (weight_type) {
        inline .f32, .f16, .bf16 => |t| {
            const Q = quant.Format(t);
            const first = weight + n0 * k * @sizeOf(Q.Block);
            var row: usize = 0;
            while (row < rows) : (row += chunk_rows) {
                const count = @min(chunk_rows, rows - row);
                computeChunk(Q, first, n, count, k, x + row * k, memory, out + row * columns);
            }
        },
        else => unreachable,
    }
}

fn computeChunk(
    comptime Q: type,
    weight: [*]const u8,
    n: usize,
    rows: usize,
    k: usize,
    x: [*]const f32,
    memory: *Scratch,
    out: [*]f32,
) void {
    const whole = k / 16 * 16;
    if (whole < k) for (0..rows) |m| {
        memory.tails[m] = simd.loadFirst(x + m * k + whole, k - whole);
    };
    var k0: usize = 0;
    while (k0 < k) : (k0 += depth) {
        const length = @min(depth, k - k0);
        for (0..columns) |c| {
            const first = @min(c, n - 1) * k + k0;
            widenRow(Q, weight + first * @sizeOf(Q.Block), length, &memory.weights[c]);
        }
        var m: usize = 0;
        while (m < rows) : (m += tile_rows) {
            var c: usize = 0;
            while (c < columns) : (c += tile_columns) {
                addTile(memory, x + k0, k, rows, m, c, length, k0 == 0);
            }
        }
    }
    for (0..rows) |m| inline for (0..columns / 16) |part| {
        const sums = simd.sumHalvingEach(memory.strands[m][part * 16 ..][0..16].*);
        simd.store(out + m * columns + part * 16, sums);
    };
}

fn widenRow(comptime Q: type, source: [*]const u8, length: usize, target: *[depth]f32) void {
    const size = @sizeOf(Q.Block);
    const whole = length / 16 * 16;
    var at: usize = 0;
    while (at < whole) : (at += 16) simd.store(target[at..], Q.load(16, source + at * size));
    if (whole < length) {
        simd.store(target[whole..], Q.loadFirst(source + whole * size, length - whole));
    }
}

/// Adds `length` columns of K to one register tile of strands.
fn addTile(
    memory: *Scratch,
    x: [*]const f32,
    k: usize,
    rows: usize,
    m0: usize,
    c0: usize,
    length: usize,
    is_first: bool,
) void {
    var sources: [tile_rows][*]const f32 = undefined;
    var index: [tile_rows]usize = undefined;
    inline for (0..tile_rows) |m| {
        index[m] = @min(m0 + m, rows - 1);
        sources[m] = x + index[m] * k;
    }
    var acc: [tile_rows][tile_columns]Floats = undefined;
    inline for (0..tile_rows) |m| inline for (0..tile_columns) |c| {
        acc[m][c] = if (is_first) @splat(0) else memory.strands[index[m]][c0 + c];
    };
    const weights = memory.weights[c0..][0..tile_columns];
    const whole = length / 16 * 16;
    var at: usize = 0;
    while (at < whole) : (at += 16) {
        var w: [tile_columns]Floats = undefined;
        inline for (0..tile_columns) |c| w[c] = simd.load(Floats, weights[c][at..]);
        inline for (0..tile_rows) |m| {
            const v = simd.load(Floats, sources[m] + at);
            inline for (0..tile_columns) |c| acc[m][c] = simd.fma(Floats, w[c], v, acc[m][c]);
        }
    }
    if (whole < length) inline for (0..tile_rows) |m| inline for (0..tile_columns) |c| {
        const w = simd.load(Floats, weights[c][whole..]);
        acc[m][c] = simd.fma(Floats, w, memory.tails[index[m]], acc[m][c]);
    };
    inline for (0..tile_rows) |m| inline for (0..tile_columns) |c| {
        memory.strands[index[m]][c0 + c] = acc[m][c];
    };
}
