//! The thread pool: persistent threads that all run the same step; the caller is worker 0.
const std = @import("std");
const clock = @import("clock.zig");
const memory = @import("memory.zig");
const placement = @import("placement.zig");
const worker_file = @import("worker.zig");
const Reach = @import("reach.zig").Reach;
const Tuning = @import("tuning.zig").Tuning;
const Probe = @import("probe.zig").Probe;
const Variant = @import("dispatch.zig").Variant;
const Shared = worker_file.Shared;
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub const max_threads = worker_file.max_threads;
/// The cancel word of what nobody cancels.
const never: u32 = 0;

/// Lives at one address from `start` to `stop`; its threads point into it.
pub const Pool = struct {
    shared: Shared = .{},
    variant: *const Variant,
    threads: [max_threads]std.Thread = undefined,
    num_threads: u32,
    started: std.atomic.Value(u32) align(128) = .init(0),
    sleepers: std.atomic.Value(u32) align(128) = .init(0),
    unfinished: std.atomic.Value(u32) align(128) = .init(0),
    waiting: std.atomic.Value(u32) align(128) = .init(0),
    stopping: bool = false,
    task: Task = undefined,
    /// Set by `tune`.
    reach: Reach = undefined,
    /// Private scratch of all threads, `thread_bytes` each.
    scratch: []align(64) u8 = &.{},

    const Task = union(enum) { step: *const Step, probe: *Probe };

    pub fn start(pool: *Pool) !void {
        pool.shared.num_threads = pool.num_threads;
        pool.tune(.{});
        var spawned: u32 = 1;
        errdefer pool.join(spawned);
        while (spawned < pool.num_threads) : (spawned += 1) {
            pool.threads[spawned] = try std.Thread.spawn(
                .{ .stack_size = 1 << 20 },
                loop,
                .{ pool, spawned },
            );
        }
    }

    /// Takes effect at the next step; call between steps.
    pub fn tune(pool: *Pool, tuning: Tuning) void {
        pool.shared.tuning = tuning;
        pool.reach = .{ .tuned_bytes = tuning.prefetch_bytes };
        // On an oversubscribed machine spinning takes the core from the thread waited for.
        const cores = std.Thread.getCpuCount() catch 1;
        const most: u32 = if (pool.num_threads > cores) 50 else tuning.spin_limit;
        @atomicStore(u32, &pool.shared.spin_limit, @min(most, tuning.spin_limit), .monotonic);
    }

    /// Thread i runs on `cpus[i]` from now on; the caller, thread 0, on any of them.
    pub fn pin(pool: *Pool, cpus: []const u32) placement.Error!void {
        if (cpus.len < pool.num_threads) return error.Refused;
        try placement.pin(std.c.pthread_self(), cpus);
        for (pool.threads[1..pool.num_threads], cpus[1..pool.num_threads]) |thread, cpu| {
            try placement.pin(thread.getHandle(), &.{cpu});
        }
    }

    pub fn stop(pool: *Pool) void {
        pool.join(pool.num_threads);
    }

    fn join(pool: *Pool, spawned: u32) void {
        pool.stopping = true;
        _ = pool.started.fetchAdd(1, .seq_cst);
        worker_file.futexWake(&pool.started);
        for (pool.threads[1..@max(1, spawned)]) |thread| thread.join();
    }

    /// Runs a step. False: it was cancelled on the way.
    pub fn runStep(pool: *Pool, step: *const Step) bool {
        const num_rows = step.data.num_tokens;
        if (num_rows > Tuning.max_rows_regime) return pool.run(.{ .step = step });
        pool.shared.tuning.prefetch_bytes = pool.reach.begin(num_rows);
        const began_ns = clock.now();
        const completed = pool.run(.{ .step = step });
        if (completed) pool.reach.end(clock.now() - began_ns);
        return completed;
    }

    /// Runs `task` on all threads; returns when every one of them has left it. False: it was
    /// cancelled on the way.
    pub fn run(pool: *Pool, task: Task) bool {
        pool.task = task;
        // No barrier comes before a task.
        pool.shared.advance();
        pool.unfinished.store(pool.num_threads - 1, .release);
        _ = pool.started.fetchAdd(1, .seq_cst);
        if (pool.sleepers.load(.seq_cst) > 0) worker_file.futexWake(&pool.started);
        const completed = pool.work(0);
        while (true) {
            const left = pool.unfinished.load(.acquire);
            if (left == 0) return completed;
            const limit = pool.spinLimit();
            worker_file.waitChange(&pool.unfinished, left, limit, &pool.waiting);
        }
    }

    fn spinLimit(pool: *const Pool) u32 {
        return @atomicLoad(u32, &pool.shared.spin_limit, .monotonic);
    }

    fn work(pool: *Pool, index: u32) bool {
        const bytes = pool.scratch.len / pool.num_threads;
        var worker: Worker = .{
            .shared = &pool.shared,
            .index = index,
            .count = pool.num_threads,
            .scratch = @alignCast(pool.scratch[index * bytes ..][0..bytes]),
            .cancel_word = &never, // a step has its own
        };
        memory.in_step = true;
        switch (pool.task) {
            .step => |step| {
                worker.cancel_word = step.cancel_word;
                worker.cancel_id = step.data.cancel_id;
                pool.variant.run_step(step, &worker);
            },
            .probe => |probe| pool.variant.run_probe(probe, &worker),
        }
        memory.in_step = false;
        return !worker.stopped;
    }

    fn loop(pool: *Pool, index: u32) void {
        var seen: u32 = 0;
        while (true) {
            const limit = pool.spinLimit();
            worker_file.waitChange(&pool.started, seen, limit, &pool.sleepers);
            seen +%= 1;
            if (pool.stopping) return;
            _ = pool.work(index);
            if (pool.unfinished.fetchSub(1, .seq_cst) == 1 and pool.waiting.load(.seq_cst) > 0) {
                worker_file.futexWake(&pool.unfinished);
            }
        }
    }
};
