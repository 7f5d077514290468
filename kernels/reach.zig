//! How far ahead weights are asked for while a model generates. What suits changes with what the
//! other threads and other programs read, and with the processor, so now and then a few steps try
//! other distances. No bit of a result depends on it.
const std = @import("std");

pub const Reach = struct {
    /// What tuning found.
    tuned_bytes: u32,
    /// Of this round: the first ones look around, the others use what was fastest.
    step: u32 = round_steps - first_steps,
    /// Rows of each step of the look; others take a different time.
    num_rows: u32 = 0,
    /// Distances that this look tries, as indices, one after another, several times.
    tried: [num_distances]u8 = undefined,
    num_tried: u32 = 0,
    /// Of them, which is next, and how many times all of them still come; 0 = the look is over.
    next: u32 = 0,
    times_left: u32 = 0,
    /// The shortest step by distance; none of those that this look does not try.
    least_ns: [num_distances]u64 = undefined,
    /// Looks that a distance sits out because it was clearly slower.
    rest: [num_distances]u8 = @splat(0),
    /// Never at rest, so every look has something to try.
    fastest: usize = as_tuned,

    /// Somewhat less and more than what tuning found, and what suits unlike processors: Zen 4 reads
    /// 10 to 20 % faster at 512 than from 640 on, rows that lie interleaved at up to 256, Zen 5 at
    /// about 2048; four interleaved streams halve that.
    const num_distances = 7;
    const as_tuned = 0;
    fn distances(tuned: u32) [num_distances]u32 {
        return .{ tuned, tuned / 4 * 3, tuned / 4 * 5, 64, 256, 512, 2048 };
    }
    /// Noise only adds: the shortest of a few steps is a fair measure.
    const steps_each = 3;
    const round_steps = 64;
    /// Before the first look.
    const first_steps = 8;
    const looks_of_rest = 7;
    const none = std.math.maxInt(u64);

    /// Bytes for a step of `num_rows` rows that is about to run.
    pub fn begin(reach: *Reach, num_rows: u32) u32 {
        if (reach.step == round_steps) reach.beginLook(num_rows);
        if (num_rows != reach.num_rows) reach.times_left = 0;
        const distance = if (reach.times_left == 0) reach.fastest else reach.tried[reach.next];
        return distances(reach.tuned_bytes)[distance];
    }

    fn beginLook(reach: *Reach, num_rows: u32) void {
        reach.step = 0;
        reach.num_rows = num_rows;
        reach.least_ns = @splat(none);
        reach.num_tried = 0;
        reach.next = 0;
        reach.times_left = steps_each;
        const all = distances(reach.tuned_bytes);
        for (&reach.rest, 0..) |*rest, i| {
            if (std.mem.indexOfScalar(u32, all[0..i], all[i]) != null) continue;
            if (rest.* > 0) {
                rest.* -= 1;
                continue;
            }
            reach.tried[reach.num_tried] = @intCast(i);
            reach.num_tried += 1;
        }
    }

    /// After that step, if nothing stopped it.
    pub fn end(reach: *Reach, taken_ns: u64) void {
        reach.step += 1;
        if (reach.times_left == 0) return;
        const least = &reach.least_ns[reach.tried[reach.next]];
        least.* = @min(least.*, taken_ns);
        reach.next += 1;
        if (reach.next < reach.num_tried) return;
        reach.next = 0;
        reach.times_left -= 1;
        if (reach.times_left == 0) reach.endLook() else reach.dropSlow();
    }

    /// Far behind once is enough: a step costs what it takes longer.
    fn dropSlow(reach: *Reach) void {
        const least = std.mem.min(u64, &reach.least_ns);
        var count: u32 = 0;
        for (reach.tried[0..reach.num_tried]) |i| {
            if (reach.least_ns[i] - least > least / 8) continue;
            reach.tried[count] = i;
            count += 1;
        }
        reach.num_tried = count;
    }

    fn endLook(reach: *Reach) void {
        const least = std.mem.min(u64, &reach.least_ns);
        // The one in use stays unless another is clearly faster.
        if (reach.least_ns[reach.fastest] - least > least / 64) {
            reach.fastest = std.mem.indexOfScalar(u64, &reach.least_ns, least).?;
        }
        for (reach.least_ns, &reach.rest) |ns, *rest| {
            if (ns != none and ns - least > least / 32) rest.* = looks_of_rest;
        }
    }
};

fn taken(bytes: u32, best: u32, step: usize) u64 {
    // Some steps are disturbed.
    const noise: u64 = if (step % 5 == 0) 50 else 0;
    return if (bytes == best) 100 + noise else 105 + noise;
}

test "the distance of the shortest steps is used" {
    var reach: Reach = .{ .tuned_bytes = 3072 };
    for ([_]u32{ 2304, 512, 3840, 2048, 3072 }) |best| {
        // One that was slower before is tried again after its rest.
        for (0..(Reach.looks_of_rest + 2) * Reach.round_steps) |step| {
            reach.end(taken(reach.begin(1), best, step));
        }
        while (reach.times_left > 0) reach.end(taken(reach.begin(1), best, 1));
        try std.testing.expectEqual(best, reach.begin(1));
    }
}

test "what is clearly slower is seldom tried" {
    var reach: Reach = .{ .tuned_bytes = 2048 };
    var slower_steps: usize = 0;
    const num_looks = Reach.looks_of_rest + 1;
    for (0..Reach.first_steps + num_looks * Reach.round_steps) |_| {
        const bytes = reach.begin(1);
        if (bytes == 512) slower_steps += 1;
        reach.end(if (bytes == 512) 120 else 100);
    }
    try std.testing.expectEqual(1, slower_steps);
}

test "a look ends where the steps have another size" {
    var reach: Reach = .{ .tuned_bytes = 2048 };
    for (0..Reach.first_steps + 2) |_| {
        _ = reach.begin(1);
        reach.end(100);
    }
    for (2..Reach.round_steps) |_| {
        try std.testing.expectEqual(2048, reach.begin(3));
        reach.end(1);
    }
}
