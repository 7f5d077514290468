//! Few activation rows against weights whose rows lie interleaved: the tile's unpackers give the
//! weights of a panel's rows, one per lane, which meet the activations at once instead of going to a
//! tile. Sums and rounding are those of the tile regime.
const std = @import("std");
const simd = @import("../simd.zig");
const interleave = @import("../interleave.zig");
const quant = @import("../quant/quant.zig");
const activation = @import("activation.zig");
const unpack = @import("tile_unpack.zig");
const vector = @import("tile_vector.zig");
const Recipe = @import("tile_layout.zig").Recipe;
const panel_rows = interleave.panel_rows;
const lanes = vector.lanes;
const Bytes = vector.Bytes;
const Floats = vector.Floats;
const Ints = vector.Ints;
const Shorts = vector.Shorts;
const Words = vector.Words;

/// Vectors of a panel's rows.
const parts = panel_rows / lanes;

/// Whether `num_rows` activation rows meet four streams of weights of type `t` at a time instead of two.
/// Blocks of Q6_K, 3360 bytes in a panel, are read faster from two (Zen 5, one core 32 -> 34 GB/s; Q4_K,
/// 2304 bytes, 35 from four, 30 from two). Sums of several rows have registers in blocks of 32 (two rows
/// of Q8_0 30 -> 37). On AVX2, four panels of two vectors are too much code (Q6_K 25 -> 16 GB/s) unless
/// weights are bytes as they lie (Q8_0 32 -> 40).
pub fn takesFour(t: quant.Type, num_rows: usize) bool {
    if (parts > 1) return parts == 2 and t == .q8_0 and num_rows == 1;
    if (num_rows > 1) return quant.group(t) == 32;
    return quant.rowBytes(@intFromEnum(t), quant.blockLen(t)) * panel_rows <= 3072;
}

/// Streams whose code is their own. Hardware that reads ahead goes by the address of a load, and where
/// loads serve several streams it reads what nobody asked for, unless those are 8 MB apart. Long code
/// has fewer copies: of super-blocks on AVX-512 (Q2_K 33 -> 34.5 GB/s), of all types on AVX2.
fn copiesOf(comptime Format: type, num_streams: usize) usize {
    if (parts > 1) return num_streams / 2;
    return if (Format.recipe.group == 32) num_streams else 2;
}

/// Panels one after another, and where their products go.
pub const Stream = struct { start: [*]const u8, out: [*]f32 };

/// Products of `count` weight rows of each of some streams, an array, whole panels, with M activation
/// rows. Streams that are read at the same time are read faster: one core of Zen 4, Q4_0 31 GB/s from
/// one, 33 from two; Zen 5, Q8_0 31 from two, 36 from four (a 1B model, two threads 45 -> 52 tok/s).
pub fn multiply(
    comptime Q: type,
    comptime Format: type,
    comptime M: usize,
    streams: anytype,
    count: usize,
    k: usize,
    input: *const [M]Row(Format),
    out_stride: usize,
    prefetch_bytes: usize,
) void {
    @setEvalBranchQuota(100_000);
    const Block = Products(Q, Format, M, streams.len);
    const num_blocks = k / unpack.blockLen(Format);
    const copies = comptime copiesOf(Format, streams.len);
    var next: [streams.len][*]const u8 = undefined;
    for (streams, &next) |stream, *block| block.* = stream.start;
    var ahead: Ahead(Format, streams.len) = .of(&next, prefetch_bytes);
    var r: usize = 0;
    while (r < count) : (r += panel_rows) {
        var acc: [streams.len][parts][M]Floats = @splat(@splat(@splat(@splat(0))));
        for (0..num_blocks) |b| {
            for (0..streams.len / copies) |turn| inline for (0..copies) |copy| {
                const i = turn * copies + copy;
                Block.add(&acc[i], &next[i], b, input, &ahead);
            };
            ahead.askUpTo(next[0]);
        }
        for (streams, acc) |stream, sums| inline for (0..M) |m| for (sums, 0..) |sum, part| {
            simd.store(stream.out + m * out_stride + r + part * lanes, sum[m]);
        };
    }
}

/// Asks for the lines of all streams in order, one of each in turn, as evenly as they are used (Zen 5,
/// two threads, two streams, 3 rows of Q4_K: 112 -> 153 tok/s instead of a block's lines at a time).
fn Ahead(comptime Format: type, comptime num_streams: usize) type {
    return struct {
        /// Of each stream the line that is asked for next.
        next: [num_streams][*]const u8,
        /// How far ahead of what is used the first stream's is.
        lead: usize,

        const Self = @This();
        /// Weight rows; with 16 bytes of each of them the streams' next 16 are asked for.
        const rows_each = @max(lanes, 4 * num_streams);

        /// `two_bytes`: how far two streams are read ahead; more of them share that. Blocks of the
        /// streams are used in turn, so the earlier one's are asked for earlier.
        fn of(starts: *const [num_streams][*]const u8, two_bytes: usize) Self {
            const share = Format.block_bytes * panel_rows / num_streams;
            var ahead: Self = .{ .next = undefined, .lead = 0 };
            for (starts, &ahead.next, 0..) |start, *next, i| {
                const lead = two_bytes * 2 / num_streams + (num_streams - 1 - i) * share;
                next.* = start + lead / 64 * 64;
            }
            ahead.lead = ahead.next[0] - starts[0];
            return ahead;
        }

        /// With 16 bytes of each of `lanes` rows from `first` on.
        inline fn ask(ahead: *Self, first: usize) void {
            if (rows_each > lanes and first % rows_each != 0) return;
            inline for (0..rows_each / 4 / num_streams) |_| ahead.askLines();
        }
        /// Once the first stream's block at `next` comes.
        inline fn askUpTo(ahead: *Self, next: [*]const u8) void {
            while (@intFromPtr(ahead.next[0]) < @intFromPtr(next + ahead.lead)) ahead.askLines();
        }
        inline fn askLines(ahead: *Self) void {
            for (&ahead.next) |*next| {
                simd.prefetchOnce(next.*);
                next.* += 64;
            }
        }
    };
}

/// The activation rows that a format is multiplied with.
pub fn Row(comptime Format: type) type {
    return if (Format.recipe.group == 32) activation.BlockRow else activation.SuperRow;
}

/// One block of `lanes` weight rows times M activation rows. Takes what an unpacker reads in the
/// order in which it comes: dwords of a sub-block one after another, of two sub-blocks at most in
/// turns, scales before weights.
fn Products(
    comptime Q: type,
    comptime Format: type,
    comptime M: usize,
    comptime num_streams: usize,
) type {
    const recipe: Recipe = Format.recipe;
    const group = recipe.group;
    const num_groups = unpack.numGroups(Format);
    const sub_dwords = recipe.sub / 4;
    const num_subs = num_groups * group / recipe.sub;
    // Each sum of a sub-block meets an integer scale.
    const has_factors = group == 256;
    // Sums that meet floats.
    const num_sums = if (recipe.has_two_scales) 2 * num_groups else num_groups;
    const Sum = if (vector.in_pairs) Shorts else Ints;
    const run_dwords = if (vector.in_pairs) recipe.plainPairDwords() else sub_dwords;
    comptime {
        if (recipe.sub == 256) @compileError("weights are multiplied by their scales already");
    }

    return struct {
        source: unpack.Panel(Q),
        ahead: *Ahead(Format, num_streams),
        input: *const [M]Row(Format),
        /// Of the row.
        b: usize,
        scale: [num_groups]Floats = undefined,
        /// Or the second scale.
        min: [num_groups]Floats = undefined,
        factors: [num_subs]Words = undefined,
        /// Sums under way of an even and an odd sub-block.
        runs: [2][M]Sum = undefined,
        sums: [num_sums][M]Ints = @splat(@splat(@splat(0))),
        /// Σ min_j Σa_j
        mins: [M]Ints = @splat(@splat(0)),
        /// Σ scale_j Σa_j
        excess: [M]Ints = @splat(@splat(0)),

        const Self = @This();
        pub const is_interleaved = true;

        /// Adds those of block `b` of a panel's rows, which lies at `next`, and moves on.
        inline fn add(
            sums: *[parts][M]Floats,
            next: *[*]const u8,
            b: usize,
            input: *const [M]Row(Format),
            ahead: *Ahead(Format, num_streams),
        ) void {
            for (sums, 0..) |*sum, part| {
                const source: unpack.Panel(Q) = .{ .block = next.*, .first = part * lanes };
                var products: Self = .{ .source = source, .ahead = ahead, .input = input, .b = b };
                Format.block(&products, 0, 0);
                products.addTo(sum);
                // For the values of two blocks there are no registers (Zen 4: Q4_K 41 -> 66 GB/s
                // from the first-level cache).
                vector.apart();
            }
            next.* += Format.block_bytes * panel_rows;
        }

        pub inline fn dwords16(self: *Self, comptime at: usize) [4]Words {
            self.ahead.ask(self.source.first);
            return self.source.dwords16(at);
        }
        pub inline fn field(self: *Self, comptime T: type, comptime at: usize) Words {
            return self.source.field(T, at);
        }

        pub inline fn putScale(self: *Self, step: usize, halves: Words) void {
            self.scale[step] = vector.widen(halves);
        }
        pub inline fn putScaleFloats(self: *Self, step: usize, scales: Floats) void {
            self.scale[step] = scales;
        }
        pub inline fn putSecondScale(self: *Self, step: usize, scales: Floats) void {
            self.min[step] = scales;
        }
        pub inline fn putMin(self: *Self, step: usize, halves: Words) void {
            self.min[step] = vector.widen(halves);
        }

        pub inline fn putMultiplier(self: *Self, step: usize, value: Ints) void {
            self.factors[step] = unpack.factor(value);
            if (recipe.offset == 0 or step % 2 == 0) return;
            const even = self.factors[step - 1] & vector.splat(Words, 0xffff);
            const both: Shorts = @bitCast(even | self.factors[step] << @splat(16));
            inline for (&self.excess, 0..) |*excess, m| {
                excess.* = vector.addPairDot(excess.*, both, self.sumPair(m, recipe.sub, step / 2));
            }
        }

        pub inline fn putMinPair(self: *Self, step: usize, first: Words, second: Words) void {
            const both: Shorts = @bitCast(first | second << @splat(16));
            inline for (&self.mins, 0..) |*sum, m| {
                sum.* = vector.addPairDot(sum.*, both, self.sumPair(m, recipe.min_sub, step));
            }
        }

        /// Two neighbouring sums of `sub` activations, 16 or 32, in every lane.
        inline fn sumPair(self: *Self, comptime m: usize, comptime sub: usize, index: usize) Shorts {
            const pair = index + if (sub == 16) 0 else 12;
            return vector.broadcast(Shorts, simd.load(i32, self.input[m].sums + self.b * 32 + pair * 2));
        }

        pub inline fn putWeights(self: *Self, dword: usize, w: Words, comptime offset: u8) void {
            const weights: Bytes = @bitCast(unpack.multiplied(w, offset));
            const sub = dword / sub_dwords;
            inline for (0..M) |m| {
                const a = vector.broadcast(Bytes, simd.load(i32, self.quants(m, dword)));
                const run = &self.runs[sub % 2][m];
                const is_first = dword % run_dwords == 0;
                if (!vector.in_pairs) {
                    run.* = vector.dot(if (is_first) @splat(0) else run.*, weights, a);
                } else {
                    const product = if (comptime recipe.signedPairs())
                        vector.signedPairs(weights, a)
                    else
                        vector.pairs(weights, a);
                    run.* = if (is_first) product else run.* +% product;
                }
                if (dword % run_dwords == run_dwords - 1) self.endRun(m, sub);
            }
        }

        pub inline fn putSigned(self: *Self, dword: usize, w: Words, _: Ints) void {
            self.putWeights(dword, w, 0);
        }

        inline fn endRun(self: *Self, comptime m: usize, sub: usize) void {
            const run = self.runs[sub % 2][m];
            const sum: Ints = if (vector.in_pairs) blk: {
                const factor: Shorts = if (has_factors) @bitCast(self.factors[sub]) else @splat(1);
                break :blk vector.pairDot(run, factor);
            } else if (has_factors)
                run *% @as(Ints, @bitCast(self.factors[sub]))
            else
                run;
            self.sums[sub * num_sums / num_subs][m] +%= sum;
        }

        /// Where four activations lie (activation.zig).
        inline fn quants(self: *Self, comptime m: usize, dword: usize) [*]const i8 {
            const q: [*]const i8 = self.input[m].q;
            const first = self.b * num_groups;
            const at = if (group == 32)
                first / 4 * 128 + (first % 4 + dword / 8) * 16 + dword / 4 % 2 * 64 + dword % 4 * 4
            else
                self.b * 256 + dword / 32 * 128 + order[dword / 8 % 4] * 32 + dword % 8 * 4;
            return q + at;
        }
        const order = [4]usize{ 0, 2, 1, 3 };

        /// acc = fma(t, d_a, acc), with the block's t.
        inline fn addTo(self: *Self, acc: *[M]Floats) void {
            inline for (0..num_groups) |g| inline for (acc, 0..) |*total, m| {
                const t = if (group == 256)
                    self.ofSuperBlock(m)
                else if (recipe.has_two_scales) self.ofHalves(g, m) else self.ofGroup(g, m);
                total.* = vector.multiplyAddBy(t, self.input[m].d[self.b * num_groups + g], total.*);
            };
        }

        /// t = f32(s) * d, then + f32(Σa) * m
        inline fn ofGroup(self: *Self, g: usize, comptime m: usize) Floats {
            const negative_total = self.input[m].negative_totals[self.b * num_groups + g];
            const t = trueSum(self.sums[g][m], negative_total) * self.scale[g];
            if (!recipe.has_min) return t;
            const total: Floats = @floatFromInt(vector.splat(Ints, -%negative_total));
            return vector.multiplyAdd(self.min[g], total, t);
        }

        /// t = f32(s0) * d0, then + f32(s1) * d1
        inline fn ofHalves(self: *Self, g: usize, comptime m: usize) Floats {
            const negative = self.input[m].negative_sums + (self.b * num_groups + g) * 4;
            const first = trueSum(self.sums[2 * g][m], negative[0]) * self.scale[g];
            return vector.multiplyAdd(trueSum(self.sums[2 * g + 1][m], negative[2]), self.min[g], first);
        }

        /// Less what the offset adds to it.
        inline fn trueSum(sum: Ints, negative_sum: i32) Floats {
            if (recipe.offset == 0) return @floatFromInt(sum);
            const shift = std.math.log2_int(u32, recipe.offset);
            return @floatFromInt(sum +% (vector.splat(Ints, negative_sum) << @splat(shift)));
        }

        /// t = f32(s) * d, then - f32(m) * dmin
        inline fn ofSuperBlock(self: *Self, comptime m: usize) Floats {
            var sum = self.sums[0][m];
            if (recipe.offset != 0) sum -%= self.excess[m] *% vector.splat(Ints, recipe.offset);
            const t = @as(Floats, @floatFromInt(sum)) * self.scale[0];
            if (!recipe.has_min) return t;
            return vector.multiplyAdd(-@as(Floats, @floatFromInt(self.mins[m])), self.min[0], t);
        }
    };
}
