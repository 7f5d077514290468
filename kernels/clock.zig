//! Time for measurements: nanoseconds of a clock that never jumps, about 25 ns a reading.
const std = @import("std");

pub fn now() u64 {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// What one op took on one thread, summed over steps.
pub const OpTime = extern struct {
    wall_ns: u64,
    /// Of it, at barriers.
    waited_ns: u64,
};
