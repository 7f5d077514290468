//! Q2_K: 256 weights in sub-blocks of 16, w = d * scale * q - dmin * min with 2-bit q, 4-bit scale
//! (low nibble) and min. Per 128 weights 32 bytes of four 2-bit parts.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");

pub const Block = extern struct {
    scales: [16]u8,
    quants: [64]u8,
    d: f16 align(1),
    dmin: f16 align(1),
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 84) @compileError("Q2_K has 84 bytes a block");
}

/// d and dmin first.
pub const read_order = [_][2]usize{ .{ 80, 4 }, .{ 0, 80 } };

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    const dmin = simd.widenHalf(block.dmin);
    for (block.scales, 0..) |byte, u| {
        const d_sub = d * @as(f32, @floatFromInt(byte & 15));
        const m_sub = dmin * @as(f32, @floatFromInt(byte >> 4));
        const shift: u3 = @intCast(u % 8 / 2 * 2);
        for (0..16) |i| {
            const q = block.quants[u / 8 * 32 + (u % 2) * 16 + i] >> shift & 3;
            output[u * 16 + i] = d_sub * @as(f32, @floatFromInt(q)) - m_sub;
        }
    }
}

pub const sub_len = 16;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
/// Four products of a code and an activation fit 16 bits: 4 * 3 * 127.
pub const quads_fit = true;
pub const offset = 0;
pub const mins = super_block.Mins.apart;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    const bytes = super_block.lanes(p, @offsetOf(Block, "scales"));
    const d, const dmin = super_block.halfPairs(p, @offsetOf(Block, "d"));
    return .{
        .units = simd.bits(bytes, .{ 0, 0 }, 4, 0),
        .mins = simd.bits(bytes, .{ 4, 4 }, 4, 0),
        .d = d,
        .dmin = dmin,
    };
}

/// Sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const start = @offsetOf(Block, "quants") + half * 32;
    return simd.bits(simd.loadHalves(p, start, start), .{ 2 * odd, 2 * odd + 4 }, 2, 0);
}
