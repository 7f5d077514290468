//! F32, F16 and BF16 weights: one element a "block", widened exactly to f32.
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");

pub const F32 = Format(f32);
pub const F16 = Format(f16);
/// BF16 is the upper half of an f32.
pub const BF16 = Format(u16);

fn Format(comptime T: type) type {
    return struct {
        pub const Block = T;
        pub const block_len = 1;
        /// Elements that kernels multiply together.
        pub const together = if (T == u16) 2 else 1;

        pub fn dequantize(block: *align(1) const T, output: *[1]f32) void {
            output[0] = widen(1, .{block.*})[0];
        }
        pub inline fn load(comptime n: usize, p: [*]const u8) @Vector(n, f32) {
            return widen(n, simd.load(@Vector(n, T), p));
        }
        inline fn widen(comptime n: usize, v: @Vector(n, T)) @Vector(n, f32) {
            return switch (T) {
                f32 => v,
                f16 => simd.widenHalves(n, v),
                u16 => brain.widen(n, v),
                else => unreachable,
            };
        }
    };
}
