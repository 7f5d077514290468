//! How a phase's units are shared, with threads that take turns as a list says: every unit is taken
//! once, whoever is slow or absent, and a thread's own units come in order.
const std = @import("std");
const worker_file = @import("worker.zig");
const plan = @import("plan.zig");
const Shared = worker_file.Shared;
const Worker = worker_file.Worker;

const max_units = 1000;

/// Shares `num_units` among `count` threads of which `turns` names the next one to take a run.
fn takeAll(shared: *Shared, count: u32, num_units: u32, most: u32, turns: *std.Random) !void {
    const never: u32 = plan.none;
    var workers: [8]Worker = undefined;
    var phases: [8]worker_file.Phase = undefined;
    for (workers[0..count], phases[0..count], 0..) |*worker, *phase, index| {
        worker.* = .{
            .shared = shared,
            .index = @intCast(index),
            .count = count,
            .scratch = &.{},
            .cancel_word = &never,
        };
        phase.* = worker.phase(num_units);
    }
    var is_taken: [max_units]bool = @splat(false);
    var num_taken: usize = 0;
    // Some of the threads never come: the others take their units.
    const present = 1 + turns.uintLessThan(u32, count);
    var idle: u32 = 0;
    while (idle < present) {
        const run = phases[turns.uintLessThan(u32, present)].nextRun(most) orelse {
            idle += 1;
            continue;
        };
        try std.testing.expect(run.begin < run.end and run.end - run.begin <= most);
        for (is_taken[run.begin..run.end]) |*taken| {
            try std.testing.expect(!taken.*);
            taken.* = true;
        }
        num_taken += run.end - run.begin;
    }
    for (phases[0..present]) |*phase| {
        while (phase.nextRun(most)) |run| num_taken += run.end - run.begin;
    }
    try std.testing.expectEqual(num_units, num_taken);
}

test "every unit is taken once, in one phase after the other" {
    var source = std.Random.DefaultPrng.init(7);
    var turns = source.random();
    const shared = try std.testing.allocator.create(Shared);
    defer std.testing.allocator.destroy(shared);
    shared.* = .{};
    for (1..9) |count| for ([_]u32{ 0, 1, 2, 7, 64, max_units }) |num_units| {
        for ([_]u32{ 1, 3, 256 }) |most| {
            try takeAll(shared, @intCast(count), num_units, most, &turns);
            shared.advance();
        }
    };
}

test "no unit is lost, however many phases a thread had none in" {
    var source = std.Random.DefaultPrng.init(7);
    var turns = source.random();
    const shared = try std.testing.allocator.create(Shared);
    defer std.testing.allocator.destroy(shared);
    for ([_]u32{ 1, 0x7fff, 0x8000, 0x8001, 0x10000, 0x20000 }) |age| {
        shared.* = .{};
        try takeAll(shared, 4, 8, 2, &turns);
        for (0..age) |_| shared.advance();
        try takeAll(shared, 4, 8, 2, &turns);
        // A range that was never used.
        shared.* = .{};
        for (1..age) |_| shared.advance();
        try takeAll(shared, 4, 8, 2, &turns);
    }
}

test "a thread's own units come in order, then the rear half of another's" {
    const shared = try std.testing.allocator.create(Shared);
    defer std.testing.allocator.destroy(shared);
    shared.* = .{};
    const never: u32 = plan.none;
    var workers: [2]Worker = undefined;
    for (&workers, 0..) |*worker, index| worker.* = .{
        .shared = shared,
        .index = @intCast(index),
        .count = 2,
        .scratch = &.{},
        .cancel_word = &never,
    };
    var first = workers[0].phase(16);
    var second = workers[1].phase(16);
    try std.testing.expectEqual(0, first.next());
    try std.testing.expectEqual(1, first.next());
    for (8..16) |unit| try std.testing.expectEqual(@as(u32, @intCast(unit)), second.next());
    for ([_]u32{ 5, 6, 7 }) |unit| try std.testing.expectEqual(unit, second.next());
    try std.testing.expectEqual(2, first.next());
    try std.testing.expectEqual(4, second.next());
    try std.testing.expectEqual(3, first.next());
    try std.testing.expectEqual(null, second.next());
    try std.testing.expectEqual(null, first.next());
}
