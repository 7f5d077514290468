//! Weights of 8-bit floats (arXiv 2209.05433), one code a "block": a weight is the code's value
//! times the scale of its block (scales.zig), rounded to f32 once.
const simd = @import("../simd.zig");

pub const E4M3 = Format(.e4m3);
pub const E5M2 = Format(.e5m2);

fn Format(comptime kind: enum { e4m3, e5m2 }) type {
    return struct {
        pub const Block = u8;
        pub const block_len = 1;
        pub const is_scaled = true;

        /// What the f16 of `halves` stand for is so many times larger.
        const unit = if (kind == .e4m3) 256 else 1;

        /// The code's value, without a scale.
        pub fn dequantize(block: *align(1) const u8, output: *[1]f32) void {
            output[0] = load(1, @ptrCast(block), 1)[0];
        }

        /// The weights at `p`, `scale` being that of all of them, below 2^120.
        pub inline fn load(comptime n: usize, p: [*]const u8, scale: f32) @Vector(n, f32) {
            const codes = simd.load(@Vector(n, u8), p);
            if (n == 64 and simd.has_byte_tables) return lookUp(codes, scale);
            const factor: @Vector(n, f32) = @splat(scale * unit);
            return simd.widenHalves(n, halves(n, codes)) * factor;
        }

        /// The codes as f16, whose exponent is biased by 15: that of E5M2, but 7 in E4M3.
        inline fn halves(comptime n: usize, codes: @Vector(n, u8)) @Vector(n, f16) {
            const U = @Vector(n, u16);
            if (kind == .e5m2) return @bitCast(@as(U, codes) << @splat(8));
            // The sign fills the upper bits; the second highest is the exponent's, which is 0.
            const signed: @Vector(n, i16) = @as(@Vector(n, i8), @bitCast(codes));
            const finite = @as(U, @bitCast(signed << @splat(7))) & @as(U, @splat(0xbfff));
            // The largest magnitude is no number.
            const magnitudes = codes & @as(@Vector(n, u8), @splat(0x7f));
            const is_nan = magnitudes == @as(@Vector(n, u8), @splat(0x7f));
            return @bitCast(@select(u16, is_nan, @as(U, @splat(0x7e00)), finite));
        }

        /// The upper halves of the values, byte by byte from tables: the lower halves are 0.
        inline fn lookUp(codes: simd.Bytes, scale: f32) @Vector(64, f32) {
            const sign = codes & @as(simd.Bytes, @splat(0x80));
            const high = simd.lookUp128(codes, comptime table(24)) | sign;
            const low = simd.lookUp128(codes, comptime table(16));
            const factor: simd.Floats = @splat(scale);
            var values: [4]simd.Floats = undefined;
            inline for (&values, 0..) |*some, i| {
                const bits = simd.pickUpperHalves(low, high, comptime places(i));
                some.* = @as(simd.Floats, @bitCast(bits)) * factor;
            }
            return simd.joinFour(f32, 16, values);
        }
        /// Bytes 2 and 3 of element i are those of code 16 * part + i in `low` and `high`.
        fn places(comptime part: usize) [64]u8 {
            var indices: [64]u8 = undefined;
            for (&indices, 0..) |*index, i| index.* = (if (i % 4 == 3) 64 else 0) + 16 * part + i / 4;
            return indices;
        }
        /// Byte `shift` / 8 of the value of each magnitude.
        fn table(comptime shift: u5) [128]u8 {
            @setEvalBranchQuota(10_000);
            var bytes: [128]u8 = undefined;
            for (&bytes, 0..) |*byte, code| {
                const value = simd.widenHalves(1, halves(1, .{code}))[0] * unit;
                byte.* = @truncate(@as(u32, @bitCast(value)) >> shift);
            }
            return bytes;
        }
    };
}
