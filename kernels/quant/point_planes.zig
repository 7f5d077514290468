//! Decoding of the IQ1 to IQ3 types where bytes are looked up by permutes of registers
//! (`simd.has_byte_tables`): the 256 weights of a quant block in four planes. Byte b of plane p is
//! weight 4b + p, so that the digits of four neighbouring weights, looked up once, are the bytes of
//! all planes.
const std = @import("std");
const simd = @import("../simd.zig");
const codebooks = @import("codebooks.zig");
const Book = codebooks.Book;
const Bytes = simd.Bytes;

/// Each weight `offset` too large.
pub const Planes = [4]Bytes;

/// 64 codes: their lowest 8 bits, and the others.
pub const Codes = struct { low: Bytes, upper: Bytes = @splat(0) };

/// Whether `ofFour` decodes the type.
pub fn areOf(comptime Format: type) bool {
    return simd.has_byte_tables and @hasDecl(Format, "book");
}

/// The quant blocks at `p`. Formats whose points have 8 weights give the codes of two blocks, in
/// turns of eight, those whose points have 4 give one block's. Bit i of byte b of a block's `marks`
/// is set where weight 4b + i is marked; the upper four bits may be anything.
pub inline fn ofFour(comptime Format: type, p: [4][*]const u8) [4]Planes {
    @setEvalBranchQuota(10_000);
    const blocks: [4]*const Format.Block = @bitCast(p);
    const book = Format.book;
    var result: [4]Planes = undefined;
    if (book.dim == 8) {
        const codes = .{
            Format.codesOfTwo(blocks[0], blocks[1]),
            Format.codesOfTwo(blocks[2], blocks[3]),
        };
        inline for (lookUp(book, 2, codes), 0..) |digits, pair| inline for (0..2) |i| {
            // Both bytes of each of its points side by side.
            const own = interlaced(u8, 64, i, digits[0], digits[1]);
            const shifted: Bytes = @bitCast(@as(@Vector(32, u16), @bitCast(own)) >> @splat(2));
            const marks = Format.marks(blocks[2 * pair + i]);
            result[2 * pair + i] = .{
                levels(Format, 0, 2, own, marks),
                levels(Format, 1, 4, own, marks),
                levels(Format, 2, 0, own, marks),
                levels(Format, 3, 4, shifted, marks),
            };
        };
        return result;
    }
    var codes: [4]Codes = undefined;
    inline for (&codes, blocks) |*own, block| own.* = Format.codesOfOne(block);
    inline for (&result, lookUp(book, 4, codes), blocks) |*planes, digits, block| {
        const marks = Format.marks(block);
        planes.* = .{
            levels(Format, 0, 3, digits[0], marks),
            levels(Format, 1, 3, digits[1], marks),
            levels(Format, 3, 0, digits[1], marks +% marks),
            levels(Format, 3, 0, digits[0], marks),
        };
    }
    return result;
}

/// Where `ofFour` takes the digit of each weight of a point: which byte, and its first bit.
fn placesOf(comptime dim: usize) []const [2]u8 {
    if (dim == 4) return &.{ .{ 0, 3 }, .{ 1, 3 }, .{ 1, 0 }, .{ 0, 0 } };
    return &.{
        .{ 0, 2 }, .{ 0, 4 }, .{ 0, 0 }, .{ 0, 6 }, .{ 1, 2 }, .{ 1, 4 }, .{ 1, 0 }, .{ 1, 6 },
    };
}

/// By code the two bytes of digits.
fn DigitTables(comptime book: Book) type {
    return struct {
        const bytes: [2][book.count]u8 = blk: {
            @setEvalBranchQuota(1_000_000);
            const bits = codebooks.digitBits(book);
            const mask = (1 << bits) - 1;
            var tables: [2][book.count]u8 = @splat(@splat(0));
            for (codebooks.digits(book), 0..) |digits, code| {
                for (placesOf(book.dim), 0..) |place, i| {
                    tables[place[0]][code] |= (digits >> (bits * i) & mask) << place[1];
                }
            }
            break :blk tables;
        };
    };
}

/// The two bytes of digits of all codes. A table has 128 entries; where there are more than two,
/// each one replaces the codes that are its own.
inline fn lookUp(comptime book: Book, comptime n: usize, codes: [n]Codes) [n][2]Bytes {
    const num_tables = book.count / 128;
    // A chain of 16 would take longer than what else there is to do.
    const num_chains = if (num_tables == 2 or num_tables > 8) 2 else 1;
    const length = num_tables / num_chains;
    var found: [num_chains][n][2]Bytes = undefined;
    inline for (&found) |*chain| inline for (chain, codes) |*own, code| {
        own.* = .{ code.low, code.low };
    };
    inline for (0..length) |i| inline for (&found, 0..) |*chain, c| {
        const t = c * length + i;
        const wanted: Bytes = @splat(t % 2 << 7 | t / 2);
        inline for (chain, codes) |*own, code| {
            const table = (code.low & @as(Bytes, @splat(0x80))) | code.upper;
            inline for (own, DigitTables(book).bytes) |*digits, tables| {
                const looked_up = simd.lookUp128(digits.*, tables[t * 128 ..][0..128].*);
                digits.* = if (length == 1)
                    looked_up
                else
                    @select(u8, table == wanted, looked_up, digits.*);
            }
        }
    };
    if (num_chains == 1) return found[0];
    inline for (&found[0], found[1], codes) |*own, others, code| {
        const bits = if (length == 1) code.low else code.upper;
        const bit: Bytes = @splat(if (length == 1) 0x80 else length / 2);
        const is_other = (bits & bit) != @as(Bytes, @splat(0));
        inline for (own, others) |*digits, other| digits.* = @select(u8, is_other, other, digits.*);
    }
    return found[0];
}

/// The weights whose digits begin at bit `first`, and whose marks are bit `mark`.
inline fn levels(
    comptime Format: type,
    comptime mark: u3,
    comptime first: u3,
    digits: Bytes,
    marks: Bytes,
) Bytes {
    const mask = (1 << codebooks.digitBits(Format.book)) - 1;
    const table = comptime blk: {
        var table: [64]u8 = undefined;
        for (&table, 0..) |*weight, index| {
            const digit = index >> first & mask;
            const all = Format.book.levels;
            const level = if (digit < all.len) all[digit] else 0;
            const is_marked = index >> mark & 1 == 1;
            weight.* = @intCast(Format.offset + codebooks.weightOf(level, Format.mark, is_marked));
        }
        break :blk table;
    };
    return simd.permuteBytes(table, simd.selectBits(@splat(mask << first), digits, marks));
}

/// Vector `2 * half + odd`: sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn inOrder(planes: Planes) [4]Bytes {
    var result: [4]Bytes = undefined;
    inline for (0..2) |odd| {
        // Of each 16 points the first eight, or the others.
        const first = interlaced(u8, 64, odd, planes[0], planes[1]);
        const second = interlaced(u8, 64, odd, planes[2], planes[3]);
        const words = [2]@Vector(32, u16){ @bitCast(first), @bitCast(second) };
        // 16 weights in each 128 bits.
        const low: @Vector(8, u64) = @bitCast(interlaced(u16, 32, 0, words[0], words[1]));
        const high: @Vector(8, u64) = @bitCast(interlaced(u16, 32, 1, words[0], words[1]));
        inline for (0..2) |half| {
            const lanes = comptime simd.turns(8, 2, 8, half * 4);
            result[2 * half + odd] = @bitCast(@shuffle(u64, low, high, lanes));
        }
    }
    return result;
}

/// Elements of a and of b in turns, from one half of each of their 128 bits.
inline fn interlaced(
    comptime T: type,
    comptime n: usize,
    comptime half: usize,
    a: @Vector(n, T),
    b: @Vector(n, T),
) @Vector(n, T) {
    return @shuffle(T, a, b, simd.turns(n, 1, n / 4, half * n / 8));
}

// ------------------------------------------------------------------------- for formats

/// Codes of two blocks: a byte each, and `bits` upper bits in `high`, which begin at bits `starts` of
/// a quarter of it.
pub inline fn codesWithUpper(
    comptime Block: type,
    a: *const Block,
    b: *const Block,
    comptime starts: [8]u8,
    comptime bits: u3,
) Codes {
    const Quarter = std.meta.Int(.unsigned, @bitSizeOf(@FieldType(Block, "high")) / 4);
    const upper = fields(quartersInTurns(Quarter, &a.high, &b.high), starts);
    return .{
        .low = @bitCast(quartersInTurns(u64, &a.codes, &b.codes)),
        .upper = upper & @as(Bytes, @splat((1 << bits) - 1)),
    };
}

inline fn quartersInTurns(comptime Quarter: type, a: anytype, b: anytype) @Vector(8, Quarter) {
    const first: @Vector(4, Quarter) = @bitCast(a.*);
    return std.simd.interlace(.{ first, @as(@Vector(4, Quarter), @bitCast(b.*)) });
}

/// Field i of each of 8 elements to byte i of 64 bits: it begins at bit `starts[i]`, and the bits
/// above it follow.
pub inline fn fields(elements: anytype, comptime starts: [8]u8) Bytes {
    return simd.shiftToBytes(@bitCast(@as(@Vector(8, u64), elements)), starts ** 8);
}

/// Of 32 bytes of signs.
pub inline fn signMarks(signs: *const [32]u8) Bytes {
    return fields(@as(@Vector(8, u32), @bitCast(signs.*)), .{ 0, 4, 8, 12, 16, 20, 24, 28 });
}

/// Of signs that are stored as 7 bits per 8 weights, four times from bit `first` of 8 elements on.
pub inline fn evenSignMarks(elements: anytype, comptime first: u8) Bytes {
    const starts = comptime blk: {
        var starts: [8]u8 = undefined;
        for (&starts, 0..) |*start, i| start.* = first + i / 2 * 7;
        break :blk starts;
    };
    // Both bytes of a word are the signs of 8 weights.
    const signs = simd.evenParity(0, fields(elements, starts));
    return simd.shiftToBytes(signs, .{ 0, 12, 16, 28, 32, 44, 48, 60 } ** 8);
}

/// The lower half of each 64 bits, twice.
pub inline fn twice(elements: @Vector(8, u64)) @Vector(16, u32) {
    const halves: @Vector(16, u32) = @bitCast(elements);
    comptime var indices: [16]i32 = undefined;
    comptime for (&indices, 0..) |*index, i| {
        index.* = i / 2 * 2;
    };
    return @shuffle(u32, halves, undefined, indices);
}

/// 2s + 1 of 4 or fewer bits s, one bit above their place.
pub inline fn oddScales(doubled: @Vector(16, u32), comptime bits: u5) simd.Ints {
    const mask: @Vector(16, u32) = @splat((1 << (bits + 1)) - 2);
    return @bitCast(doubled & mask | @as(@Vector(16, u32), @splat(1)));
}

/// Nibbles, the low one first, as `oddScales`.
pub inline fn nibbleScales(bytes: *const [8]u8) simd.Ints {
    const elements: @Vector(8, u8) = bytes.*;
    // Bits 8 to 63 are 0.
    return oddScales(@bitCast(fields(elements, .{ 63, 8, 8, 8, 3, 8, 8, 8 })), 4);
}
