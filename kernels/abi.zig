//! Every export of libtinfer. Arguments are u32, i32, f32 or addresses; every export returns a
//! status; the text of the last error is read by `tinfer_last_error`. src/native/symbols.ts is
//! generated from this file: keep each `export fn` head on one line.
const std = @import("std");
const clock = @import("clock.zig");
const dispatch = @import("dispatch.zig");
const interleave = @import("interleave.zig");
const interrupt = @import("interrupt.zig");
const memory = @import("memory.zig");
const plan = @import("plan.zig");
const placement = @import("placement.zig");
const plan_check = @import("plan_check.zig");
const pool_file = @import("pool.zig");
const Probe = @import("probe.zig").Probe;
const quantize = @import("quantize/quantize.zig");
const quant = @import("quant/quant.zig");
const quantize_matrix = @import("quantize_matrix.zig");
const row_sums = @import("row_sums.zig");
const sum_matrix = @import("sum_matrix.zig");
const Tuning = @import("tuning.zig").Tuning;
const worker = @import("worker.zig");

/// Raised with every change of an export or an extern struct.
const abi_version: u32 = 16;

pub const Status = enum(i32) {
    ok = 0,
    invalid = 1,
    out_of_memory = 2,
    not_found = 3,
    access_denied = 4,
    failed = 5,
    unsupported = 6,
    /// A step that was cancelled on its way; not a failure.
    stopped = 7,
};

threadlocal var error_text: [512]u8 = undefined;
threadlocal var error_len: usize = 0;

fn fail(status: Status, comptime format: []const u8, args: anytype) i32 {
    const text = std.fmt.bufPrint(&error_text, format, args) catch error_text[0..];
    error_len = text.len;
    return @intFromEnum(status);
}

const ok = @intFromEnum(Status.ok);

export fn tinfer_abi_version() u32 {
    return abi_version;
}

/// Copies the calling thread's last error text (UTF-8, no terminator); returns its length.
export fn tinfer_last_error(buffer: [*]u8, capacity: u32) i32 {
    const length = @min(error_len, capacity);
    @memcpy(buffer[0..length], error_text[0..length]);
    return @intCast(length);
}

/// What this CPU runs. Names are zero-padded.
pub const CpuReport = extern struct {
    best_variant: [16]u8,
    /// Variants this machine can run, comma-separated, most portable first.
    variants: [64]u8,
    num_cpus: u32,
    /// Memory is taken in whole pages.
    page_bytes: u32,
};

export fn tinfer_cpu_report(report: *CpuReport) i32 {
    report.* = std.mem.zeroes(CpuReport);
    const best = dispatch.best();
    const name = dispatch.variants[best].name;
    @memcpy(report.best_variant[0..name.len], name);
    var end: usize = 0;
    for (dispatch.variants[0 .. best + 1], 0..) |variant, index| {
        if (index > 0) {
            report.variants[end] = ',';
            end += 1;
        }
        @memcpy(report.variants[end..][0..variant.name.len], variant.name);
        end += variant.name.len;
    }
    report.num_cpus = @intCast(std.Thread.getCpuCount() catch 1);
    report.page_bytes = memory.page_bytes;
    return ok;
}

export fn tinfer_map_file(path: [*:0]const u8, file: *memory.MappedFile) i32 {
    memory.mapFile(path, file) catch |err| return switch (err) {
        error.NotFound => fail(.not_found, "no such file", .{}),
        error.AccessDenied => fail(.access_denied, "permission denied", .{}),
        error.OutOfMemory => fail(.out_of_memory, "not enough address space to map the file", .{}),
        error.Empty => fail(.invalid, "the file is empty", .{}),
        error.Failed => fail(.failed, "the file cannot be mapped", .{}),
    };
    return ok;
}

export fn tinfer_unmap_file(file: *memory.MappedFile) i32 {
    memory.unmapFile(file);
    return ok;
}

pub const Range = extern struct { address: u64, bytes: u64 };

/// Reads a mapped range into memory ahead of its use.
export fn tinfer_populate(range: *const Range) i32 {
    memory.populate(range.address, range.bytes);
    return ok;
}

/// Reads a mapped range into the page cache alone.
export fn tinfer_read_ahead(range: *const Range) i32 {
    memory.readAhead(range.address, range.bytes);
    return ok;
}

/// Takes mapped pages of a file out of this process again.
export fn tinfer_discard(range: *const Range) i32 {
    memory.discard(range.address, range.bytes);
    return ok;
}

/// Keeps a range in memory.
export fn tinfer_lock(range: *const Range) i32 {
    memory.lock(range.address, range.bytes) catch {
        return fail(.access_denied, "{d} bytes cannot be locked in memory", .{range.bytes});
    };
    return ok;
}

/// `bytes` from `offset` of a mapped file, to be copied to `target` by `num_threads` threads.
pub const ReadArgs = extern struct { file: u64, offset: u64, bytes: u64, target: u64, num_threads: u32, reserved: u32 };

export fn tinfer_read_file(args: *const ReadArgs) i32 {
    const file: *const memory.MappedFile = @ptrFromInt(args.file);
    const target: [*]u8 = @ptrFromInt(args.target);
    memory.read(file, args.offset, target[0..args.bytes], args.num_threads) catch {
        return fail(.failed, "the file cannot be read", .{});
    };
    return ok;
}

/// `rows` rows of `cols` weights of one type, whole panels of 16.
pub const InterleaveArgs = extern struct { address: u64, rows: u64, cols: u64, type_id: u32, reserved: u32 };

/// Brings rows into the layout `interleaved` where they are. Without rows: whether they may have it.
export fn tinfer_interleave(args: *const InterleaveArgs) i32 {
    const known = quant.fromId(args.type_id) orelse return fail(.unsupported, "no such type", .{});
    if (!interleave.fits(known, args.cols)) return fail(.unsupported, "such rows cannot be interleaved", .{});
    if (args.rows == 0) return ok;
    if (args.rows % interleave.panel_rows != 0) return fail(.invalid, "rows are not whole panels", .{});
    const panel_bytes = interleave.panel_rows * quant.rowBytes(args.type_id, args.cols);
    const panel = memory.allocate(panel_bytes, .small) catch {
        return fail(.out_of_memory, "{d} bytes of memory are not available", .{panel_bytes});
    };
    defer memory.release(panel);
    interleave.apply(known, @ptrFromInt(args.address), args.rows, args.cols, panel);
    return ok;
}

/// `pages`: memory.Pages. In, the bytes wanted; out, the region.
pub const AllocateArgs = extern struct { address: u64, bytes: u64, pages: memory.Pages, reserved: u32 };

/// Allocates zeroed memory, in whole pages.
export fn tinfer_allocate(args: *AllocateArgs) i32 {
    const region = memory.allocate(args.bytes, args.pages) catch {
        return fail(.out_of_memory, "{d} bytes of memory are not available", .{args.bytes});
    };
    args.address = @intFromPtr(region.ptr);
    args.bytes = region.len;
    return ok;
}

/// Releases what `tinfer_allocate` returned.
export fn tinfer_release(args: *AllocateArgs) i32 {
    if (args.address == 0) return ok;
    const start: [*]align(memory.page_bytes) u8 = @ptrFromInt(args.address);
    memory.release(start[0..args.bytes]);
    args.address = 0;
    args.bytes = 0;
    return ok;
}

/// Expands `count` weights of GGUF type `type_id` to f32. `variant`: index of the CPU variant, from
/// most portable; 0xffffffff = the best one.
pub const DequantizeArgs = extern struct { source: u64, output: u64, count: u64, type_id: u32, variant: u32 };

export fn tinfer_dequantize(args: *const DequantizeArgs) i32 {
    const variant = chooseVariant(args.variant) orelse return fail(.invalid, "unknown CPU variant", .{});
    const source: [*]const u8 = @ptrFromInt(args.source);
    const output: [*]f32 = @ptrFromInt(args.output);
    if (variant.dequantize(args.type_id, source, output, args.count)) return ok;
    return fail(.unsupported, "weight type {d} has no kernels", .{args.type_id});
}

/// Quantises `rows` rows; their first one is called `first_row` in errors.
pub const QuantizeArgs = extern struct {
    job: quantize.Job,
    rows: u64,
    first_row: u64,
    num_threads: u32,
    /// Index of the CPU variant, from most portable; 0xffffffff = the best one.
    variant: u32,
};

export fn tinfer_quantize(args: *const QuantizeArgs) i32 {
    const variant = chooseVariant(args.variant) orelse return fail(.invalid, "unknown CPU variant", .{});
    const job = &args.job;
    if (quantize_matrix.isFloat(job.source_type) == false) return fail(.unsupported, "weights of type {d} are not floats", .{job.source_type});
    if (quantize.rowBytes(job.type_id, job.cols) == 0) return fail(.unsupported, "no rows of {d} weights of type {d} are made", .{ job.cols, job.type_id });
    if (quantize_matrix.badImportance(job)) |column| return fail(.invalid, "the importance of column {d} is negative or not a number", .{column});
    const fault = quantize_matrix.run(variant, job, args.rows, args.num_threads) orelse return ok;
    const row = args.first_row + fault.row;
    if (std.math.isFinite(fault.value)) {
        return fail(.invalid, "row {d}, column {d} is {e}: the type ends at {e}", .{ row, fault.column, fault.value, fault.largest });
    }
    return fail(.invalid, "row {d}, column {d} is {s}", .{ row, fault.column, if (std.math.isNan(fault.value)) "NaN" else "infinite" });
}

/// Sums over the rows of a matrix, see row_sums.zig.
pub const RowSumArgs = extern struct {
    job: row_sums.Job,
    num_threads: u32,
    /// Index of the CPU variant, from most portable; 0xffffffff = the best one.
    variant: u32,
};

export fn tinfer_row_sums(args: *const RowSumArgs) i32 {
    const variant = chooseVariant(args.variant) orelse return fail(.invalid, "unknown CPU variant", .{});
    const job = &args.job;
    const known = quant.fromId(job.type_id) orelse return fail(.unsupported, "weight type {d} has no kernels", .{job.type_id});
    if (job.cols == 0 or job.cols % quant.blockLen(known) != 0) return fail(.invalid, "rows of {d} elements", .{job.cols});
    sum_matrix.run(variant, job, args.num_threads);
    return ok;
}

/// A loaded plan: in, what to load; out, what it needs and its handle.
pub const PlanArgs = extern struct {
    /// The binary form, 8-byte aligned; copied.
    plan_address: u64,
    plan_bytes: u64,
    arena_address: u64,
    kv_address: u64,
    /// A u32 that any thread may write the id of a step's request to, or `plan.cancel_all`, and so
    /// stop the step; 0 = the word that signals set (tinfer_catch_interrupts).
    cancel_address: u64,
    num_threads: u32,
    /// Index of the CPU variant, from most portable; 0xffffffff = the best one.
    variant: u32,
    /// Out: memory taken beside arena and KV pool.
    scratch_bytes: u64,
    handle: u64,
};

const Session = struct {
    plan_copy: []align(64) u8,
    scratch: []align(memory.page_bytes) u8,
    step: worker.Step,
    pool: pool_file.Pool,
};

fn chooseVariant(index: u32) ?*const dispatch.Variant {
    const best = dispatch.best();
    if (index == plan.none) return &dispatch.variants[best];
    return if (index <= best) &dispatch.variants[index] else null;
}

/// The size of scratch for `num_threads`, with the layout [shared | thread 0 | thread 1 | …].
fn scratchLayout(step: *const worker.Step, variant: *const dispatch.Variant, threads: u32) worker.ScratchNeed {
    var need: worker.ScratchNeed = .{};
    variant.scratch_need(step, threads, &need);
    return .{
        .shared_bytes = std.mem.alignForward(u64, need.shared_bytes, memory.page_bytes),
        .thread_bytes = std.mem.alignForward(u64, need.thread_bytes, memory.page_bytes),
    };
}

fn scratchBytes(need: worker.ScratchNeed, num_threads: u32) u64 {
    return memory.allocatedBytes(need.shared_bytes + need.thread_bytes * num_threads);
}

/// Checks the plan and fills in `scratch_bytes` without taking any memory.
export fn tinfer_plan_measure(args: *PlanArgs) i32 {
    const variant = chooseVariant(args.variant) orelse return fail(.invalid, "unknown CPU variant", .{});
    var step: worker.Step = undefined;
    const source: [*]align(8) const u8 = @ptrFromInt(args.plan_address);
    if (plan_check.open(source[0..args.plan_bytes], &step)) |problem| return fail(.invalid, "plan: {s}", .{problem});
    const need = scratchLayout(&step, variant, args.num_threads);
    args.scratch_bytes = scratchBytes(need, args.num_threads);
    return ok;
}

export fn tinfer_plan_load(args: *PlanArgs) i32 {
    if (args.num_threads == 0 or args.num_threads > pool_file.max_threads) {
        return fail(.invalid, "threads must be 1 to {d}", .{pool_file.max_threads});
    }
    const variant = chooseVariant(args.variant) orelse return fail(.invalid, "unknown CPU variant", .{});
    const gpa = memory.allocator;
    const session = gpa.create(Session) catch return fail(.out_of_memory, "out of memory", .{});
    loadSession(session, args, variant) catch |err| {
        gpa.destroy(session);
        return switch (err) {
            error.Invalid => @intFromEnum(Status.invalid),
            error.OutOfMemory => fail(.out_of_memory, "out of memory while loading the plan", .{}),
            error.Threads => fail(.failed, "{d} threads could not be started", .{args.num_threads}),
        };
    };
    args.scratch_bytes = session.scratch.len;
    args.handle = @intFromPtr(session);
    return ok;
}

fn loadSession(session: *Session, args: *PlanArgs, variant: *const dispatch.Variant) !void {
    const gpa = memory.allocator;
    const source: [*]align(8) const u8 = @ptrFromInt(args.plan_address);
    session.plan_copy = try gpa.alignedAlloc(u8, .@"64", args.plan_bytes);
    errdefer gpa.free(session.plan_copy);
    @memcpy(session.plan_copy, source[0..args.plan_bytes]);
    if (plan_check.open(session.plan_copy, &session.step)) |problem| {
        _ = fail(.invalid, "plan: {s}", .{problem});
        return error.Invalid;
    }
    plan.linkScales(ownWeights(session));
    const need = scratchLayout(&session.step, variant, args.num_threads);
    session.scratch = try memory.allocate(scratchBytes(need, args.num_threads), .huge);
    errdefer memory.release(session.scratch);
    session.step.arena = @ptrFromInt(args.arena_address);
    session.step.kv = @ptrFromInt(args.kv_address);
    session.step.cancel_word = if (args.cancel_address == 0) &interrupt.word else @ptrFromInt(args.cancel_address);
    session.step.scratch = session.scratch[0..need.shared_bytes];
    session.pool = .{
        .variant = variant,
        .num_threads = args.num_threads,
        .scratch = @alignCast(session.scratch[need.shared_bytes..][0 .. need.thread_bytes * args.num_threads]),
    };
    session.pool.start() catch return error.Threads;
}

/// The table of weights, which lies in `plan_copy`.
fn ownWeights(session: *Session) []plan.Weight {
    return @constCast(session.step.weights);
}

/// The addresses of all weights, u64 each, and their layouts, u32 each, in the plan's order.
pub const WeightArgs = extern struct { handle: u64, addresses: u64, layouts: u64, count: u64 };

/// Moves the plan's weights to other addresses with the same weights; between two steps.
export fn tinfer_plan_move_weights(args: *const WeightArgs) i32 {
    const session: *Session = @ptrFromInt(args.handle);
    const weights = ownWeights(session);
    if (args.count != weights.len) return fail(.invalid, "{d} addresses for {d} weights", .{ args.count, weights.len });
    const addresses: [*]const u64 = @ptrFromInt(args.addresses);
    const layouts: [*]const plan.Layout = @ptrFromInt(args.layouts);
    for (weights, layouts) |*weight, layout| {
        if (!plan_check.hasLayout(weight, layout)) return fail(.invalid, "weight cannot be interleaved", .{});
    }
    for (weights, addresses, layouts) |*weight, address, layout| {
        weight.address = address;
        weight.layout = layout;
    }
    plan.linkScales(weights);
    return ok;
}

/// `times_address`: 0, or clock.OpTime [threads][ops] to which the step adds what its ops take.
/// `expert_counts_address`: 0, or u64 for each expert of every route op in the plan's order, to
/// which the step adds its choices.
pub const StepArgs = extern struct { handle: u64, step_address: u64, times_address: u64, expert_counts_address: u64 };

/// Runs one step; returns when its results are in the step's arrays.
export fn tinfer_step(args: *const StepArgs) i32 {
    const session: *Session = @ptrFromInt(args.handle);
    session.step.data = @ptrFromInt(args.step_address);
    session.step.times = @ptrFromInt(args.times_address);
    session.step.expert_counts = @ptrFromInt(args.expert_counts_address);
    if (plan_check.checkStep(&session.step)) |problem| return fail(.invalid, "step: {s}", .{problem});
    return if (session.pool.runStep(&session.step)) ok else @intFromEnum(Status.stopped);
}

pub const TuneArgs = extern struct { handle: u64, tuning: Tuning };

/// Replaces the plan's tuning between two steps; results keep their bits.
export fn tinfer_plan_tune(args: *const TuneArgs) i32 {
    if (!args.tuning.isValid()) return fail(.invalid, "tuning out of bounds", .{});
    const session: *Session = @ptrFromInt(args.handle);
    session.pool.tune(args.tuning);
    return ok;
}

/// `count` CPU numbers, u32 each: one per thread of the plan.
pub const PinArgs = extern struct { handle: u64, cpus: u64, count: u64 };

/// Pins each of the plan's threads to its CPU; the calling thread, which is the first, to all of
/// them, because it does other things too and hands its place on to threads that it starts.
export fn tinfer_plan_pin(args: *const PinArgs) i32 {
    const session: *Session = @ptrFromInt(args.handle);
    const all: [*]const u32 = @ptrFromInt(args.cpus);
    const cpus = all[0..args.count];
    session.pool.pin(cpus) catch |err| return switch (err) {
        error.Unsupported => fail(.unsupported, "threads cannot be pinned on this system", .{}),
        error.Refused => fail(.invalid, "not all of these CPUs are open to this process", .{}),
    };
    return ok;
}

/// Memory that this thread and threads started by it use first comes from the nodes in turn.
export fn tinfer_interleave_memory(node_mask: *const u64) i32 {
    placement.interleave(node_mask.*) catch |err| return switch (err) {
        error.Unsupported => fail(.unsupported, "memory nodes cannot be chosen on this system", .{}),
        error.Refused => fail(.access_denied, "this process may not choose memory nodes", .{}),
    };
    return ok;
}

/// From now on SIGINT and SIGTERM also stop running steps at once, before the handlers that the
/// process has for them. Call it after those were set.
export fn tinfer_catch_interrupts() i32 {
    interrupt.install();
    return ok;
}

/// 1 once a signal has come that `tinfer_catch_interrupts` watches for.
export fn tinfer_is_interrupted() u32 {
    return @intFromBool(interrupt.isRaised());
}

/// Steps run again.
export fn tinfer_clear_interrupt() i32 {
    interrupt.clear();
    return ok;
}

/// How many allocations the library has made so far; a step makes none.
export fn tinfer_allocation_count(count: *u64) i32 {
    count.* = memory.num_allocations.load(.monotonic);
    return ok;
}

pub const ProbeArgs = extern struct { handle: u64, probe: Probe };

/// Measures a limit of the machine with the plan's threads; fills in the probe's results.
export fn tinfer_probe(args: *ProbeArgs) i32 {
    const session: *Session = @ptrFromInt(args.handle);
    const threads = args.probe.num_threads;
    if (threads == 0 or threads > session.pool.num_threads) return fail(.invalid, "probe: {d} threads", .{threads});
    _ = session.pool.run(.{ .probe = &args.probe });
    return ok;
}

pub const Handle = extern struct { handle: u64 };

/// Stops the plan's threads and releases its scratch; arena and KV pool stay the caller's.
export fn tinfer_plan_release(args: *Handle) i32 {
    if (args.handle == 0) return ok;
    const session: *Session = @ptrFromInt(args.handle);
    session.pool.stop();
    memory.release(session.scratch);
    memory.allocator.free(session.plan_copy);
    memory.allocator.destroy(session);
    args.handle = 0;
    return ok;
}
