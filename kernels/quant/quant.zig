//! The weight types by GGUF number: bytes per row and dequantisation. One file per block format
//! beside this one; this table is the only place that lists them.
const std = @import("std");

pub const Type = enum(u32) { f32 = 0, f16 = 1, bf16 = 30, _ };

pub fn rowBytes(type_id: u32, cols: u64) u64 {
    return switch (@as(Type, @enumFromInt(type_id))) {
        .f32 => cols * 4,
        .f16, .bf16 => cols * 2,
        else => unreachable,
    };
}

/// Expands `output.len` weights; false for a type that is not in the table.
pub fn dequantize(type_id: u32, source: [*]const u8, output: []f32) bool {
    switch (@as(Type, @enumFromInt(type_id))) {
        .f32 => @memcpy(std.mem.sliceAsBytes(output), source[0 .. output.len * 4]),
        else => return false,
    }
    return true;
}
