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
        const first = panel.quants + g * group / 4 * panel_rows + r;
        for (dwords, 0..) |dword, i| first[i * panel_rows] = dword;
        if (group == 32) {
            panel.lane_sums[g * panel_rows + r] = join(laneSums(32, &quants));
        } else packSums(panel, r, g, &quants);
    };
}

/// The sums of group `g` of 256 in row `r`.
inline fn packSums(panel: Panel.View, r: usize, g: usize, quants: *const [256]i8) void {
    var total: i32 = 0;
    inline for (0..4) |quarter| {
        var sums: [4]i32 = undefined;
        inline for (0..4) |i| {
            const sub = quarter * 4 + i;
            const lanes = laneSums(16, quants[sub * 16 ..][0..16]);
            panel.lane_sums[(g * 16 + sub) * panel_rows + r] = join(lanes);
            sums[i] = lanes[0] + lanes[1];
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

/// The sums of the elements at 0 and 1, and of those at 2 and 3, modulo 4.
inline fn laneSums(comptime n: usize, quants: *const [n]i8) [2]i32 {
    const dwords: @Vector(n / 4, i32) = @bitCast(quants.*);
    const low = (dwords << @splat(24) >> @splat(24)) + (dwords << @splat(16) >> @splat(24));
    const high = (dwords << @splat(8) >> @splat(24)) + (dwords >> @splat(24));
    return .{ @reduce(.Add, low), @reduce(.Add, high) };
}

/// Two sums as two i16.
inline fn join(sums: [2]i32) i32 {
    return sums[0] & 0xffff | sums[1] << 16;
}
