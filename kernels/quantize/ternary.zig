//! TQ1_0 and TQ2_0: 256 weights, x = d * (-1, 0 or 1). Weights that are ternary already come back
//! exactly; others get the d with the least squared error.
const std = @import("std");
const codes_file = @import("codes.zig");
const fit = @import("fit.zig");
const len = 256;
const X = *const [len]f32;
const Digits = codes_file.Integers(-1, 1);

/// The digits, 0 … 2, and their scale.
fn search(x: X, w: X, numbers: *[len]u8) f16 {
    const by_extreme = codes_file.inverse(1, .{codes_file.extreme(x)})[0];
    const candidates = places * @as(@Vector(32, f32), @splat(@abs(by_extreme)));
    var best = fit.fitHalf(Digits, 32, x, w, candidates);
    // Its own digits may want another scale: two rounds towards the fixed point.
    for (0..2) |_| {
        const id = codes_file.inverse(1, .{@as(f32, best.scale)});
        const again = fit.fitHalf(Digits, 1, x, w, id);
        if (again.err < best.err) best = again;
    }
    codes_file.encode(Digits, len, x, best.scale, 0, numbers);
    return best.scale;
}

/// largest / d: from 1, where the largest alone counts, to blocks with far outliers.
const places: @Vector(32, f32) = blk: {
    var list: [32]f32 = undefined;
    var next: f32 = 0.75;
    for (&list) |*place| {
        place.* = next;
        next *= 1.13;
    }
    break :blk list;
};

pub const Tq1_0 = struct {
    pub const Block = @import("../quant/tq1_0.zig").Block;
    pub const block_len = len;
    pub const largest = std.math.floatMax(f16);

    pub fn quantize(x: X, w: X, block: *Block) void {
        var numbers: [len]u8 = undefined;
        block.d = search(x, w, &numbers);
        for (block.quants[0..32], 0..) |*byte, i| byte.* = fraction(numbers[i..160], 32, 5);
        for (block.quants[32..], 0..) |*byte, i| byte.* = fraction(numbers[160 + i .. 240], 16, 5);
        for (&block.tail, 0..) |*byte, i| byte.* = fraction(numbers[240 + i ..], 4, 4);
    }

    /// Every `stride`-th digit as 0.t0t1t2t3t4 in base 3, times 256 and rounded up, so that
    /// multiplying by 3 brings out one digit after the other.
    fn fraction(digits: []const u8, comptime stride: usize, comptime count: usize) u8 {
        var value: u32 = 0;
        for (0..5) |n| value = value * 3 + if (n < count) digits[n * stride] else 0;
        return @intCast((value * 256 + 242) / 243);
    }
};

pub const Tq2_0 = struct {
    pub const Block = @import("../quant/tq2_0.zig").Block;
    pub const block_len = len;
    pub const largest = std.math.floatMax(f16);

    pub fn quantize(x: X, w: X, block: *Block) void {
        var numbers: [len]u8 = undefined;
        block.d = search(x, w, &numbers);
        @import("super_signed.zig").storePairs(&block.quants, &numbers);
    }
};
