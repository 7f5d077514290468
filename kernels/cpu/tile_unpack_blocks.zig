//! Unpacks the 32-blocks Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4: one scale, and for the
//! `_1` types one F16 min, per 32 weights.
const simd = @import("../simd.zig");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const unpack = @import("tile_unpack.zig");
const Words = vector.Words;
const Recipe = layout.Recipe;

/// `Block` of 16 bytes `quants`: weights 0..16 in the low nibbles, 16..32 in the high ones; with
/// a field `high` its 32 bits are the weights' fifth bits, with a field `m` there is a min.
pub fn Nibbles(comptime Block: type) type {
    const has_min = @hasField(Block, "m");
    const has_fifth = @hasField(Block, "high");
    const num_levels = if (has_fifth) 32 else 16;
    const middle = if (has_min) 0 else num_levels / 2;

    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 32,
            .sub = 32,
            .offset = if (vector.signed) 0 else middle,
            .largest = if (has_min) num_levels - 1 else middle,
            .has_min = has_min,
        };

        /// Block `b` of the tile from byte `from` of each row.
        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            if (has_min) {
                comptime if (@offsetOf(Block, "m") != @offsetOf(Block, "d") + 2) {
                    @compileError("one load takes d and m");
                };
                const both = strip.field(u32, from + @offsetOf(Block, "d"));
                strip.putScale(b, both);
                strip.putMin(b, both >> @splat(16));
            } else strip.putScale(b, strip.field(u16, from + @offsetOf(Block, "d")));
            var high: Words = undefined;
            if (has_fifth) high = strip.field(u32, from + @offsetOf(Block, "high"));
            const nibbles = strip.dwords16(from + @offsetOf(Block, "quants"));
            inline for (0..8) |j| {
                var w = unpack.bits(nibbles[j % 4], if (j < 4) 0 else 4, 0x0f);
                if (has_fifth) w |= fifthBits(high >> @splat(4 * j));
                strip.putWeights(b * 8 + j, w, middle);
            }
        }
    };
}

/// Bits 0..4 of each word to bit 4 of its four bytes.
inline fn fifthBits(words: Words) Words {
    const spread = (words & vector.splat(Words, 15)) *% vector.splat(Words, 0x02040810);
    return spread & unpack.bytes(0x10);
}

/// A format with `levels` for nibbles that lie as in Q4_0.
pub fn Levels(comptime Format: type) type {
    const largest = comptime blk: {
        var most: i16 = 0;
        for (Format.levels) |level| most = @max(most, @abs(@as(i16, level)));
        break :blk most;
    };
    const shifted = vector.products == .unsigned_dot or
        (vector.products == .unsigned_pairs and largest <= 16);
    const excess = if (largest <= 16) 16 else 128;

    return struct {
        pub const block_bytes = @sizeOf(Format.Block);
        pub const recipe: Recipe = .{
            .group = 32,
            .sub = 32,
            .offset = if (shifted) excess else 0,
            .largest = largest,
            .is_signed = !shifted,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            if (@hasField(Format.Block, "e")) {
                const e = strip.field(u8, from + @offsetOf(Format.Block, "e"));
                strip.putScaleFloats(b, Format.halfPowers(vector.lanes, e));
            } else strip.putScale(b, strip.field(u16, from + @offsetOf(Format.Block, "d")));
            const nibbles = strip.dwords16(from + @offsetOf(Format.Block, "quants"));
            inline for (0..8) |j| {
                const codes = unpack.bits(nibbles[j % 4], if (j < 4) 0 else 4, 0x0f);
                const bytes: vector.Bytes = @bitCast(codes);
                const w = simd.lookUp16(bytes, Format.levels, recipe.offset);
                unpack.put(recipe, strip, b * 8 + j, @bitCast(w), @splat(1));
            }
        }
    };
}

/// `Block` of 32 signed bytes `quants`.
pub fn Bytes(comptime Block: type) type {
    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 32,
            .sub = 32,
            .offset = if (vector.products == .unsigned_dot) 128 else 0,
            .largest = 128,
            .is_signed = vector.products != .unsigned_dot,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            strip.putScale(b, strip.field(u16, from + @offsetOf(Block, "d")));
            inline for (0..2) |half| {
                const words = strip.dwords16(from + @offsetOf(Block, "quants") + half * 16);
                inline for (0..4) |j| {
                    // Flipping the top bit adds 128 to a signed byte.
                    const flip = unpack.bytes(if (recipe.offset != 0) 0x80 else 0);
                    unpack.put(recipe, strip, b * 8 + half * 4 + j, words[j] ^ flip, @splat(1));
                }
            }
        }
    };
}
