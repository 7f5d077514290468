//! Unpacks the 32-blocks Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4: one scale, and for the
//! `_1` types one F16 min, per 32 weights. NVFP4, Q1_0 and Q2_0 are several such groups.
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
                if (has_fifth) w |= spreadBits(high >> @splat(4 * j), 4);
                strip.putWeights(b * 8 + j, w, middle);
            }
        }
    };
}

/// Bits 0..4 of each word to bit `to` of its four bytes.
inline fn spreadBits(words: Words, comptime to: u5) Words {
    const moved = (words & vector.splat(Words, 15)) *% vector.splat(Words, 0x00204081 << to);
    return moved & unpack.bytes(1 << to);
}

/// A format with `levels` for nibbles that lie as in Q4_0.
pub fn Levels(comptime Format: type) type {
    const largest = comptime largestOf(Format);
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
                const w = levelsOf(Format, codes, recipe.offset);
                unpack.put(recipe, strip, b * 8 + j, w, @splat(1));
            }
        }
    };
}

/// A format with `levels` for nibbles and a scale per 16 weights, of which 8 bytes hold the first 8
/// in their low nibbles.
pub fn HalvedLevels(comptime Format: type) type {
    return struct {
        pub const block_bytes = @sizeOf(Format.Block);
        pub const num_groups = Format.block_len / 32;
        pub const recipe: Recipe = .{
            .group = 32,
            .sub = 16,
            .offset = if (vector.signed) 0 else Format.offset,
            .largest = largestOf(Format),
            .has_two_scales = true,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            const codes = strip.field(u32, from + @offsetOf(Format.Block, "scales"));
            inline for (0..num_groups) |i| {
                const group = b * num_groups + i;
                strip.putScaleFloats(group, scalesOf(codes, 2 * i));
                strip.putSecondScale(group, scalesOf(codes, 2 * i + 1));
                const nibbles = strip.dwords16(from + @offsetOf(Format.Block, "quants") + i * 16);
                inline for (0..8) |j| {
                    const dword = nibbles[j / 4 * 2 + j % 2];
                    const w = levelsOf(Format, unpack.bits(dword, j / 2 % 2 * 4, 0x0f), recipe.offset);
                    strip.putWeights(group * 8 + j, w, 0);
                }
            }
        }

        inline fn scalesOf(codes: Words, comptime index: u5) vector.Floats {
            return Format.halfScales(vector.lanes, unpack.byte(codes, index));
        }
    };
}

/// A format with one scale for 128 bits of codes in order, of 1 bit (which counts 2) or 2 bits.
pub fn Codes(comptime Format: type) type {
    const num_bits = 128 / Format.block_len;
    return struct {
        pub const block_bytes = @sizeOf(Format.Block);
        pub const num_groups = Format.block_len / 32;
        pub const recipe: Recipe = .{
            .group = 32,
            .sub = 32,
            .offset = if (vector.signed) 0 else Format.offset,
            .largest = 2,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            const scale = strip.field(u16, from + @offsetOf(Format.Block, "d"));
            inline for (0..num_groups) |i| strip.putScale(b * num_groups + i, scale);
            const words = strip.dwords16(from + @sizeOf(Format.Block) - 16);
            inline for (0..num_groups * 8) |j| {
                const w = spread(words[j * num_bits / 8], j * num_bits % 8 * 4);
                strip.putWeights(b * num_groups * 8 + j, w, Format.offset);
            }
        }

        /// Four codes of each word, from bit `first` on, as its bytes.
        inline fn spread(words: Words, comptime first: u5) Words {
            if (vector.lanes < 16) {
                const codes = words >> @splat(first);
                return if (num_bits == 1) spreadBits(codes, 1) else simd.spreadFields(codes, num_bits);
            }
            const zeros = 2 - num_bits;
            comptime var starts: [64]u8 = undefined;
            comptime for (&starts, 0..) |*start, i| {
                start.* = (64 + i / 4 % 2 * 32 + first + i % 4 * num_bits - zeros) % 64;
            };
            const bytes: Words = @bitCast(simd.shiftToBytes(@bitCast(words), starts));
            return bytes & unpack.bytes(3 << zeros & 3);
        }
    };
}

/// The format's level of every byte of `codes`, `offset` too large.
inline fn levelsOf(comptime Format: type, codes: Words, comptime offset: u8) Words {
    return @bitCast(simd.lookUp16(@as(vector.Bytes, @bitCast(codes)), Format.levels, offset));
}

/// Of the format's levels, by magnitude.
fn largestOf(comptime Format: type) comptime_int {
    var most: i16 = 0;
    for (Format.levels) |level| most = @max(most, @abs(@as(i16, level)));
    return most;
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
