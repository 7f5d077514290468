//! Root of one CPU variant: walks the plan's ops, and exports the variant's entry points.
//! Compiled once per variant, in an object beside those of attention.zig, panels.zig and
//! offline.zig; kernels/dispatch.zig picks one variant at start.
const clock = @import("clock.zig");
const exports = @import("exports.zig");
const plan = @import("plan.zig");
const probe = @import("probe.zig");
const worker_file = @import("worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

const embed = @import("cpu/embed.zig");
const gather_rows = @import("cpu/gather_rows.zig");
const norm = @import("cpu/norm.zig");
const linear = @import("cpu/linear.zig");
const linear_glu = @import("cpu/linear_glu.zig");
const rotations = @import("cpu/rotations.zig");
const qkv_prep = @import("cpu/qkv_prep.zig");
const attention_paged = @import("cpu/attention_paged.zig");
const route = @import("cpu/route.zig");
const scale_slots = @import("cpu/scale_slots.zig");
const expert_glu = @import("cpu/expert_glu.zig");
const expert_linear = @import("cpu/expert_linear.zig");
const sample = @import("cpu/sample.zig");
const unary = @import("cpu/unary.zig");
const add = @import("cpu/add.zig");
const glu = @import("cpu/glu.zig");
const position_scale = @import("cpu/position_scale.zig");
const adapter_scale = @import("cpu/adapter_scale.zig");
const copy_columns = @import("cpu/copy_columns.zig");
const slot_linear = @import("cpu/slot_linear.zig");
const sum_slots = @import("cpu/sum_slots.zig");
const magnitude = @import("cpu/magnitude.zig");

/// Runs every op of the plan; called by all threads of the pool at once.
fn runStep(step: *const Step, worker: *Worker) callconv(.c) void {
    var timer: ?Timer = if (step.timesOf(worker.index)) |times| .start(times) else null;
    worker.timed = timer != null;
    var next: usize = 0;
    while (next < step.ops.len) {
        const index = next;
        next += 1;
        while (next < step.ops.len and isSmall(step, &step.ops[next])) next += 1;
        if (next < step.ops.len) askAhead(step, &step.ops[next], worker);
        runOp(step, &step.ops[index], worker);
        if (worker.arrive()) {
            if (timer) |*running| worker.shared.alone_since_ns = running.endOp(index, worker);
            // Too little to share: one thread does it while the others wait for it anyway.
            for (index + 1..next) |small| {
                runAlone(step, &step.ops[small], worker);
                if (timer) |*running| _ = running.endOp(small, worker);
            }
            worker.release();
        } else if (timer) |*running| running.endWait(index, next, worker);
        if (worker.stopped) return;
    }
}

/// From the object of kernels/attention.zig.
const run_attention = exports.imported(@TypeOf(attention_paged.run), "run_attention");

fn runOp(step: *const Step, op: *const plan.Op, worker: *Worker) void {
    switch (op.opcode) {
        .embed => embed.run(step, op.as(plan.Embed), worker),
        .gather_rows => gather_rows.run(step, op.as(plan.GatherRows), worker),
        .norm => norm.run(step, op.as(plan.Norm), worker),
        .linear => linear.run(step, op.as(plan.Linear), worker),
        .linear_glu => linear_glu.run(step, op.as(plan.LinearGlu), worker),
        .rotations => rotations.run(step, op.as(plan.Rotations), worker),
        .qkv_prep => qkv_prep.run(step, op.as(plan.QkvPrep), worker),
        .attention_paged => run_attention(step, op.as(plan.AttentionPaged), worker),
        .sample => sample.run(step, op.as(plan.Sample), worker),
        .route => route.run(step, op.as(plan.Route), worker),
        .scale_slots => scale_slots.run(step, op.as(plan.ScaleSlots), worker),
        .expert_glu => expert_glu.run(step, op.as(plan.ExpertGlu), worker),
        .expert_linear => expert_linear.run(step, op.as(plan.ExpertLinear), worker),
        .unary => unary.run(step, op.as(plan.Unary), worker),
        .add => add.run(step, op.as(plan.Add), worker),
        .glu => glu.run(step, op.as(plan.Glu), worker),
        .position_scale => position_scale.run(step, op.as(plan.PositionScale), worker),
        .adapter_scale => adapter_scale.run(step, op.as(plan.AdapterScale), worker),
        .copy_columns => copy_columns.run(step, op.as(plan.CopyColumns), worker),
        .slot_linear => slot_linear.run(step, op.as(plan.SlotLinear), worker),
        .sum_slots => sum_slots.run(step, op.as(plan.SumSlots), worker),
        .magnitude => magnitude.run(step, op.as(plan.Magnitude), worker),
        _ => unreachable, // plan_check.zig refuses unknown opcodes at load
    }
}

/// Has memory read that the next op which all threads run will wait for, while they run this one.
fn askAhead(step: *const Step, op: *const plan.Op, worker: *const Worker) void {
    if (op.opcode == .qkv_prep) qkv_prep.askAhead(step, op.as(plan.QkvPrep), worker);
}

/// The whole op on the calling thread, at a moment when all others wait.
fn runAlone(step: *const Step, op: *const plan.Op, worker: *const Worker) void {
    // Its ranges take long to fill, and one thread uses only its own, which a phase sets.
    var shared: worker_file.Shared = undefined;
    shared.tuning = worker.shared.tuning;
    shared.generation = .init(1);
    var alone = worker.*;
    alone.shared = &shared;
    alone.index = 0;
    alone.count = 1;
    runOp(step, op, &alone);
}

/// Elements that one thread moves in about the time of a barrier (1 to 2 us).
const small_elements = 16 * 1024;
/// What the cosine and sine of one angle cost, in elements moved.
const rotation_cost = 32;
/// What an exponential costs.
const function_cost = 4;
/// What it costs to rank one expert.
const route_cost = 32;

fn isSmall(step: *const Step, op: *const plan.Op) bool {
    const elements = switch (op.opcode) {
        .embed => elementsOf(step, op.as(plan.Embed).output),
        .gather_rows => elementsOf(step, op.as(plan.GatherRows).output),
        .norm => elementsOf(step, op.as(plan.Norm).output),
        .rotations => rotation_cost * elementsOf(step, op.as(plan.Rotations).output),
        .route => route_cost * elementsOf(step, op.as(plan.Route).logits),
        .scale_slots => elementsOf(step, op.as(plan.ScaleSlots).output),
        .add => elementsOf(step, op.as(plan.Add).output),
        .copy_columns => elementsOf(step, op.as(plan.CopyColumns).output),
        .adapter_scale => elementsOf(step, op.as(plan.AdapterScale).output),
        .sum_slots => elementsOf(step, op.as(plan.SumSlots).input),
        .magnitude => function_cost * elementsOf(step, op.as(plan.Magnitude).output),
        .position_scale => elementsOf(step, op.as(plan.PositionScale).output),
        .unary => function_cost * elementsOf(step, op.as(plan.Unary).output),
        .glu => function_cost * elementsOf(step, op.as(plan.Glu).output),
        else => return false,
    };
    return elements <= small_elements;
}

fn elementsOf(step: *const Step, tensor: u32) u64 {
    return @as(u64, step.rows(tensor)) * step.tensors[tensor].width;
}

/// Adds up what each op takes on its thread, without a gap between ops.
const Timer = struct {
    times: []clock.OpTime,
    op_start: u64,

    fn start(times: []clock.OpTime) Timer {
        return .{ .times = times, .op_start = clock.now() };
    }

    /// Returns the time at which the op ended.
    fn endOp(timer: *Timer, index: usize, worker: *Worker) u64 {
        const end = clock.now();
        timer.add(index, end, worker.waited_ns);
        worker.waited_ns = 0;
        return end;
    }

    /// Ends op `index` and the small ones up to `end` that another thread ran meanwhile.
    fn endWait(timer: *Timer, index: usize, end: usize, worker: *Worker) void {
        if (end == index + 1) {
            _ = timer.endOp(index, worker);
            return;
        }
        const alone = clock.now() -| worker.shared.alone_since_ns;
        const each = alone / (end - index - 1);
        timer.add(index, worker.shared.alone_since_ns, worker.waited_ns -| alone);
        for (index + 1..end) |small| timer.add(small, timer.op_start + each, each);
        worker.waited_ns = 0;
    }

    fn add(timer: *Timer, index: usize, end: u64, waited_ns: u64) void {
        timer.times[index].wall_ns += end -| timer.op_start;
        timer.times[index].waited_ns += waited_ns;
        timer.op_start = end;
    }
};

/// Memory that the ops need beside the arena, for the plan's largest step.
fn scratchNeed(step: *const Step, num_threads: u32, need: *ScratchNeed) callconv(.c) void {
    var total: ScratchNeed = .{};
    for (step.ops) |*op| {
        const own: ScratchNeed = switch (op.opcode) {
            .linear => linear.scratchNeed(step, op.as(plan.Linear)),
            .linear_glu => linear_glu.scratchNeed(step, op.as(plan.LinearGlu)),
            .attention_paged => attention_paged.scratchNeed(
                step,
                op.as(plan.AttentionPaged),
                num_threads,
            ),
            .sample => sample.scratchNeed(step, op.as(plan.Sample), num_threads),
            .expert_glu => expert_glu.scratchNeed(step, op.as(plan.ExpertGlu)),
            .expert_linear => expert_linear.scratchNeed(step, op.as(plan.ExpertLinear)),
            .slot_linear => slot_linear.scratchNeed(step, op.as(plan.SlotLinear)),
            else => .{},
        };
        total = total.largest(own);
    }
    need.* = total;
}

comptime {
    @export(&runStep, exports.named("run_step"));
    @export(&scratchNeed, exports.named("scratch_need"));
    @export(&probe.run, exports.named("run_probe"));
}
