//! Where threads run and where memory lies: pinning to CPUs, and pages spread over memory nodes.
//! Linux alone offers both.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;

/// CPUs 0 to 1023, as the C library's cpu_set_t.
pub const CpuSet = [16]u64;

pub const Error = error{ Unsupported, Refused };

extern "c" fn pthread_setaffinity_np(thread: std.c.pthread_t, bytes: usize, set: *const CpuSet) c_int;

fn setOf(cpus: []const u32) Error!CpuSet {
    var set: CpuSet = @splat(0);
    for (cpus) |cpu| {
        if (cpu >= 64 * set.len) return error.Refused;
        set[cpu / 64] |= @as(u64, 1) << @intCast(cpu % 64);
    }
    return set;
}

/// From now on `thread` runs on these CPUs only.
pub fn pin(thread: std.c.pthread_t, cpus: []const u32) Error!void {
    if (builtin.os.tag != .linux) return error.Unsupported;
    const set = try setOf(cpus);
    if (pthread_setaffinity_np(thread, @sizeOf(CpuSet), &set) != 0) return error.Refused;
}

/// Pages that this thread, and threads that it starts from now on, are the first to use come from
/// the nodes of the mask in turn.
pub fn interleave(node_mask: u64) Error!void {
    if (builtin.os.tag != .linux) return error.Unsupported;
    const mode_interleave = 3;
    var mask = [1]u64{node_mask};
    const result = linux.syscall3(.set_mempolicy, mode_interleave, @intFromPtr(&mask), 65);
    if (linux.errno(result) != .SUCCESS) return error.Refused;
}
