//! Root of the kernels' own tests, compiled for each CPU variant that runs on the building machine.
//! test/kernel/native-tests.test.ts keeps the list complete.
comptime {
    _ = @import("cpu/exp.zig");
    _ = @import("cpu/rotations.zig");
    _ = @import("cpu/sample_math.zig");
    _ = @import("cpu/slices.zig");
    _ = @import("fused_test.zig");
    _ = @import("interleave.zig");
    _ = @import("panels.zig"); // what matvec.zig asks for by name
    _ = @import("product_test.zig");
    _ = @import("reach.zig");
    _ = @import("worker_test.zig");
}
