//! Root of one CPU variant beside executor.zig: the rows regime of interleaved weights, in an object
//! of its own because so much of it is to compile.
const matvec = @import("cpu/matvec.zig");
const exports = @import("exports.zig");

comptime {
    @export(&matvec.multiplyInterleaved, exports.named("multiply_interleaved"));
}
