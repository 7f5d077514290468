//! Q1_0: 128 weights, w = d where the weight's bit is set, else -d.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");

pub const Block = extern struct { d: f16 align(1), bits: [16]u8 };
pub const block_len = 128;
comptime {
    if (@sizeOf(Block) != 18) @compileError("Q1_0 has 18 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (output, 0..) |*w, i| {
        w.* = if (block.bits[i / 8] >> @intCast(i % 8) & 1 == 1) d else -d;
    }
}

pub const is_signed = false;
pub const offset = 1;
pub const has_min = false;

pub inline fn quants(p: [*]const u8) block32.Quants {
    const bytes = simd.load(@Vector(16, u8), p + @offsetOf(Block, "bits"));
    const zero: simd.Bytes = @splat(0);
    var result: block32.Quants = undefined;
    inline for (&result, 0..) |*vector, half| {
        const spread = @shuffle(u8, bytes, undefined, byteOf(half));
        const is_set = (spread & simd.bit_of_element) != zero;
        vector.* = @select(u8, is_set, @as(simd.Bytes, @splat(2)), zero);
    }
    return result;
}
fn byteOf(comptime half: usize) [64]i32 {
    @setEvalBranchQuota(10_000);
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(i / 16 * 4 + half * 2 + i % 16 / 8);
    return indices;
}

pub inline fn scales(p: [4][*]const u8) simd.Floats {
    return block32.scalesAt(p, .{ 0, 0, 0, 0 });
}
