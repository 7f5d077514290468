//! Unpacks the super-blocks with signed scales: Q6_K and Q3_K (sub-blocks of 16), IQ4_XS (of 32).
const simd = @import("../simd.zig");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const unpack = @import("tile_unpack.zig");
const Bytes = vector.Bytes;
const Words = vector.Words;
const Recipe = layout.Recipe;

/// `Block` of Q6_K. In each 128 weights: 64 bytes `low` hold weights 0..64 in their low nibbles
/// and 64..128 in the high ones; bits 2i of 32 bytes `high` belong to the i-th 32 weights.
pub fn SixBits(comptime Block: type) type {
    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = 16,
            .offset = if (vector.signed) 0 else 32,
            .largest = 32,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            strip.putScale(b, strip.field(u16, from + @offsetOf(Block, "d")));
            const scales = strip.dwords16(from + @offsetOf(Block, "scales"));
            inline for (0..16) |s| {
                strip.putMultiplier(b * 16 + s, unpack.signedByte(scales[s / 4], s % 4));
            }
            inline for (0..2) |n| inline for (0..2) |half| {
                const at = half * 16;
                const high = strip.dwords16(from + @offsetOf(Block, "high") + n * 32 + at);
                inline for (0..2) |odd| {
                    const start = @offsetOf(Block, "low") + n * 64 + odd * 32 + at;
                    const low = strip.dwords16(from + start);
                    inline for (0..2) |top| inline for (0..4) |j| {
                        const part = top * 2 + odd;
                        const w = unpack.bits(low[j], 4 * top, 0x0f) |
                            unpack.bits(high[j], 2 * @as(i32, part) - 4, 0x30);
                        strip.putWeights(b * 64 + n * 32 + part * 8 + half * 4 + j, w, 32);
                    };
                }
            };
        }
    };
}

/// `Block` of Q3_K. The low 2 bits lie as in Q2_K; bit s of `high` belongs to the s-th 32 weights.
/// `multiplied`: weights are put times their scale. (scale - 32) * (q - 4) is in -124..128, which
/// fits a byte after adding 124 or, for signed bytes, times -1.
pub fn ThreeBits(comptime Block: type, comptime multiplied: bool) type {
    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = if (multiplied) 256 else 16,
            .offset = if (vector.signed) 0 else if (multiplied) 124 else 4,
            .largest = 4,
            .negated = multiplied and vector.signed,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            const scales = loadScales(strip, from, b);
            inline for (0..2) |half| {
                const high = strip.dwords16(from + @offsetOf(Block, "high") + half * 16);
                inline for (0..2) |n| {
                    const start = @offsetOf(Block, "quants") + n * 32 + half * 16;
                    const low = strip.dwords16(from + start);
                    inline for (0..4) |i| {
                        const sub = n * 8 + i * 2 + half;
                        const scale = unpack.byte(scales[sub / 4], sub % 4);
                        if (!multiplied) {
                            const centred = scale -% vector.splat(Words, 32);
                            strip.putMultiplier(b * 16 + sub, @bitCast(centred));
                        }
                        inline for (0..4) |j| {
                            const w = unpack.bits(low[j], 2 * i, 3) |
                                unpack.bits(high[j], @as(i32, n * 4 + i) - 2, 4);
                            const tile_w = if (multiplied) multiply(w, scale) else w;
                            const excess = if (multiplied) 0 else 4;
                            strip.putWeights(b * 64 + sub * 4 + j, tile_w, excess);
                        }
                    }
                }
            }
        }

        /// Four words of scales 0..16, still 32 too large. The block's last 16 bytes are two of
        /// `quants`, 8 of low nibbles, 4 of high 2-bit fields, and `d`.
        inline fn loadScales(strip: anytype, from: usize, b: usize) [4]Words {
            comptime if (@offsetOf(Block, "scales") + 14 != @sizeOf(Block)) {
                @compileError("one load takes scales and d");
            };
            var fields: [3]Words = undefined;
            if (@TypeOf(strip.*).is_interleaved) {
                strip.putScale(b, strip.field(u16, from + @offsetOf(Block, "d")));
                const start = from + @offsetOf(Block, "scales");
                inline for (&fields, 0..) |*word, i| word.* = strip.field(u32, start + 4 * i);
            } else {
                const tail = strip.dwords16(from + @sizeOf(Block) - 16);
                strip.putScale(b, tail[3] >> @splat(16));
                inline for (0..3) |i| fields[i] = tail[i] >> @splat(16) | tail[i + 1] << @splat(16);
            }
            return .{
                unpack.bits(fields[0], 0, 0x0f) | unpack.bits(fields[2], -4, 0x30),
                unpack.bits(fields[1], 0, 0x0f) | unpack.bits(fields[2], -2, 0x30),
                unpack.bits(fields[0], 4, 0x0f) | unpack.bits(fields[2], 0, 0x30),
                unpack.bits(fields[1], 4, 0x0f) | unpack.bits(fields[2], 2, 0x30),
            };
        }

        /// The tile's form of (scale - 32) * (w - 4) for w in 0..8 in every byte, bit by bit.
        inline fn multiply(words: Words, scale: Words) Words {
            const w: Bytes = @bitCast(words);
            const scales: Bytes = @bitCast(scale *% unpack.bytes(1));
            const middle = vector.splat(Bytes, 32);
            const unit = if (recipe.negated) middle -% scales else scales -% middle;
            var product = vector.splat(Bytes, recipe.offset) -% unit *% vector.splat(Bytes, 4);
            inline for (0..3) |i| {
                const bit = vector.splat(Bytes, 1 << i);
                const is_set = w & bit != vector.splat(Bytes, 0);
                product = @select(u8, is_set, product +% unit *% bit, product);
            }
            return @bitCast(product);
        }
    };
}

/// `Format` of IQ4_XS: nibbles lie as in Q4_0 in each 32 weights, and stand for `levels`. Scale j has
/// its low bits in nibble j of `scales_low` and two more in pair j of `scales_high`.
/// `in_tile`: weights are put times their scale where tiles hold words.
pub fn Levels(comptime Format: type, comptime in_tile: bool) type {
    const Block = Format.Block;
    const multiplied = in_tile and vector.products == .unsigned_pairs;

    return struct {
        pub const block_bytes = @sizeOf(Block);
        pub const recipe: Recipe = .{
            .group = 256,
            .sub = if (multiplied) 256 else 32,
            .offset = Format.offset,
            .largest = Format.largest,
            .is_signed = Format.offset == 0,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            comptime if (@offsetOf(Block, "d") != 0 or @offsetOf(Block, "scales_high") != 2) {
                @compileError("one load takes d and scales_high");
            };
            const head = strip.field(u32, from);
            const low = strip.field(u32, from + @offsetOf(Block, "scales_low"));
            strip.putScale(b, head);
            inline for (0..8) |sub| {
                const four = low >> @splat(4 * sub) & vector.splat(Words, 0x0f);
                const two = head >> @splat(12 + 2 * sub) & vector.splat(Words, 0x30);
                const scale: vector.Ints = @bitCast((four | two) -% vector.splat(Words, 32));
                if (!multiplied) strip.putMultiplier(b * 8 + sub, scale);
                const nibbles = strip.dwords16(from + @offsetOf(Block, "quants") + sub * 16);
                inline for (0..2) |half| inline for (0..4) |j| {
                    const codes: Bytes = @bitCast(unpack.bits(nibbles[j], 4 * half, 0x0f));
                    const w: Words = @bitCast(simd.lookUp16(codes, Format.levels, recipe.offset));
                    unpack.put(recipe, strip, b * 64 + sub * 8 + half * 4 + j, w, scale);
                };
            }
        }
    };
}
