//! Root of one CPU variant: walks the plan's ops, and exports the variant's entry points.
//! Compiled once per variant; kernels/dispatch.zig picks one at start.
const std = @import("std");
const variant = @import("variant").name;
const clock = @import("clock.zig");
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
const quant = @import("quant/quant.zig");
const quantize = @import("quantize/quantize.zig");

/// Runs every op of the plan; called by all threads of the pool at once.
fn runStep(step: *const Step, worker: *Worker) callconv(.c) void {
    var timer: ?Timer = if (step.timesOf(worker.index)) |times| .start(times) else null;
    worker.timed = timer != null;
    for (step.ops, 0..) |*op, index| {
        switch (op.opcode) {
            .embed => embed.run(step, op.as(plan.Embed), worker),
            .gather_rows => gather_rows.run(step, op.as(plan.GatherRows), worker),
            .norm => norm.run(step, op.as(plan.Norm), worker),
            .linear => linear.run(step, op.as(plan.Linear), worker),
            .linear_glu => linear_glu.run(step, op.as(plan.LinearGlu), worker),
            .rotations => rotations.run(step, op.as(plan.Rotations), worker),
            .qkv_prep => qkv_prep.run(step, op.as(plan.QkvPrep), worker),
            .attention_paged => attention_paged.run(step, op.as(plan.AttentionPaged), worker),
            .sample => sample.run(step, op.as(plan.Sample), worker),
            .route => route.run(step, op.as(plan.Route), worker),
            .scale_slots => scale_slots.run(step, op.as(plan.ScaleSlots), worker),
            .expert_glu => expert_glu.run(step, op.as(plan.ExpertGlu), worker),
            .expert_linear => expert_linear.run(step, op.as(plan.ExpertLinear), worker),
            _ => unreachable, // plan_check.zig refuses unknown opcodes at load
        }
        if (timer) |*running| running.endOp(index, worker);
        if (worker.stopped) return;
    }
}

/// Adds up what each op takes on its thread, without a gap between ops.
const Timer = struct {
    times: []clock.OpTime,
    op_start: u64,

    fn start(times: []clock.OpTime) Timer {
        return .{ .times = times, .op_start = clock.now() };
    }

    fn endOp(timer: *Timer, index: usize, worker: *Worker) void {
        const end = clock.now();
        timer.times[index].wall_ns += end - timer.op_start;
        timer.times[index].waited_ns += worker.waited_ns;
        timer.op_start = end;
        worker.waited_ns = 0;
    }
};

/// Memory that the ops need beside the arena, for the plan's largest step.
fn scratchNeed(step: *const Step, num_threads: u32, need: *ScratchNeed) callconv(.c) void {
    var total: ScratchNeed = .{};
    for (step.ops) |*op| {
        const own: ScratchNeed = switch (op.opcode) {
            .linear => linear.scratchNeed(step, op.as(plan.Linear), num_threads),
            .linear_glu => linear_glu.scratchNeed(step, op.as(plan.LinearGlu), num_threads),
            .attention_paged => attention_paged.scratchNeed(
                step,
                op.as(plan.AttentionPaged),
                num_threads,
            ),
            .sample => sample.scratchNeed(step, op.as(plan.Sample), num_threads),
            .expert_glu => expert_glu.scratchNeed(step, op.as(plan.ExpertGlu)),
            .expert_linear => expert_linear.scratchNeed(step, op.as(plan.ExpertLinear)),
            else => .{},
        };
        total = total.largest(own);
    }
    need.* = total;
}

/// Expands `count` weights of GGUF type `type_id` from `source`; false for an unknown type.
fn dequantize(type_id: u32, source: [*]const u8, output: [*]f32, count: u64) callconv(.c) bool {
    return quant.dequantize(type_id, source, output[0..count]);
}

/// Quantises rows of a matrix; false and `fault` at the first element that the type cannot hold.
fn quantizeRows(
    job: *const quantize.Job,
    first: u64,
    count: u64,
    fault: *quantize.Fault,
) callconv(.c) bool {
    return quantize.quantizeRows(job, first, count, fault);
}

comptime {
    const options = struct {
        fn named(comptime name: []const u8) std.builtin.ExportOptions {
            return .{ .name = variant ++ "_" ++ name, .visibility = .hidden };
        }
    };
    @export(&runStep, options.named("run_step"));
    @export(&scratchNeed, options.named("scratch_need"));
    @export(&dequantize, options.named("dequantize"));
    @export(&quantizeRows, options.named("quantize_rows"));
    @export(&probe.run, options.named("run_probe"));
}
