//! What an op sees while it runs: the step's data, its own thread, and how threads share work.
//! Ops are called by every thread at once; `Phase` hands out units, `sync` ends a phase.
const std = @import("std");
const builtin = @import("builtin");
const clock = @import("clock.zig");
const plan = @import("plan.zig");
const Tuning = @import("tuning.zig").Tuning;

pub const max_threads = 256;

/// State shared by the threads of one pool. Lives in the pool; cache lines are kept apart.
pub const Shared = struct {
    /// What is left of each thread's units of the current phase.
    ranges: [max_threads]Range = @splat(.{}),
    arrived: std.atomic.Value(u32) align(128) = .init(0),
    /// Raised by every barrier and every task; begins at 1, so that no range is of the first phase.
    generation: std.atomic.Value(u32) align(128) = .init(1),
    sleepers: std.atomic.Value(u32) align(128) = .init(0),
    /// The cancel word as the last thread at the barrier read it, so that all threads agree.
    stopped: std.atomic.Value(bool) = .init(false),
    /// When the last thread arrived at the barrier, in steps whose ops are timed.
    alone_since_ns: u64 = 0,
    num_threads: u32 = 1,
    tuning: Tuning = .{},
    /// The tuning's, or less where spinning takes the core from the thread waited for.
    spin_limit: u32 = (Tuning{}).spin_limit,

    /// A new phase begins; called while no thread is in one.
    pub fn advance(shared: *Shared) void {
        const next = shared.generation.raw +% 1;
        // Epochs come round: a range that no phase has touched meanwhile would seem to be used up.
        if (next % (std.math.maxInt(Epoch) / 2) == 0) for (&shared.ranges) |*range| {
            range.state.raw = .{ .epoch = @truncate(next -% 1) };
        };
        _ = shared.generation.fetchAdd(1, .seq_cst);
    }
};

pub const Worker = struct {
    shared: *Shared,
    index: u32,
    count: u32,
    /// Private memory of this thread, 64-byte aligned; its size is `ScratchNeed.thread_bytes`.
    scratch: []align(64) u8,
    /// Whose step is to stop (plan.StepHeader.cancel_id); looked at in every `sync`.
    cancel_word: *const u32,
    cancel_id: u32 = 0,
    /// True once the step is to stop: the executor leaves after the op that is running.
    stopped: bool = false,
    /// Whether `waited_ns` counts the time at barriers.
    timed: bool = false,
    waited_ns: u64 = 0,

    /// Units 0..num_units shared among all threads. Every thread must call with the same count;
    /// `sync` comes before the op's next phase, the executor's own barrier after its last.
    pub fn phase(worker: *Worker, num_units: u32) Phase {
        return .init(worker, num_units);
    }

    /// The units that this thread begins with in a phase of `num_units`.
    pub fn firstUnits(worker: *const Worker, num_units: u32) Run {
        return .part(num_units, worker.index, worker.count);
    }

    /// Waits for all threads; afterwards everything written before is visible to all of them.
    pub fn sync(worker: *Worker) void {
        if (worker.arrive()) worker.release();
    }

    fn isCancelled(worker: *const Worker) bool {
        const word = @atomicLoad(u32, worker.cancel_word, .monotonic);
        return word != 0 and (word == worker.cancel_id or word == plan.cancel_all);
    }

    /// A barrier in two halves: true for the thread that arrives last, which sees what all have
    /// written and calls `release`; false for the others, once it has.
    pub fn arrive(worker: *Worker) bool {
        const shared = worker.shared;
        if (worker.count == 1) return true;
        const generation = shared.generation.load(.acquire);
        if (shared.arrived.fetchAdd(1, .acq_rel) + 1 == worker.count) return true;
        const start = if (worker.timed) clock.now() else 0;
        waitChange(&shared.generation, generation, shared.spin_limit, &shared.sleepers);
        if (worker.timed) worker.waited_ns += clock.now() - start;
        worker.stopped = shared.stopped.load(.monotonic);
        return false;
    }

    /// Lets the other threads go on.
    pub fn release(worker: *Worker) void {
        const shared = worker.shared;
        const stop = worker.isCancelled();
        worker.stopped = stop;
        if (worker.count == 1) return;
        shared.arrived.store(0, .monotonic);
        shared.stopped.store(stop, .monotonic);
        shared.advance();
        if (shared.sleepers.load(.seq_cst) > 0) futexWake(&shared.generation);
    }
};

/// Units begin..end.
pub const Run = struct {
    begin: u32,
    end: u32,

    /// Part `index` of `count` equal ones.
    fn part(num_units: u64, index: u64, count: u64) Run {
        return .{
            .begin = @intCast(num_units * index / count),
            .end = @intCast(num_units * (index + 1) / count),
        };
    }
};

/// How threads share the units of a phase: each begins with a contiguous part and takes its units
/// in order, so that units next to each other in memory make one long stream; a thread that has
/// none left takes the rear half of what another has.
pub const Phase = struct {
    worker: *Worker,
    num_units: u32,
    /// Tells this phase from the one before, whose ranges may still stand.
    epoch: Epoch,

    fn init(worker: *Worker, num_units: u32) Phase {
        std.debug.assert(num_units <= std.math.maxInt(u24));
        if (worker.count == 1) worker.shared.ranges[0].state.raw = .{ .end = @intCast(num_units) };
        const generation = worker.shared.generation.load(.monotonic);
        return .{ .worker = worker, .num_units = num_units, .epoch = @truncate(generation) };
    }

    /// The next unit nobody has taken, or null.
    pub fn next(phase: *Phase) ?u32 {
        const run = phase.nextRun(1) orelse return null;
        return run.begin;
    }

    /// The next units, some but at most `most`: fewer towards the end, so that the threads end
    /// together.
    pub fn nextRun(phase: *Phase, most: u32) ?Run {
        const worker = phase.worker;
        const own = &worker.shared.ranges[worker.index].state;
        if (worker.count == 1) {
            const left = own.raw;
            if (left.begin == left.end) return null;
            own.raw.begin += @intCast(@min(most, left.end - left.begin));
            return .{ .begin = left.begin, .end = own.raw.begin };
        }
        if (phase.take(worker.index, .front, most)) |run| return run;
        for (1..worker.count) |distance| {
            const victim = (worker.index + distance) % worker.count;
            const stolen = phase.take(victim, .rear_half, most) orelse continue;
            const end = stolen.begin + fair(stolen.begin, stolen.end, most);
            // Nobody else changes a range without units.
            own.store(.{
                .epoch = phase.epoch,
                .begin = @intCast(end),
                .end = @intCast(stolen.end),
            }, .monotonic);
            return .{ .begin = stolen.begin, .end = end };
        }
        return null;
    }

    /// Takes the first units of a thread's range, or the rear half.
    fn take(
        phase: *Phase,
        index: usize,
        comptime part: enum { front, rear_half },
        most: u32,
    ) ?Run {
        const state = &phase.worker.shared.ranges[index].state;
        var seen = state.load(.monotonic);
        while (true) {
            const units = if (seen.epoch == phase.epoch) seen else phase.firstUnits(index);
            if (units.begin == units.end) return null;
            const middle: u24 = @intCast(units.begin + switch (part) {
                .front => fair(units.begin, units.end, most),
                .rear_half => (units.end - units.begin) / 2,
            });
            var left = units;
            if (part == .front) left.begin = middle else left.end = middle;
            seen = state.cmpxchgWeak(seen, left, .monotonic, .monotonic) orelse return switch (part) {
                .front => .{ .begin = units.begin, .end = middle },
                .rear_half => .{ .begin = middle, .end = units.end },
            };
        }
    }

    /// How many of the units a thread takes at once: others may take from what it leaves. A quarter
    /// instead makes twice the runs, and decode 1 % slower (Zen 5).
    fn fair(begin: u32, end: u32, most: u32) u32 {
        return std.math.clamp((end - begin) / 2, 1, most);
    }

    /// What thread `index` begins with.
    fn firstUnits(phase: *const Phase, index: usize) Range.State {
        const units: Run = .part(phase.num_units, index, phase.worker.count);
        return .{
            .epoch = phase.epoch,
            .begin = @intCast(units.begin),
            .end = @intCast(units.end),
        };
    }
};

/// The last digits of a generation.
const Epoch = u16;

/// Units begin..end of the phase that `epoch` names. A thread's own word, which others change too.
const Range = struct {
    state: std.atomic.Value(State) align(128) = .init(.{}),

    const State = packed struct(u64) { epoch: Epoch = 0, begin: u24 = 0, end: u24 = 0 };
};

/// Spins, then sleeps, until `value` differs from `seen`.
pub fn waitChange(
    value: *std.atomic.Value(u32),
    seen: u32,
    spin_limit: u32,
    sleepers: *std.atomic.Value(u32),
) void {
    var spins: u32 = 0;
    while (value.load(.acquire) == seen) {
        if (spins < spin_limit) {
            spins += 1;
            std.atomic.spinLoopHint();
            continue;
        }
        _ = sleepers.fetchAdd(1, .seq_cst);
        if (value.load(.seq_cst) == seen) futexWait(value, seen);
        _ = sleepers.fetchSub(1, .seq_cst);
    }
}

const linux = std.os.linux;

fn futexWait(value: *std.atomic.Value(u32), seen: u32) void {
    if (builtin.os.tag == .linux) {
        _ = linux.futex_4arg(&value.raw, .{ .cmd = .WAIT, .private = true }, seen, null);
    } else std.Io.futexWaitUncancelable(std.Options.debug_io, u32, &value.raw, seen);
}

pub fn futexWake(value: *std.atomic.Value(u32)) void {
    const all = std.math.maxInt(i32);
    if (builtin.os.tag == .linux) {
        _ = linux.futex_3arg(&value.raw, .{ .cmd = .WAKE, .private = true }, all);
    } else std.Io.futexWake(std.Options.debug_io, u32, &value.raw, all);
}

/// One loaded plan while a step runs: tables, memory and the step's own arrays.
pub const Step = struct {
    header: *const plan.Header,
    tensors: []const plan.Tensor,
    weights: []const plan.Weight,
    caches: []const plan.Cache,
    ops: []const plan.Op,
    arena: [*]align(64) u8,
    kv: [*]align(64) u8,
    /// Memory shared by all threads inside one op (quantised activations), 64-byte aligned.
    scratch: []align(64) u8,
    data: *plan.StepHeader,
    cancel_word: *const u32,
    /// Where the ops' times are added, one list per thread; null when nobody asks.
    times: ?[*]clock.OpTime = null,
    /// How often each expert of each route op was chosen; null when nobody asks.
    expert_counts: ?[*]u64 = null,

    /// The list of thread `index`, one entry per op.
    pub fn timesOf(step: *const Step, index: u32) ?[]clock.OpTime {
        const times = step.times orelse return null;
        return times[index * step.ops.len ..][0..step.ops.len];
    }

    /// Rows of the tensor in this step.
    pub fn rows(step: *const Step, id: u32) u32 {
        return switch (step.tensors[id].rows) {
            .tokens => step.data.num_tokens,
            .outputs => step.data.num_outputs,
        };
    }

    /// The activation's first element; rows are `width` apart.
    pub fn tensor(step: *const Step, id: u32) [*]align(64) f32 {
        return @ptrCast(@alignCast(step.arena + step.tensors[id].offset));
    }

    /// Experts per token, of a `route` output.
    pub fn numSlots(step: *const Step, routing: u32) usize {
        return step.tensors[routing].width / 2;
    }

    /// An F32 weight's elements (norm weights, biases, tables), or null for `plan.none`.
    pub fn vector(step: *const Step, id: u32) ?[*]align(4) const f32 {
        if (id == plan.none) return null;
        return @ptrFromInt(step.weights[id].address);
    }

    /// One of the step's arrays by its byte offset in the header.
    pub fn array(step: *const Step, comptime T: type, offset: u32) [*]T {
        const base: [*]u8 = @ptrCast(step.data);
        return @ptrCast(@alignCast(base + offset));
    }
};

/// What an op needs beside the arena; the executor takes the largest of all ops at load.
pub const ScratchNeed = struct {
    shared_bytes: u64 = 0,
    thread_bytes: u64 = 0,

    pub fn largest(a: ScratchNeed, b: ScratchNeed) ScratchNeed {
        return .{
            .shared_bytes = @max(a.shared_bytes, b.shared_bytes),
            .thread_bytes = @max(a.thread_bytes, b.thread_bytes),
        };
    }
};
