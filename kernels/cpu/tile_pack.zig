//! Quantises activation rows and packs them side by side, with the sums that the kernels need.
const activation = @import("activation.zig");
const layout = @import("tile_layout.zig");
const panel_rows = layout.panel_rows;
const Panel = layout.Panel;

/// Packs rows of `k` activations, at most a panel's; those that are missing become zeros.
pub fn packRows(
    comptime group: u32,
    panel: Panel.View,
    rows: []const [*]const f32,
    k: usize,
) void {
    for (0..panel_rows) |r| for (0..k / group) |g| {
        var quants: [group]i8 align(64) = @splat(0);
        var scale: [1]f32 = .{0};
        if (r < rows.len) {
            activation.quantizeRow(group, rows[r][g * group ..][0..group], &quants, &scale);
        }
        panel.scale[g * panel_rows + r] = scale[0];
        const dwords: [group / 4]i32 = @bitCast(quants);
        for (dwords, 0..) |dword, i| panel.quants[Panel.quantsAt(g * group / 4 + i, r)] = dword;
        if (group == 32) {
            const lanes = laneSums(32, &quants);
            inline for (lanes, 0..) |sum, i| panel.lane_16[(2 * g + i) * panel_rows + r] = sum;
            panel.lane_32[g * panel_rows + r] = addPairs(lanes[0], lanes[1]);
        } else packSums(panel, r, g, &quants);
    };
}

/// The sums of group `g` of 256 in row `r`.
inline fn packSums(panel: Panel.View, r: usize, g: usize, quants: *const [256]i8) void {
    var total: i32 = 0;
    const lanes = laneSums(256, quants);
    inline for (lanes, 0..) |sum, i| panel.lane_16[(g * 16 + i) * panel_rows + r] = sum;
    inline for (0..4) |quarter| {
        var sums: [4]i32 = undefined;
        inline for (&sums, lanes[quarter * 4 ..][0..4]) |*sum, pair| {
            sum.* = (pair << 16 >> 16) + (pair >> 16);
        }
        const step = g * 4 + quarter;
        panel.pair_16[(2 * step) * panel_rows + r] = join(.{ sums[0], sums[1] });
        panel.pair_16[(2 * step + 1) * panel_rows + r] = join(.{ sums[2], sums[3] });
        const halves = .{ sums[0] + sums[1], sums[2] + sums[3] };
        panel.pair_32[step * panel_rows + r] = join(halves);
        total += halves[0] + halves[1];
    }
    panel.sum_256[g * panel_rows + r] = total;
}

/// Of each 16 the sums of the elements at 0 and 1, and of those at 2 and 3, modulo 4, as two i16.
inline fn laneSums(comptime n: usize, quants: *const [n]i8) [n / 16]i32 {
    const Shorts = @Vector(n / 2, i16);
    const neighbours: Shorts = @bitCast(quants.*);
    var sums: Shorts = (neighbours << @splat(8) >> @splat(8)) + (neighbours >> @splat(8));
    inline for (.{ 4, 2 }) |distance| {
        const exchanged = comptime blk: {
            var indices: [n / 2]i32 = undefined;
            for (&indices, 0..) |*index, i| index.* = i ^ distance;
            break :blk indices;
        };
        sums += @shuffle(i16, sums, undefined, exchanged);
    }
    const dwords: [n / 4]i32 = @bitCast(sums);
    var result: [n / 16]i32 = undefined;
    inline for (&result, 0..) |*sum, i| sum.* = dwords[4 * i];
    return result;
}

/// Two sums of two i16.
inline fn addPairs(a: i32, b: i32) i32 {
    const Pair = @Vector(2, i16);
    return @bitCast(@as(Pair, @bitCast(a)) + @as(Pair, @bitCast(b)));
}

/// Two sums as two i16.
inline fn join(sums: [2]i32) i32 {
    return sums[0] & 0xffff | sums[1] << 16;
}
