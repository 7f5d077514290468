//! Unpacks TQ1_0: 256 ternary weights with one scale, several of them in a byte.
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const Bytes = vector.Bytes;
const Words = vector.Words;
const Recipe = layout.Recipe;

/// `Format` of TQ1_0, whose bytes hold several digits: its `firstDigit` is one, its `triple`
/// holds the others.
pub fn Digits(comptime Format: type, comptime in_tile: bool) type {
    return struct {
        pub const block_bytes = @sizeOf(Format.Block);
        pub const recipe: Recipe = .{
            .group = 256,
            // There are no integer scales, but sums of 256 are for tiles of byte dot products alone.
            .sub = if (in_tile and !vector.in_pairs) 256 else 32,
            .offset = if (vector.signed) 0 else Format.offset,
            .largest = Format.largest,
        };

        pub inline fn block(strip: anytype, from: usize, b: usize) void {
            strip.putScale(b, strip.field(u16, from + @offsetOf(Format.Block, "d")));
            const one = vector.splat(vector.Ints, 1);
            if (recipe.sub == 32) inline for (0..8) |sub| strip.putMultiplier(b * 8 + sub, one);
            const start = from + @offsetOf(Format.Block, "quants");
            const first = strip.dwords16(start) ++ strip.dwords16(start + 16);
            putDigits(5, strip, b * 64, first);
            putDigits(5, strip, b * 64 + 40, strip.dwords16(start + 32));
            const tail = strip.field(u32, from + @offsetOf(Format.Block, "tail"));
            putDigits(4, strip, b * 64 + 60, [1]Words{tail});
        }

        /// All first digits, all second ones and so on.
        inline fn putDigits(comptime count: usize, strip: anytype, dword: usize, words: anytype) void {
            var rest: [words.len]Bytes = @bitCast(words);
            inline for (0..count) |i| inline for (&rest, 0..) |*bytes, j| {
                const w: Words = @bitCast(Format.firstDigit(bytes.*));
                strip.putWeights(dword + i * words.len + j, w, Format.offset);
                bytes.* = Format.triple(bytes.*);
            };
        }
    };
}
