//! What unpacking shares between the weight types: gathering bytes of many weight rows into
//! columns, and writing columns to the tile. All fields of the files are little endian.
const simd = @import("../simd.zig");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const lanes = vector.lanes;
const Words = vector.Words;
const Floats = vector.Floats;
const Bytes = vector.Bytes;
const Tile = layout.Tile;

/// The weight rows of a tile; rows past the matrix repeat the last one.
pub const Sources = [layout.columns][*]const u8;

/// Which bytes of the next tile are asked for while this one is unpacked: some lines of a row with
/// every dword of the tile. The hardware does not follow 32 streams, and all lines at once would
/// hold up everything else (6 rows, two threads: Q4_0 20 -> 30 GB/s, Q6_K 19 -> 33).
pub const Ahead = struct {
    /// From the row's first byte.
    offset: usize = 0,
    /// With every dword.
    lines: usize = 0,

    /// Dwords of a strip that one row's lines are divided among.
    const turns = layout.depth / 4 / lanes;

    pub fn linesFor(tile_bytes: usize) usize {
        // The first line may begin before the tile's bytes.
        return (tile_bytes / 64 + 1 + turns - 1) / turns;
    }
    inline fn ask(ahead: Ahead, rows: *const [lanes][*]const u8, dword: usize) void {
        const first = rows[dword / turns % lanes] + ahead.offset + dword % turns * ahead.lines * 64;
        for (0..ahead.lines) |line| simd.prefetch(first + line * 64);
    }
};

/// `lanes` neighbouring columns of the tile and the weight rows that they come from.
pub const Strip = struct {
    rows: *const [lanes][*]const u8,
    tile: *Tile,
    /// First column.
    column: usize,
    ahead: Ahead = .{},

    /// Bytes `at..at + 16` of every row as four dwords per column.
    pub inline fn dwords16(strip: Strip, at: usize) [4]Words {
        const quads = lanes / 4;
        const Quad = @Vector(4, u32);
        var z: [4]Words = undefined;
        inline for (0..4) |i| {
            var quad: [quads]Quad = undefined;
            inline for (0..quads) |q| quad[q] = vector.load(Quad, strip.rows[q * 4 + i] + at);
            z[i] = joined(quads, quad);
        }
        const a = inLanes(z[0], z[1], .{ 0, 4, 1, 5 });
        const b = inLanes(z[2], z[3], .{ 0, 4, 1, 5 });
        const c = inLanes(z[0], z[1], .{ 2, 6, 3, 7 });
        const d = inLanes(z[2], z[3], .{ 2, 6, 3, 7 });
        return .{
            inLanes(a, b, .{ 0, 1, 4, 5 }),
            inLanes(a, b, .{ 2, 3, 6, 7 }),
            inLanes(c, d, .{ 0, 1, 4, 5 }),
            inLanes(c, d, .{ 2, 3, 6, 7 }),
        };
    }

    /// Bytes `at..at + @sizeOf(T)` of every row, widened to words.
    pub inline fn field(strip: Strip, comptime T: type, at: usize) Words {
        var values: @Vector(lanes, T) = undefined;
        inline for (0..lanes) |i| values[i] = vector.load(T, strip.rows[i] + at);
        return values;
    }

    /// Four weights per column; `w` holds them as unsigned bytes that are `offset` too large.
    pub inline fn putWeights(strip: Strip, dword: usize, w: Words, comptime offset: u8) void {
        strip.ahead.ask(strip.rows, dword);
        strip.put(&strip.tile.weights[dword], if (vector.signed and offset != 0)
            @as(Words, @bitCast(@as(Bytes, @bitCast(w)) -% vector.splat(Bytes, offset)))
        else
            w);
    }

    pub inline fn putScale(strip: Strip, step: usize, halves: Words) void {
        strip.put(&strip.tile.scale[step], vector.widen(halves));
    }

    pub inline fn putScaleFloats(strip: Strip, step: usize, scales: Floats) void {
        strip.put(&strip.tile.scale[step], scales);
    }

    pub inline fn putSecondScale(strip: Strip, step: usize, scales: Floats) void {
        strip.put(&strip.tile.min[step], scales);
    }

    pub inline fn putMin(strip: Strip, step: usize, halves: Words) void {
        strip.put(&strip.tile.min[step], vector.widen(halves));
    }

    pub inline fn putMultiplier(strip: Strip, step: usize, value: vector.Ints) void {
        const words: Words = @bitCast(value);
        const low = words & vector.splat(Words, 0xffff);
        const stored = if (vector.in_pairs) low | words << @splat(16) else words;
        strip.put(&strip.tile.multiplier[step], stored);
    }

    /// Mins of two neighbouring sub-blocks, each below 2^16.
    pub inline fn putMinPair(strip: Strip, step: usize, first: Words, second: Words) void {
        strip.put(&strip.tile.min_pair[step], first | second << @splat(16));
    }

    inline fn put(strip: Strip, line: anytype, value: anytype) void {
        const target: *@TypeOf(value) = @ptrCast(@alignCast(&line[strip.column]));
        target.* = value;
    }
};

/// Byte `index` of each word.
pub inline fn byte(words: Words, comptime index: u5) Words {
    return words >> @splat(index * 8) & vector.splat(Words, 0xff);
}

/// Byte `index` of each word, with its sign.
pub inline fn signedByte(words: Words, comptime index: u5) vector.Ints {
    return @as(vector.Ints, @bitCast(words << @splat(24 - index * 8))) >> @splat(24);
}

/// `mask` in every byte of every word.
pub inline fn bytes(comptime mask: u32) Words {
    return @splat(mask * 0x01010101);
}

/// Bits of each byte: those of `mask` after moving right by `shift` (left if negative).
pub inline fn bits(words: Words, comptime shift: i32, comptime mask: u32) Words {
    const moved = if (shift >= 0) words >> @splat(shift) else words << @splat(-shift);
    return moved & bytes(mask);
}

inline fn joined(comptime quads: usize, quad: [quads]@Vector(4, u32)) Words {
    const join = @import("std").simd.join;
    return switch (quads) {
        1 => quad[0],
        2 => join(quad[0], quad[1]),
        4 => join(join(quad[0], quad[1]), join(quad[2], quad[3])),
        else => comptime unreachable,
    };
}

/// The same shuffle of four words in each 128-bit lane; 4 and up are the second operand's.
inline fn inLanes(a: Words, b: Words, comptime pattern: [4]i32) Words {
    comptime var mask: [lanes]i32 = undefined;
    comptime for (0..lanes) |i| {
        const from = pattern[i % 4];
        const lane: i32 = @intCast(i / 4 * 4);
        mask[i] = if (from < 4) lane + from else ~(lane + from - 4);
    };
    return @shuffle(u32, a, b, mask);
}
