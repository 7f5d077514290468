//! Unpacks the super-blocks with mins: Q4_K and Q5_K (sub-blocks of 32) and Q2_K (of 16).
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const unpack = @import("tile_unpack.zig");
const Words = vector.Words;
const Recipe = layout.Recipe;

/// `Block` of Q4_K or, with a field `high` of fifth bits, Q5_K. In each 32 bytes of `quants`
/// the low nibbles are sub-block 2i, the high ones 2i + 1; bit s of `high` belongs to sub-block s.
pub fn Nibbles(comptime Block: type) type {
    const has_fifth = @hasField(Block, "high");

    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = 32,
            .largest = if (has_fifth) 31 else 15,
            .has_min = true,
            .min_sub = 32,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            putScales(strip, from, b);
            var high: [2][4]Words = undefined;
            if (has_fifth) inline for (0..2) |half| {
                high[half] = strip.dwords16(from + @offsetOf(Block, "high") + half * 16);
            };
            inline for (0..4) |i| inline for (0..2) |half| {
                const start = @offsetOf(Block, "quants") + i * 32 + half * 16;
                const nibbles = strip.dwords16(from + start);
                inline for (0..2) |odd| inline for (0..4) |j| {
                    const sub = 2 * i + odd;
                    var w = unpack.bits(nibbles[j], 4 * odd, 0x0f);
                    if (has_fifth) w |= unpack.bits(high[half][j], @as(i32, sub) - 4, 0x10);
                    strip.putWeights(b * 64 + sub * 8 + half * 4 + j, w, 0);
                };
            };
        }

        /// Scales and mins 0..4 are the low 6 bits of bytes 0..8; those of 4..8 have their low
        /// nibbles in bytes 8..12 and their high bits on top of bytes 0..8.
        inline fn putScales(strip: anytype, from: usize, b: usize) void {
            comptime if (@offsetOf(Block, "dmin") != 2 or @offsetOf(Block, "scales") != 4) {
                @compileError("one load takes d, dmin and scales");
            };
            const head = strip.dwords16(from);
            strip.putScale(b, head[0]);
            strip.putMin(b, head[0] >> @splat(16));
            const scales = [2]Words{
                unpack.bits(head[1], 0, 0x3f),
                unpack.bits(head[3], 0, 0x0f) | unpack.bits(head[1], 2, 0x30),
            };
            const mins = [2]Words{
                unpack.bits(head[2], 0, 0x3f),
                unpack.bits(head[3], 4, 0x0f) | unpack.bits(head[2], 2, 0x30),
            };
            inline for (0..8) |s| {
                strip.putMultiplier(b * 8 + s, @bitCast(unpack.byte(scales[s / 4], s % 4)));
            }
            inline for (0..4) |i| {
                const first = unpack.byte(mins[i / 2], i % 2 * 2);
                strip.putMinPair(b * 4 + i, first, unpack.byte(mins[i / 2], i % 2 * 2 + 1));
            }
        }
    };
}

/// `Block` of Q2_K: 16 bytes of scales (low nibble) and mins (high), 64 bytes of 2-bit weights.
/// In each 128 weights, bits 2i of the 32 bytes are the i-th 32 weights.
/// `multiplied`: weights are put times their scale, which is at most 45.
pub fn TwoBits(comptime Block: type, comptime multiplied: bool) type {
    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = if (multiplied) 256 else 16,
            .largest = 3,
            .has_min = true,
            .min_sub = 16,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            comptime if (@offsetOf(Block, "dmin") != @offsetOf(Block, "d") + 2) {
                @compileError("one load takes d and dmin");
            };
            const both = strip.field(u32, from + @offsetOf(Block, "d"));
            strip.putScale(b, both);
            strip.putMin(b, both >> @splat(16));
            const head = strip.dwords16(from + @offsetOf(Block, "scales"));
            inline for (0..8) |i| {
                const mins = unpack.bits(head[i / 2], 4, 0x0f);
                const first = unpack.byte(mins, i % 2 * 2);
                strip.putMinPair(b * 8 + i, first, unpack.byte(mins, i % 2 * 2 + 1));
            }
            inline for (0..4) |part| {
                const quants = strip.dwords16(from + @offsetOf(Block, "quants") + part * 16);
                inline for (0..4) |i| {
                    const sub = part / 2 * 8 + i * 2 + part % 2;
                    const scale = unpack.byte(unpack.bits(head[sub / 4], 0, 0x0f), sub % 4);
                    if (!multiplied) strip.putMultiplier(b * 16 + sub, @bitCast(scale));
                    inline for (0..4) |j| {
                        const w = unpack.bits(quants[j], 2 * i, 3);
                        const dword = b * 64 + sub * 4 + j;
                        strip.putWeights(dword, if (multiplied) w *% scale else w, 0);
                    }
                }
            }
        }
    };
}
