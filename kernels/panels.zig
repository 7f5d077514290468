//! Root of one CPU variant beside executor.zig: the rows regime of interleaved weights, half of what
//! there is to compile, in an object of its own so that two cores compile a variant in half the time.
const matvec = @import("cpu/matvec.zig");
const exports = @import("exports.zig");

comptime {
    @export(&matvec.multiplyInterleaved, exports.named("multiply_interleaved"));
}
