//! The sums of matvec_super.zig for the IQ1 to IQ3 types, whose weights are points of a code book: of
//! one quant block in each of four weight rows with M activation rows.
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const points = @import("../quant/points.zig");
const point_planes = @import("../quant/point_planes.zig");
const Header = @import("../quant/super_block.zig").Header;
const SuperRow = @import("activation.zig").SuperRow;
const Ints = simd.Ints;

/// Scaled; elements of each vector are still to be added. Of weights that are `offset` too large,
/// unless they are decoded in planes.
pub inline fn sumsOfFour(
    comptime Q: type,
    comptime M: usize,
    p: [4][*]const u8,
    header: *const Header,
    step: usize,
    input: *const [M]SuperRow,
) [M][4]Ints {
    if (comptime point_planes.areOf(Q)) return sumPlanes(Q, M, p, step, input);
    // What is read in all lanes: shuffles of registers would take longer.
    var scales: [4][16]dots.HalfScale = undefined;
    var marks: [4]points.Marks align(64) = undefined;
    inline for (&scales, &marks, p, 0..) |*own, *words, block, i| {
        own.* = dots.halfScales(simd.part(u8, 16, header.units, i * 16));
        words.* = Q.markWords(@ptrCast(block));
    }
    simd.keepInMemory(&marks);
    var sums: [M][4]Ints = undefined;
    for (p, &scales, &marks, 0..) |block, *row, *words, i| {
        const own = sumRow(Q, M, @ptrCast(block), words, row, step, input);
        inline for (0..M) |m| sums[m][i] = own[m];
    }
    return sums;
}

/// A dword of a plane is of 16 weights, so that four dot products leave a sum for each scale.
inline fn sumPlanes(
    comptime Q: type,
    comptime M: usize,
    p: [4][*]const u8,
    step: usize,
    input: *const [M]SuperRow,
) [M][4]Ints {
    const weights = point_planes.ofFour(Q, p);
    var sums: [M][4]Ints = undefined;
    inline for (0..M) |m| {
        const of_16: Ints = simd.load(@Vector(16, i16), input[m].sums + step * 32);
        const excess = of_16 *% @as(Ints, @splat(Q.offset));
        inline for (&sums[m], weights, p) |*sum, planes, block| {
            var products = @as(Ints, @splat(0)) -% excess;
            inline for (planes, 0..) |plane, i| {
                const a = simd.load(simd.Bytes, input[m].planes + step * 256 + i * 64);
                products = dots.dot4(products, plane, a);
            }
            sum.* = products *% Q.scalesOf16(@ptrCast(block));
        }
    }
    return sums;
}

/// Sub-blocks of 32 one after another: even ones to the lower half of the sums.
inline fn sumRow(
    comptime Q: type,
    comptime M: usize,
    block: *const Q.Block,
    marks: *const points.Marks,
    scales: *const [16]dots.HalfScale,
    step: usize,
    input: *const [M]SuperRow,
) [M]Ints {
    var sums: [2][M]dots.HalfSums = @splat(@splat(@splat(0)));
    inline for (0..8) |j| {
        const weights = points.thirtyTwo(Q, block, marks, j);
        const scale = if (Q.sub_len == 32)
            dots.halfScale(scales[j], scales[j])
        else
            dots.halfScale(scales[2 * j], scales[2 * j + 1]);
        inline for (&sums[j % 2], input) |*sum, row| {
            const order = [4]usize{ 0, 2, 1, 3 };
            const at = step * 256 + j / 4 * 128 + order[j % 4] * 32;
            sum.* = dots.dotScaledHalf(sum.*, weights, simd.load(dots.Half, row.q + at), scale);
        }
    }
    var both: [M]Ints = undefined;
    inline for (&both, sums[0], sums[1]) |*whole, even, odd| whole.* = simd.join(i32, 8, even, odd);
    return both;
}
