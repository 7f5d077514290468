//! Signals that stop a running step: while native code runs, the JavaScript thread that would
//! handle them waits for it. The handlers that were there before are called as well.
const std = @import("std");
const builtin = @import("builtin");
const plan = @import("plan.zig");
const posix = std.posix;

/// A cancel word (plan.StepHeader.cancel_id): 0, or `plan.cancel_all` once a signal has come.
pub var word: u32 = 0;

const signals = [_]posix.SIG{ .INT, .TERM };
var previous: [signals.len]posix.Sigaction = undefined;

/// Windows has no such signals: there a step ends before Ctrl-C is seen.
pub fn install() void {
    if (builtin.os.tag == .windows) return;
    const action: posix.Sigaction = .{
        .handler = .{ .sigaction = handle },
        .mask = posix.sigemptyset(),
        .flags = posix.SA.SIGINFO | posix.SA.RESTART,
    };
    for (signals, &previous) |signal, *before| {
        var current: posix.Sigaction = undefined;
        posix.sigaction(signal, null, &current);
        // Installed already: the one before it stays.
        if (current.handler.sigaction == handle) continue;
        before.* = current;
        posix.sigaction(signal, &action, null);
    }
}

pub fn isRaised() bool {
    return @atomicLoad(u32, &word, .monotonic) != 0;
}

pub fn clear() void {
    @atomicStore(u32, &word, 0, .monotonic);
}

fn handle(
    signal: posix.SIG,
    details: *const posix.siginfo_t,
    context: ?*anyopaque,
) callconv(.c) void {
    @atomicStore(u32, &word, plan.cancel_all, .monotonic);
    const before = for (signals, &previous) |known, *action| {
        if (known == signal) break action;
    } else return;
    if (before.flags & posix.SA.SIGINFO != 0) {
        if (before.handler.sigaction) |next| next(signal, details, context);
        return;
    }
    const next = before.handler.handler orelse return;
    if (next == posix.SIG.IGN or next == posix.SIG.DFL) return;
    next(signal);
}
