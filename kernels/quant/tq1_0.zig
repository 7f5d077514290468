//! TQ1_0: 256 weights, w = d * (t - 1) with ternary digits t. A byte stores the fraction
//! 0.t0t1t2t3t4 in base 3, scaled to 256: times 3^i mod 256, then times 3, the carry is digit i.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const Half = @Vector(32, u8);
const Lane = @Vector(16, u8);

/// Digit i of `quants[0..32]` are weights 32i.., of `quants[32..48]` 160 + 16i.., of `tail`
/// (4 digits) 240 + 4i...
pub const Block = extern struct { quants: [48]u8, tail: [4]u8, d: f16 align(1) };
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 54) @compileError("TQ1_0 has 54 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (output, 0..) |*w, e| {
        const byte, const index = if (e < 160)
            .{ block.quants[e % 32], e / 32 }
        else if (e < 240)
            .{ block.quants[32 + e % 16], (e - 160) / 16 }
        else
            .{ block.tail[e % 4], (e - 240) / 4 };
        const powers = [_]u8{ 1, 3, 9, 27, 81 };
        const carry: i32 = @as(u16, byte *% powers[index]) * 3 >> 8;
        w.* = @as(f32, @floatFromInt(carry - 1)) * d;
    }
}

pub const sub_len = 256;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 1;
pub const largest = 1;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    return .{ .units = undefined, .d = super_block.halves(p, @offsetOf(Block, "d")) };
}

/// The vectors `2 * half + odd`: sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn all(p: [*]const u8) [4]simd.Bytes {
    const a0 = simd.load(Half, p);
    const a1 = triple(a0);
    const a2 = triple(a1);
    const a3 = triple(a2);
    const a4 = triple(a3);
    const b0 = simd.load(Lane, p + 32);
    const b1 = triple(b0);
    const b2 = triple(b1);
    const b3 = triple(b2);
    const b4 = triple(b3);
    // The last 16: four bytes times 1, 3, 9 and 27.
    const Word = @Vector(4, u8);
    const c0 = simd.load(Word, p + @offsetOf(Block, "tail"));
    const c1 = triple(c0);
    const c2 = triple(c1);
    const c = simd.join(u8, 8, simd.join(u8, 4, c0, c1), simd.join(u8, 4, c2, triple(c2)));
    const low = simd.join(u8, 16, b0, b1);
    const middle = simd.join(u8, 16, b2, b3);
    return .{
        firstDigit(simd.join(u8, 32, a0, a2)),
        firstDigit(simd.join(u8, 32, a1, a3)),
        firstDigit(simd.join(u8, 32, a4, middle)),
        firstDigit(simd.join(u8, 32, low, simd.join(u8, 16, b4, c))),
    };
}

/// What is left of bytes after their first digit.
pub inline fn triple(x: anytype) @TypeOf(x) {
    return x +% x +% x;
}
/// The first digit of bytes, floor of 3x / 256.
pub inline fn firstDigit(x: anytype) @TypeOf(x) {
    const one: @TypeOf(x) = @splat(1);
    const is_one = x >= @as(@TypeOf(x), @splat(86));
    const is_two = x >= @as(@TypeOf(x), @splat(171));
    const first = @select(u8, is_one, one, @as(@TypeOf(x), @splat(0)));
    return @select(u8, is_two, first +% one, first);
}
