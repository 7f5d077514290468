//! Q8_0: 32 weights, w = q * d with signed bytes q in order.
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const block32 = @import("block32.zig");

pub const Block = extern struct { d: f16 align(1), quants: [32]i8 };
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 34) @compileError("Q8_0 has 34 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (block.quants, output) |q, *w| w.* = @as(f32, @floatFromInt(q)) * d;
}

/// The dot product wants unsigned bytes up to 255 (q + 128), or else takes signed ones.
pub const is_signed = !dots.wide_unsigned;
pub const offset = if (is_signed) 0 else 128;
pub const has_min = false;
pub inline fn quants(p: [*]const u8) block32.Quants {
    const size = @sizeOf(Block);
    const start = @offsetOf(Block, "quants");
    if (!simd.has_avx512) {
        const low = simd.loadLanes(p + start, size);
        return .{ low, simd.loadLanes(p + start + 16, size) };
    }
    const a = simd.loadHalves(p, start, start + size);
    const b = simd.loadHalves(p, start + 2 * size, start + 3 * size);
    const flip: simd.Bytes = @splat(if (is_signed) 0 else 0x80);
    return .{
        @shuffle(u8, a, b, everyOtherLane(0)) ^ flip,
        @shuffle(u8, a, b, everyOtherLane(1)) ^ flip,
    };
}
fn everyOtherLane(comptime first: usize) [64]i32 {
    @setEvalBranchQuota(100_000);
    var indices: [64]i32 = undefined;
    for (0..64) |i| {
        const lane = i / 16;
        const from: i32 = @intCast(((lane % 2) * 2 + first) * 16 + i % 16);
        indices[i] = if (lane < 2) from else ~from;
    }
    return indices;
}
