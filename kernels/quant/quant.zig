//! The weight types by GGUF number (or one of our own): bytes per row, activation group and
//! dequantisation. One file per block format beside this one; this table alone lists them.
const std = @import("std");
const float = @import("float.zig");
const float8 = @import("float8.zig");
const super_block = @import("super_block.zig");

pub const Type = enum(u32) {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    iq2_xxs = 16,
    iq2_xs = 17,
    iq3_xxs = 18,
    iq1_s = 19,
    iq4_nl = 20,
    iq3_s = 21,
    iq2_s = 22,
    iq4_xs = 23,
    iq1_m = 29,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39,
    nvfp4 = 40,
    q1_0 = 41,
    q2_0 = 42,
    // Of safetensors; no GGUF file has them.
    f8_e4m3 = 0xf8e4,
    f8_e5m2 = 0xf8e5,
};

/// The file of a type: `Block`, `block_len`, what the dot kernels need, and `dequantize` where that
/// is not what they decode.
pub fn Format(comptime t: Type) type {
    return switch (t) {
        .f32 => float.F32,
        .f16 => float.F16,
        .bf16 => float.BF16,
        .f8_e4m3 => float8.E4M3,
        .f8_e5m2 => float8.E5M2,
        .q4_0 => @import("q4_0.zig"),
        .q4_1 => @import("q4_1.zig"),
        .q5_0 => @import("q5_0.zig"),
        .q5_1 => @import("q5_1.zig"),
        .q8_0 => @import("q8_0.zig"),
        .q2_k => @import("q2_k.zig"),
        .q3_k => @import("q3_k.zig"),
        .q4_k => @import("q4_k.zig"),
        .q5_k => @import("q5_k.zig"),
        .q6_k => @import("q6_k.zig"),
        .iq1_s => @import("iq1_s.zig"),
        .iq1_m => @import("iq1_m.zig"),
        .iq2_xxs => @import("iq2_xxs.zig"),
        .iq2_xs => @import("iq2_xs.zig"),
        .iq2_s => @import("iq2_s.zig"),
        .iq3_xxs => @import("iq3_xxs.zig"),
        .iq3_s => @import("iq3_s.zig"),
        .iq4_nl => @import("iq4_nl.zig"),
        .iq4_xs => @import("iq4_xs.zig"),
        .tq1_0 => @import("tq1_0.zig"),
        .tq2_0 => @import("tq2_0.zig"),
        .mxfp4 => @import("mxfp4.zig"),
        .nvfp4 => @import("nvfp4.zig"),
        .q1_0 => @import("q1_0.zig"),
        .q2_0 => @import("q2_0.zig"),
    };
}

/// The type of a GGUF number, or null when there are no kernels for it.
pub fn fromId(type_id: u32) ?Type {
    return std.enums.fromInt(Type, type_id);
}

/// One element a "block": no scale is shared in it.
pub fn isFloat(t: Type) bool {
    return blockLen(t) == 1;
}

/// Scales lie apart from the weights (scales.zig).
pub fn isScaled(t: Type) bool {
    return switch (t) {
        inline else => |known| @hasDecl(Format(known), "is_scaled"),
    };
}

/// The activation group of BF16 weights: each activation is rounded to BF16 by itself.
pub const brain_group = 1;
/// All of them.
pub const groups = [_]u32{ 0, brain_group, 32, 256 };

/// Activations that share a scale: 32, 256, `brain_group`, or 0 where activations stay f32.
pub fn group(t: Type) u32 {
    return switch (t) {
        .bf16 => brain_group,
        inline else => |known| switch (Format(known).block_len) {
            1 => 0,
            256 => 256,
            else => 32,
        },
    };
}

/// Weights of a quant block.
pub fn blockLen(t: Type) u32 {
    return switch (t) {
        inline else => |known| Format(known).block_len,
    };
}

/// Bytes of one row of `cols` weights; `cols` is a multiple of the block length.
pub fn rowBytes(type_id: u32, cols: u64) u64 {
    return switch (fromId(type_id).?) {
        inline else => |t| cols / Format(t).block_len * @sizeOf(Format(t).Block),
    };
}

/// Expands `output.len` weights, scaled ones as if all scales were 1; false for a type that is not
/// in the table.
pub fn dequantize(type_id: u32, source: [*]const u8, output: []f32) bool {
    switch (fromId(type_id) orelse return false) {
        inline else => |t| {
            const format = Format(t);
            const blocks: [*]align(1) const format.Block = @ptrCast(source);
            for (0..output.len / format.block_len) |b| {
                const start = b * format.block_len;
                dequantizeBlock(format, &blocks[b], output[start..][0..format.block_len]);
            }
        },
    }
    return true;
}

pub fn dequantizeBlock(
    comptime Q: type,
    block: *align(1) const Q.Block,
    output: *[Q.block_len]f32,
) void {
    if (@hasDecl(Q, "dequantize")) return Q.dequantize(block, output);
    super_block.dequantize(Q, @ptrCast(block), output);
}
