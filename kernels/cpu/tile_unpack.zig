//! What unpacking shares between the weight types: gathering bytes of many weight rows into
//! columns (`Rows`, `Panel`), and writing columns to the tile (`Strip`). All fields of the files are
//! little endian.
const simd = @import("../simd.zig");
const interleave = @import("../interleave.zig");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const lanes = vector.lanes;
const Words = vector.Words;
const Floats = vector.Floats;
const Bytes = vector.Bytes;
const Recipe = layout.Recipe;
const Tile = layout.Tile;

/// Groups of activations that meet a quant block of the format.
pub fn numGroups(comptime Format: type) comptime_int {
    return if (@hasDecl(Format, "num_groups")) Format.num_groups else 1;
}

/// Weights of a quant block.
pub fn blockLen(comptime Format: type) comptime_int {
    return numGroups(Format) * Format.recipe.group;
}

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

/// Weight rows one after another, as in files: each lane reads one of its own.
pub const Rows = struct {
    rows: *const [lanes][*]const u8,
    ahead: Ahead = .{},

    pub const is_interleaved = false;

    /// Bytes `at..at + 16` of every row as four dwords per column.
    pub inline fn dwords16(source: Rows, at: usize) [4]Words {
        const quads = lanes / 4;
        const Quad = @Vector(4, u32);
        var z: [4]Words = undefined;
        inline for (0..4) |i| {
            var quad: [quads]Quad = undefined;
            inline for (0..quads) |q| quad[q] = vector.load(Quad, source.rows[q * 4 + i] + at);
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
    pub inline fn field(source: Rows, comptime T: type, at: usize) Words {
        var values: @Vector(lanes, T) = undefined;
        inline for (0..lanes) |i| values[i] = vector.load(T, source.rows[i] + at);
        return values;
    }

    inline fn ask(source: Rows, dword: usize) void {
        source.ahead.ask(source.rows, dword);
    }
};

/// One block of rows of format `Q` that lie interleaved (interleave.zig): `lanes` of a panel's 16,
/// from `first` on.
pub fn Panel(comptime Q: type) type {
    return struct {
        block: [*]const u8,
        first: usize,

        const Self = @This();
        pub const is_interleaved = true;

        /// Bytes `at..at + 16` of every row as four dwords per column.
        pub inline fn dwords16(panel: Self, comptime at: usize) [4]Words {
            var words: [4]Words = undefined;
            inline for (&words, 0..) |*word, i| word.* = panel.field(u32, at + 4 * i);
            return words;
        }

        pub inline fn field(panel: Self, comptime T: type, comptime at: usize) Words {
            const place = comptime interleave.Units(Q).placeOf(at, @sizeOf(T));
            const from = panel.block + place + panel.first * @sizeOf(T);
            return vector.load(@Vector(lanes, T), from);
        }

        inline fn ask(_: Self, _: usize) void {}
    };
}

/// `lanes` neighbouring columns of the tile and the weight rows that they come from.
pub fn Strip(comptime Source: type) type {
    return struct {
        source: Source,
        tile: *Tile,
        /// First column.
        column: usize,

        const Self = @This();
        pub const is_interleaved = Source.is_interleaved;

        pub inline fn dwords16(strip: Self, at: usize) [4]Words {
            return strip.source.dwords16(at);
        }
        pub inline fn field(strip: Self, comptime T: type, at: usize) Words {
            return strip.source.field(T, at);
        }

        /// Four weights per column; `w` holds them as unsigned bytes that are `offset` too large.
        pub inline fn putWeights(strip: Self, dword: usize, w: Words, comptime offset: u8) void {
            strip.source.ask(dword);
            strip.put(&strip.tile.weights[dword], multiplied(w, offset));
        }

        /// Four signed weights per column, times `scale` where tiles hold words.
        pub inline fn putSigned(strip: Self, dword: usize, w: Words, scale: vector.Ints) void {
            if (vector.products != .unsigned_pairs) return strip.putWeights(dword, w, 0);
            strip.source.ask(dword);
            const scales: vector.Shorts = @bitCast(factor(scale));
            inline for (vector.splitWords(w), 0..) |pair, half| {
                strip.put(&strip.tile.weights[2 * dword + half], pair *% scales);
            }
        }

        pub inline fn putScale(strip: Self, step: usize, halves: Words) void {
            strip.put(&strip.tile.scale[step], vector.widen(halves));
        }

        pub inline fn putScaleFloats(strip: Self, step: usize, scales: Floats) void {
            strip.put(&strip.tile.scale[step], scales);
        }

        pub inline fn putSecondScale(strip: Self, step: usize, scales: Floats) void {
            strip.put(&strip.tile.min[step], scales);
        }

        pub inline fn putMin(strip: Self, step: usize, halves: Words) void {
            strip.put(&strip.tile.min[step], vector.widen(halves));
        }

        pub inline fn putMultiplier(strip: Self, step: usize, value: vector.Ints) void {
            strip.put(&strip.tile.multiplier[step], factor(value));
        }

        /// Mins of two neighbouring sub-blocks, each below 2^16.
        pub inline fn putMinPair(strip: Self, step: usize, first: Words, second: Words) void {
            strip.put(&strip.tile.min_pair[step], first | second << @splat(16));
        }

        inline fn put(strip: Self, line: anytype, value: anytype) void {
            const target: *@TypeOf(value) = @ptrCast(@alignCast(&line[strip.column]));
            target.* = value;
        }
    };
}

/// Four weights per column that are `recipe.offset` too large, or signed (see `Strip.putSigned`).
pub inline fn put(
    comptime recipe: Recipe,
    strip: anytype,
    dword: usize,
    w: Words,
    scale: vector.Ints,
) void {
    if (recipe.is_signed) strip.putSigned(dword, w, scale) else strip.putWeights(dword, w, 0);
}

/// Weights as the multiplication wants them; `w` holds them as unsigned bytes that are `offset` too
/// large.
pub inline fn multiplied(w: Words, comptime offset: u8) Words {
    if (!vector.signed or offset == 0) return w;
    return @bitCast(@as(Bytes, @bitCast(w)) -% vector.splat(Bytes, offset));
}

/// An integer scale as the multiplication wants it; on `pairs` variants twice, as two i16.
pub inline fn factor(value: vector.Ints) Words {
    const words: Words = @bitCast(value);
    if (!vector.in_pairs) return words;
    return words & vector.splat(Words, 0xffff) | words << @splat(16);
}

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
