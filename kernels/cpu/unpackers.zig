//! Which unpacker serves a weight type, in the tile regime and wherever rows lie interleaved.
const quant = @import("../quant/quant.zig");
const blocks = @import("tile_unpack_blocks.zig");
const decoded = @import("tile_unpack_decoded.zig");
const mins = @import("tile_unpack_mins.zig");
const signed = @import("tile_unpack_signed.zig");
const ternary = @import("tile_unpack_ternary.zig");
const vector = @import("tile_vector.zig");

/// The unpacker of a weight type for tiles; null where weights are floats. Many activation rows are
/// worth multiplying weights of few bits with their scales first, where bytes are multiplied directly.
pub fn Unpacker(comptime weight_type: quant.Type) ?type {
    return UnpackerOf(weight_type, true);
}

/// The same for few activation rows.
pub fn RowUnpacker(comptime weight_type: quant.Type) type {
    return UnpackerOf(weight_type, false).?;
}

fn UnpackerOf(comptime weight_type: quant.Type, comptime in_tile: bool) ?type {
    const Format = quant.Format(weight_type);
    const multiplied = in_tile and !vector.in_pairs;
    return switch (weight_type) {
        .q4_0, .q4_1, .q5_0, .q5_1 => blocks.Nibbles(Format.Block),
        .q8_0 => blocks.Bytes(Format.Block),
        .q2_k => mins.TwoBits(Format.Block, multiplied),
        .q4_k, .q5_k => mins.Nibbles(Format.Block),
        .q3_k => signed.ThreeBits(Format.Block, multiplied),
        .q6_k => signed.SixBits(Format.Block),
        .iq4_nl, .mxfp4 => blocks.Levels(Format),
        .nvfp4 => blocks.HalvedLevels(Format),
        .iq4_xs => signed.Levels(Format, in_tile),
        .iq1_s, .iq1_m, .iq2_xxs, .iq2_xs, .iq2_s, .iq3_xxs, .iq3_s => decoded.Decoded(Format),
        .tq2_0 => decoded.Decoded(Format),
        .tq1_0 => ternary.Digits(Format, in_tile),
        .q1_0, .q2_0 => blocks.Codes(Format),
        .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 => null,
    };
}
