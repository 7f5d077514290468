//! How far ahead weights are asked for while a model generates. What suits changes with what the
//! other threads and other programs read, so now and then a few steps try somewhat less and somewhat
//! more than what tuning found. No bit of a result depends on it.
const std = @import("std");

pub const Reach = struct {
    /// What tuning found.
    tuned_bytes: u32,
    /// Of this round: the first ones look around, the others use what was fastest.
    step: u32 = round_steps - first_steps,
    /// Rows of each step of the look; others take a different time.
    num_rows: u32 = 0,
    /// The shortest step by distance.
    least_ns: [quarters.len]u64 = undefined,
    fastest: usize = as_tuned,

    /// Of the tuned distance.
    const quarters = [_]u32{ 3, 4, 5 };
    const as_tuned = 1;
    /// Noise only adds: the shortest of a few steps is a fair measure.
    const look_steps = 4 * quarters.len;
    const round_steps = 64;
    /// Before the first look.
    const first_steps = 8;

    /// Bytes for a step of `num_rows` rows that is about to run.
    pub fn begin(reach: *Reach, num_rows: u32) u32 {
        if (reach.step == round_steps) {
            reach.step = 0;
            reach.num_rows = num_rows;
            reach.least_ns = @splat(std.math.maxInt(u64));
        }
        if (num_rows != reach.num_rows) reach.step = @max(reach.step, look_steps);
        return reach.tuned_bytes / 4 * quarters[reach.distance()];
    }

    /// After that step, if nothing stopped it.
    pub fn end(reach: *Reach, taken_ns: u64) void {
        const is_look = reach.step < look_steps;
        if (is_look) {
            const least = &reach.least_ns[reach.distance()];
            least.* = @min(least.*, taken_ns);
        }
        reach.step += 1;
        if (is_look and reach.step == look_steps) {
            reach.fastest = std.mem.indexOfMin(u64, &reach.least_ns);
        }
    }

    fn distance(reach: *const Reach) usize {
        return if (reach.step < look_steps) reach.step % quarters.len else reach.fastest;
    }
};

fn taken(bytes: u32, best: u32, step: usize) u64 {
    // Some steps are disturbed.
    const noise: u64 = if (step % 5 == 0) 50 else 0;
    return if (bytes == best) 100 + noise else 105 + noise;
}

test "the distance of the shortest steps is used" {
    var reach: Reach = .{ .tuned_bytes = 2048 };
    for ([_]u32{ 1536, 2560, 2048 }) |best| {
        var step: usize = 0;
        while (step < 2 * Reach.round_steps or reach.step < Reach.look_steps) : (step += 1) {
            reach.end(taken(reach.begin(1), best, step));
        }
        try std.testing.expectEqual(best, reach.begin(1));
    }
}

test "a look ends where the steps have another size" {
    var reach: Reach = .{ .tuned_bytes = 2048 };
    for (0..Reach.first_steps + 2) |_| {
        _ = reach.begin(1);
        reach.end(100);
    }
    for (0..Reach.round_steps - Reach.look_steps) |_| {
        try std.testing.expectEqual(2048, reach.begin(3));
        reach.end(1);
    }
}
