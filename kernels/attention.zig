//! Root of one CPU variant beside executor.zig: attention over the KV cache.
const attention_paged = @import("cpu/attention_paged.zig");
const exports = @import("exports.zig");

comptime {
    @export(&attention_paged.run, exports.named("run_attention"));
}
