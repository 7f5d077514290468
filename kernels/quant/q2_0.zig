//! Q2_0: 64 weights, w = d * (q - 1) with 2-bit q, four to a byte in order.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");

pub const Block = extern struct { d: f16 align(1), quants: [16]u8 };
pub const block_len = 64;
comptime {
    if (@sizeOf(Block) != 18) @compileError("Q2_0 has 18 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (output, 0..) |*w, i| {
        const q: i32 = block.quants[i / 4] >> @intCast(i % 4 * 2) & 3;
        w.* = @as(f32, @floatFromInt(q - 1)) * d;
    }
}

pub const is_signed = false;
pub const offset = 1;
pub const has_min = false;

pub inline fn quants(p: [*]const u8) block32.Quants {
    var result: block32.Quants = undefined;
    inline for (&result, 0..) |*vector, half| {
        var words: [4]u32 = undefined;
        inline for (&words, 0..) |*word, j| {
            const at = j / 2 * @sizeOf(Block) + 2 + j % 2 * 8 + half * 4;
            word.* = simd.load(u32, p + at);
        }
        const bytes: @Vector(16, u8) = @bitCast(words);
        vector.* = @bitCast(simd.spreadFields(@as(@Vector(16, u32), bytes), 2));
    }
    return result;
}

pub inline fn scales(p: [4][*]const u8) simd.Floats {
    const size = @sizeOf(Block);
    return block32.scalesAt(p, .{ 0, 0, size, size });
}
