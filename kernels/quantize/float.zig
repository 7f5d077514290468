//! F32, F16 and BF16: rounding to nearest even, nothing to search.
const std = @import("std");

pub const F32 = struct {
    pub const Block = f32;
    pub const block_len = 1;
    pub const largest = std.math.floatMax(f32);
    pub inline fn round(comptime n: usize, x: @Vector(n, f32)) @Vector(n, f32) {
        return x;
    }
};

pub const F16 = struct {
    pub const Block = f16;
    pub const block_len = 1;
    /// The last f32 that does not round to infinity.
    pub const largest: f32 = @bitCast(@as(u32, 0x477fefff));
    pub inline fn round(comptime n: usize, x: @Vector(n, f32)) @Vector(n, f16) {
        return @floatCast(x);
    }
};

/// The upper half of an f32.
pub const BF16 = struct {
    pub const Block = u16;
    pub const block_len = 1;
    pub const largest: f32 = @bitCast(@as(u32, 0x7f7f7fff));
    pub inline fn round(comptime n: usize, x: @Vector(n, f32)) @Vector(n, u16) {
        const U = @Vector(n, u32);
        const bits: U = @bitCast(x);
        const odd = bits >> @as(@Vector(n, u5), @splat(16)) & @as(U, @splat(1));
        const rounded = bits + @as(U, @splat(0x7fff)) + odd;
        return @truncate(rounded >> @as(@Vector(n, u5), @splat(16)));
    }
};
