//! MXFP4 and NVFP4: E2M1 floats under a power of two per 32, or under an unsigned E4M3 per 16.
const std = @import("std");
const codes_file = @import("codes.zig");
const fit = @import("fit.zig");

/// E2M1: 2 exponent bits, 1 mantissa bit and the sign.
const E2M1 = codes_file.Levels(&.{
    -6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0,
});
/// The code of each of these levels: magnitude in the low 3 bits, sign in bit 3.
const code_of: [15]u8 = .{ 15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7 };

fn storeCodes(
    comptime n: usize,
    x: *const [n]f32,
    scale: f32,
    bytes: *[n / 2]u8,
) void {
    var numbers: [n]u8 = undefined;
    codes_file.encode(E2M1, n, x, scale, 0, &numbers);
    for (bytes, numbers[0 .. n / 2], numbers[n / 2 ..]) |*byte, low, high| {
        byte.* = code_of[low] | code_of[high] << 4;
    }
}

pub const Mxfp4 = struct {
    pub const Block = @import("../quant/mxfp4.zig").Block;
    pub const block_len = 32;
    /// 6 * 2^127 is above every f32.
    pub const largest = std.math.floatMax(f32);

    pub fn quantize(x: *const [32]f32, w: *const [32]f32, block: *Block) void {
        const amax = @abs(codes_file.extreme(x));
        if (amax == 0) {
            block.* = .{ .e = 0, .quants = @splat(0) };
            return;
        }
        // The power of two that brings the largest into 4 … 8; its neighbours are tried as well.
        const middle = std.math.ilogb(amax) - 2;
        var near: [32]f32 = undefined;
        const halfway = @divTrunc(-middle, 2);
        for (x, &near) |v, *y| y.* = v * powerOfTwo(halfway) * powerOfTwo(-middle - halfway);
        var exponents: [4]i32 = undefined;
        var scales: [4]f32 = undefined;
        for (&exponents, &scales, 0..) |*e, *scale, i| {
            const wanted = middle + @as(i32, @intCast(i)) - 1;
            e.* = @max(-127, @min(127, wanted));
            scale.* = powerOfTwo(e.* - middle);
        }
        const chosen = fit.chooseScale(E2M1, 4, &near, w, scales, null).lane;
        block.e = @intCast(exponents[chosen] + 127);
        storeCodes(32, &near, scales[chosen], &block.quants);
    }
};

/// 2^e for e in -126 … 127.
fn powerOfTwo(e: i32) f32 {
    return @bitCast(@as(u32, @intCast(e + 127)) << 23);
}

pub const Nvfp4 = struct {
    pub const Block = extern struct { scales: [4]u8, quants: [32]u8 };
    pub const block_len = 64;
    pub const largest = 6 * 448;

    pub fn quantize(x: *const [64]f32, w: *const [64]f32, block: *Block) void {
        for (0..4) |j| {
            const xs = x[j * 16 ..][0..16];
            // From a bit below the scale that just covers the largest to twice as much.
            const covering = scaleCode(@abs(codes_file.extreme(xs)) / 6);
            const first = @min(covering -| 4, last_code - 15);
            var scales: [16]f32 = undefined;
            for (&scales, 0..) |*scale, i| scale.* = scaleOf(first + @as(u32, @intCast(i)));
            const chosen = fit.chooseScale(E2M1, 16, xs, w[j * 16 ..][0..16], scales, null).lane;
            block.scales[j] = @intCast(first + chosen);
            storeCodes(16, xs, scales[chosen], block.quants[j * 8 ..][0..8]);
        }
    }

    /// 448; the code above is a NaN.
    const last_code = 126;

    /// Unsigned E4M3, bias 7.
    fn scaleOf(code: u32) f32 {
        if (code < 8) return @as(f32, @floatFromInt(code)) * 0x1p-9;
        return @bitCast((code << 20) + (120 << 23));
    }
    /// The largest code not above `scale`.
    fn scaleCode(scale: f32) u32 {
        if (scale < 0x1p-6) return @intFromFloat(scale * 0x1p9);
        return @min(last_code, (@as(u32, @bitCast(scale)) - (120 << 23)) >> 20);
    }
};
