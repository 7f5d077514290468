//! The shapes that the GEMM's parts agree on: how a weight type is multiplied (`Recipe`), the
//! unpacked weight tile and the packed activation panel.
const vector = @import("tile_vector.zig");

/// Output columns (weight rows) of one tile.
pub const columns = 32;
/// Activation rows of one panel.
pub const panel_rows = 6;
/// Activation panels, each packed independently of the others.
pub fn numPanels(rows: usize) usize {
    return (rows + panel_rows - 1) / panel_rows;
}
/// Most weights of one row in a tile; a multiple of 256. The tile (13 KiB, 21 of words) stays in L1.
pub const depth = 256;

/// How one weight type is multiplied on this CPU variant.
pub const Recipe = struct {
    /// Weights that share one activation scale: 32 or 256.
    group: u16,
    /// Weights of one integer sum before it meets its integer scale, 16 or 32; 256 where
    /// the tile's weights already contain the scale.
    sub: u16,
    /// What the tile's weights are larger than the true ones: x86 multiplies unsigned weights.
    offset: i16 = 0,
    /// Largest true weight by magnitude; a sum of pairs in i16 may not pass 32767.
    largest: i16,
    /// Weights are signed bytes also where the instruction wants unsigned ones.
    is_signed: bool = false,
    /// Group 32: weights 16..32 have a scale of their own, which the tile keeps as `min`.
    has_two_scales: bool = false,
    has_min: bool = false,
    /// Weights per integer min of a K-quant, 16 or 32.
    min_sub: u16 = 0,
    /// The tile holds the weights times -1.
    negated: bool = false,

    /// Most dwords of a sub-block whose sum of pairs still fits in i16; the sum begins with what the
    /// offset adds to it, negated.
    pub fn pairDwords(comptime recipe: Recipe) comptime_int {
        return recipe.dwordsThatFit(recipe.largest);
    }

    /// The same of sums that begin with 0.
    pub fn plainPairDwords(comptime recipe: Recipe) comptime_int {
        return recipe.dwordsThatFit(recipe.largest + recipe.offset);
    }

    fn dwordsThatFit(comptime recipe: Recipe, comptime largest: comptime_int) comptime_int {
        const whole: comptime_int = @min(recipe.sub, 32) / 4;
        const fits = @divFloor(32767, 2 * 127 * largest);
        return if (fits >= whole) whole else if (fits >= 4) 4 else if (fits >= 2) 2 else 1;
    }

    /// Signed weights for an instruction that wants unsigned ones. Tiles hold words, each of them the
    /// weight times its integer scale, if any; the rows regime moves signs to the activations.
    pub fn signedPairs(comptime recipe: Recipe) bool {
        return vector.products == .unsigned_pairs and recipe.is_signed;
    }

    /// The recipe less what the kernels do not look at, so that equal kernels become one.
    pub fn shape(comptime recipe: Recipe) Recipe {
        comptime var same = recipe;
        if (same.offset != 0) same.offset = 1;
        if (!vector.in_pairs) same.largest = 1;
        if (vector.products != .unsigned_pairs) same.is_signed = false;
        return same;
    }
};

/// 32 weight rows by up to `depth` weights, unpacked to bytes or words.
pub const Tile = struct {
    /// Four consecutive weights of a column side by side; as words the weights 0 and 2 of the four,
    /// then 1 and 3. After `pairDwords` eight of a column, `[depth / 8][columns]`.
    weights: [depth / 4 * most_lines][columns]u32 align(64),
    /// Per block or super-block.
    scale: [depth / 32][columns]f32 align(64),
    min: [depth / 32][columns]f32 align(64),
    /// Integer scale per sub-block; on `pairs` variants twice, as two i16.
    multiplier: [depth / 16][columns]i32 align(64),
    /// Integer mins of two consecutive sub-blocks as two i16.
    min_pair: [depth / 32][columns]i32 align(64),

    const most_lines = if (vector.products == .unsigned_pairs) 2 else 1;

    /// Brings the dwords that one instruction multiplies side by side, of `kc` weights per column.
    pub fn pairDwords(tile: *Tile, kc: usize) void {
        if (vector.dot_dwords == 1) return;
        const Four = @Vector(4, u32);
        for (0..kc / 8) |step| {
            const lines: *align(64) [2][columns / 4]Four = @ptrCast(tile.weights[2 * step ..][0..2]);
            const first, const second = lines.*;
            const both: *[columns / 4][2]Four = @ptrCast(lines);
            inline for (both, first, second) |*pair, a, b| pair.* = .{
                @shuffle(u32, a, b, [4]i32{ 0, ~@as(i32, 0), 1, ~@as(i32, 1) }),
                @shuffle(u32, a, b, [4]i32{ 2, ~@as(i32, 2), 3, ~@as(i32, 3) }),
            };
        }
    }
};

/// Where a packed panel of `panel_rows` activation rows keeps its parts, in bytes. Each part is
/// `[step][panel_rows]` dwords with its own number of activations per step.
pub const Panel = struct {
    /// Activation scale per group.
    scale: usize,
    /// Sums over 16 activations as two i16: of those at 0 and 1, and of those at 2 and 3 modulo 4.
    lane_16: usize,
    /// The same over 32; group 32 only.
    lane_32: usize,
    /// Group 256 only: sums over two consecutive 16s and 32s as two i16, and over 256.
    pair_16: usize,
    pair_32: usize,
    sum_256: usize,
    bytes: usize,

    pub fn init(group: u32, k: usize) Panel {
        const scale = part(k / 4);
        const lane_16 = scale + part(k / group);
        const lane_32 = lane_16 + part(k / 16);
        const pair_16 = lane_32 + if (group == 32) part(k / 32) else 0;
        const pair_32 = pair_16 + if (group == 256) part(k / 32) else 0;
        const sum_256 = pair_32 + if (group == 256) part(k / 64) else 0;
        return .{
            .scale = scale,
            .lane_16 = lane_16,
            .lane_32 = lane_32,
            .pair_16 = pair_16,
            .pair_32 = pair_32,
            .sum_256 = sum_256,
            .bytes = sum_256 + if (group == 256) part(k / 256) else 0,
        };
    }

    /// Kernels read whole vectors, up to one past the last element: each part has a tail.
    fn part(steps: usize) usize {
        return (steps * panel_rows * 4 + 64 + 63) / 64 * 64;
    }

    /// One panel's parts from activation `k0` on.
    pub const View = struct {
        /// Four int8 activations each; `vector.dot_dwords` of a row are neighbours.
        quants: [*]i32,
        scale: [*]f32,
        lane_16: [*]i32,
        lane_32: [*]i32,
        pair_16: [*]i32,
        pair_32: [*]i32,
        sum_256: [*]i32,
    };

    pub fn view(panel: Panel, group: u32, base: [*]align(64) u8, k0: usize) View {
        return .{
            .quants = at(i32, base, k0 / 4),
            .scale = at(f32, base + panel.scale, k0 / group),
            .lane_16 = at(i32, base + panel.lane_16, k0 / 16),
            .lane_32 = at(i32, base + panel.lane_32, k0 / 32),
            .pair_16 = at(i32, base + panel.pair_16, k0 / 32),
            .pair_32 = at(i32, base + panel.pair_32, k0 / 64),
            .sum_256 = at(i32, base + panel.sum_256, k0 / 256),
        };
    }

    /// Where in `quants` a row's dword lies.
    pub inline fn quantsAt(dword: usize, row: usize) usize {
        const each = vector.dot_dwords;
        return (dword / each * panel_rows + row) * each + dword % each;
    }

    fn at(comptime T: type, base: [*]u8, step: usize) [*]T {
        return @as([*]T, @ptrCast(@alignCast(base))) + step * panel_rows;
    }
};
