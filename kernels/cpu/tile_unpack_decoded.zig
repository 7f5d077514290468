//! Unpacks super-blocks through what the rows regime decodes: one of every row as bytes in the
//! first-level cache, then four weights of each row side by side.
const simd = @import("../simd.zig");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const unpack = @import("tile_unpack.zig");
const super_block = @import("../quant/super_block.zig");
const Strip = unpack.Strip(unpack.Rows);
const Recipe = layout.Recipe;
const lanes = vector.lanes;
const Words = vector.Words;

/// `Format` without mins or signed scales whose weights are at most `largest` by magnitude.
pub fn Decoded(comptime Format: type) type {
    comptime if (Format.signed_scales) @compileError("scales are read as unsigned bytes");
    comptime if (Format.offset + Format.largest > 127) @compileError("pairs of products pass i16");
    const has_scales = Format.sub_len < 256;

    return struct {
        pub const block_bytes = @sizeOf(Format.Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = if (!has_scales and vector.in_pairs) 32 else Format.sub_len,
            .offset = if (vector.signed) 0 else Format.offset,
            .largest = Format.largest,
        };

        pub inline fn block(strip: *const Strip, from: usize, b: usize) void {
            var rows: [lanes]Row align(64) = undefined;
            var scales: [lanes]f32 align(64) = undefined;
            decodeRows(strip.source.rows, from, &rows, &scales);
            strip.putScaleFloats(b, scales);
            var decoded: [lanes][*]const u8 = undefined;
            for (&decoded, &rows) |*pointer, *row| pointer.* = &row.weights;
            const source: unpack.Rows = .{ .rows = &decoded };
            for (0..16) |i| {
                const words = source.dwords16(i * 16);
                inline for (0..4) |j| strip.putWeights(b * 64 + i * 4 + j, words[j], 0);
            }
            if (!has_scales and !vector.in_pairs) return;
            const num_subs = 256 / recipe.sub;
            const units = source.dwords16(@offsetOf(Row, "units"));
            inline for (0..num_subs) |s| {
                const one = vector.splat(Words, 1);
                const multiplier = if (has_scales) unpack.byte(units[s / 4], s % 4) else one;
                strip.putMultiplier(b * num_subs + s, @bitCast(multiplier));
            }
        }

        /// A quant block in the tile's bytes, in order.
        const Row = extern struct { weights: [256]u8, units: [16]u8 };

        noinline fn decodeRows(
            sources: *const [lanes][*]const u8,
            from: usize,
            rows: *align(64) [lanes]Row,
            scales: *[lanes]f32,
        ) void {
            var first: usize = 0;
            while (first < lanes) : (first += 4) {
                var p: [4][*]const u8 = undefined;
                inline for (0..4) |i| p[i] = sources[first + i] + from;
                const header = Format.header(p);
                scales[first..][0..4].* = header.d;
                inline for (super_block.decodeFour(Format, p), 0..) |decoded, i| {
                    if (has_scales) rows[first + i].units = simd.part(u8, 16, header.units, i * 16);
                    storeRow(decoded, &rows[first + i].weights);
                }
            }
        }

        inline fn storeRow(decoded: [4]simd.Bytes, weights: *[256]u8) void {
            inline for (decoded, 0..) |vector_of_two, t| {
                const excess: u8 = @intCast(recipe.offset);
                const change: simd.Bytes = @splat(excess -% Format.offset);
                const bytes = vector_of_two +% change;
                const at = (t / 2 * 4 + t % 2) * 32;
                weights[at..][0..32].* = simd.part(u8, 32, bytes, 0);
                weights[at + 64 ..][0..32].* = simd.part(u8, 32, bytes, 32);
            }
        }
    };
}
