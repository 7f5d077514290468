//! What the codes of 8-bit floats are multiplied by: one F32 scale for each block of rows and columns
//! of the tensor that the weight is, or is a part of.
const std = @import("std");
const plan = @import("../plan.zig");

pub const Scales = struct {
    /// `[row blocks][per_row]`, aligned as files have them.
    values: [*]align(1) const f32,
    per_row: usize,
    block_rows: usize,
    block_cols: usize,
    /// Which row of the scaled tensor row 0 is.
    first_row: usize,

    const one = [1]f32{1};
    /// Every scale is 1.
    const none: Scales = .{
        .values = &one,
        .per_row = 1,
        .block_rows = std.math.maxInt(u32),
        .block_cols = std.math.maxInt(u32),
        .first_row = 0,
    };

    pub fn of(weight: *const plan.Weight) Scales {
        if (weight.scales == plan.none) return none;
        return .{
            .values = @ptrFromInt(weight.scale_address),
            .per_row = std.math.divCeil(usize, weight.cols, weight.block_cols) catch unreachable,
            .block_rows = weight.block_rows,
            .block_cols = weight.block_cols,
            .first_row = weight.first_row,
        };
    }

    /// Those of the rows from `row` on.
    pub fn from(scales: Scales, row: usize) Scales {
        var rest = scales;
        rest.first_row += row;
        return rest;
    }

    pub fn ofRow(scales: *const Scales, row: usize) RowScales {
        const block = (scales.first_row + row) / scales.block_rows;
        return .{ .values = scales.values + block * scales.per_row, .block_cols = scales.block_cols };
    }
};

/// The scales of one row: `values[i]` is that of columns `i * block_cols` to the next one's.
pub const RowScales = struct {
    values: [*]align(1) const f32,
    block_cols: usize,

    /// row[i] *= the scale of column i
    pub fn multiply(scales: RowScales, row: []f32) void {
        for (row, 0..) |*value, column| value.* *= scales.values[column / scales.block_cols];
    }
};
