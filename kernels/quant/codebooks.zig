//! The values that codes stand for: levels of 4-bit types, and the code books of the IQ1 to IQ3
//! types, whose codes are ranks in a set of points. src/weights/codebooks.ts reads the same sets.
const std = @import("std");

/// The 4-bit levels of IQ4_NL and IQ4_XS, denser near zero.
pub const iq4_levels = [16]i8{
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

/// Twice the E2M1 floats of MXFP4 and NVFP4: 2 exponent bits, 1 mantissa bit, sign in bit 3.
pub const doubled_e2m1 = [16]i8{ 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/// One line per code book: its name, then as hexadecimal bytes a bit for each point of the lattice
/// `base ^ dim` that is in it. Bit p is the point with digits p = Σ digit[i] * base^i.
const sets = @embedFile("codebooks.txt");

pub const Book = struct {
    name: []const u8,
    /// Points in the book; codes are 0..count, in the order of the points.
    count: usize,
    /// Weights of a point.
    dim: usize,
    /// What each digit stands for.
    levels: []const i8,
};

const iq2_levels = [_]i8{ 8, 25, 43 };
const iq3_xxs_levels = [_]i8{ 4, 12, 20, 28, 36, 44, 52, 62 };
const iq3_s_levels = [_]i8{ 1, 3, 5, 7, 9, 11, 13, 15 };
/// Eighths: the types add or subtract one.
const iq1_levels = [_]i8{ -8, 0, 8 };

pub const iq2_xxs: Book = .{ .name = "iq2_xxs", .count = 256, .dim = 8, .levels = &iq2_levels };
pub const iq2_xs: Book = .{ .name = "iq2_xs", .count = 512, .dim = 8, .levels = &iq2_levels };
pub const iq2_s: Book = .{ .name = "iq2_s", .count = 1024, .dim = 8, .levels = &iq2_levels };
pub const iq3_xxs: Book = .{
    .name = "iq3_xxs",
    .count = 256,
    .dim = 4,
    .levels = &iq3_xxs_levels,
};
pub const iq3_s: Book = .{ .name = "iq3_s", .count = 512, .dim = 4, .levels = &iq3_s_levels };
pub const iq1_s: Book = .{ .name = "iq1_s", .count = 2048, .dim = 8, .levels = &iq1_levels };

/// What a marked weight is.
pub const Mark = enum {
    /// Of the other sign.
    negative,
    /// Its level minus one, others being their level plus one.
    one_less,
};

pub fn weightOf(level: i8, comptime mark: Mark, is_marked: bool) i8 {
    return switch (mark) {
        .negative => if (is_marked) -level else level,
        .one_less => if (is_marked) level - 1 else level + 1,
    };
}

/// Digits of every point, `bits` bits each, the first lowest: 2 bits for 3 levels, 3 for 8.
pub fn digits(comptime book: Book) *const [book.count]u16 {
    return &Expanded(book).digits;
}

/// The levels of every point as bytes that are `offset` too large.
pub fn weights(comptime book: Book, comptime offset: u8) *const [book.count][book.dim]u8 {
    return &WithOffset(book, offset).weights;
}

pub fn digitBits(comptime book: Book) comptime_int {
    return if (book.levels.len == 3) 2 else 3;
}

fn Expanded(comptime book: Book) type {
    return struct {
        const digits: [book.count]u16 = blk: {
            @setEvalBranchQuota(1_000_000);
            const start = std.mem.indexOf(u8, sets, book.name ++ " ").? + book.name.len + 1;
            var result: [book.count]u16 = undefined;
            var count = 0;
            const numPoints = std.math.powi(usize, book.levels.len, book.dim) catch unreachable;
            for (0..(numPoints + 3) / 4) |i| {
                // Two hexadecimal digits a byte, the high one first.
                const nibble = std.fmt.charToDigit(sets[start + (i ^ 1)], 16) catch unreachable;
                for (0..4) |bit| if (nibble >> bit & 1 == 1) {
                    result[count] = packDigits(i * 4 + bit);
                    count += 1;
                };
            }
            if (count != book.count) @compileError("code book of another size: " ++ book.name);
            break :blk result;
        };

        fn packDigits(comptime point: usize) u16 {
            var left = point;
            var code: u16 = 0;
            for (0..book.dim) |i| {
                code |= @as(u16, left % book.levels.len) << (digitBits(book) * i);
                left /= book.levels.len;
            }
            return code;
        }
    };
}

fn WithOffset(comptime book: Book, comptime offset: u8) type {
    return struct {
        const weights: [book.count][book.dim]u8 = blk: {
            @setEvalBranchQuota(1_000_000);
            var result: [book.count][book.dim]u8 = undefined;
            const mask = (1 << digitBits(book)) - 1;
            for (Expanded(book).digits, &result) |code, *point| for (0..book.dim) |i| {
                const level = book.levels[code >> (digitBits(book) * i) & mask];
                point[i] = @as(u8, @bitCast(level)) +% offset;
            };
            break :blk result;
        };
    };
}
