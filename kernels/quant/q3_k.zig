//! Q3_K: 256 weights in sub-blocks of 16, w = d * (scale - 32) * (q - 4) with 3-bit q and 6-bit
//! scale. The low 2 bits of q lie as in Q2_K; bit j of byte i of `high` is the third bit of
//! element i of the j-th 32.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");

pub const Block = extern struct {
    high: [32]u8,
    quants: [64]u8,
    scales: [12]u8,
    d: f16 align(1),
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 110) @compileError("Q3_K has 110 bytes a block");
}

/// Scale of sub-block `u` of 16: 4 low bits in the first 8 bytes, 2 high bits in the last 4.
pub fn scale(bytes: *const [12]u8, u: usize) i8 {
    const low = bytes[u % 8] >> @intCast(u / 8 * 4) & 15;
    const high = bytes[8 + u % 4] >> @intCast(u / 4 * 2) & 3;
    return @as(i8, @intCast(low | high << 4)) - 32;
}

/// Scales first; of each half of the 32s, the high bits and then the low ones.
pub const read_order = [_][2]usize{ .{ 108, 2 }, .{ 96, 12 } } ++
    inTurn(0) ++ inTurn(16);
fn inTurn(at: usize) [3][2]usize {
    return .{
        .{ @offsetOf(Block, "high") + at, 16 },
        .{ @offsetOf(Block, "quants") + at, 16 },
        .{ @offsetOf(Block, "quants") + 32 + at, 16 },
    };
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (0..16) |u| {
        const d_sub = d * @as(f32, @floatFromInt(scale(&block.scales, u)));
        const shift: u3 = @intCast(u % 8 / 2 * 2);
        for (0..16) |i| {
            const at = (u % 2) * 16 + i;
            const low: i32 = block.quants[u / 8 * 32 + at] >> shift & 3;
            const high: i32 = block.high[at] >> @intCast(u / 2) & 1;
            output[u * 16 + i] = d_sub * @as(f32, @floatFromInt((low | high << 2) - 4));
        }
    }
}

pub const sub_len = 16;
pub const signed_scales = true;
pub const form = super_block.Form.narrow;
/// Four products of a code and an activation fit 16 bits: 4 * 7 * 127.
pub const quads_fit = true;
pub const offset = 4;
pub const mins = super_block.Mins.none;

/// Reads 2 bytes past a row's last block.
pub inline fn header(p: [4][*]const u8) super_block.Header {
    const U = @Vector(16, u32);
    const rows: U = @bitCast(super_block.lanes(p, @offsetOf(Block, "scales")));
    const low = simd.shuffleLanes(u32, rows, rows, .{ 0, 1, 0, 1 }) >> shifts(.{ 0, 0, 4, 4 });
    const high = simd.shuffleLanes(u32, rows, rows, .{ 2, 2, 2, 2 }) >> shifts(.{ 0, 2, 4, 6 });
    const nibble = low & @as(U, @splat(0x0f0f0f0f));
    const top = (high & @as(U, @splat(0x03030303))) << @splat(4);
    return .{
        .units = @as(simd.Bytes, @bitCast(nibble | top)) -% @as(simd.Bytes, @splat(32)),
        .d = super_block.halves(p, @offsetOf(Block, "d")),
    };
}
inline fn shifts(comptime v: [4]u5) @Vector(16, u5) {
    return comptime v ++ v ++ v ++ v;
}

/// Sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const first = 4 * half + odd;
    const start = @offsetOf(Block, "quants") + half * 32;
    const high = simd.loadHalves(p, @offsetOf(Block, "high"), @offsetOf(Block, "high"));
    return simd.bits(simd.loadHalves(p, start, start), .{ 2 * odd, 2 * odd + 4 }, 2, 0) |
        simd.bits(high, .{ first, first + 2 }, 1, 2);
}
