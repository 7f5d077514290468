//! Runs recorded steps again on every CPU variant of this machine and counts the results whose
//! bits differ: how kernels are checked on a CPU that only an emulator has. The recordings are
//! written by test/kernel/recording.ts; the arguments are their paths.
const std = @import("std");
const abi = @import("abi.zig");
const dispatch = @import("dispatch.zig");
const memory = @import("memory.zig");
const plan = @import("plan.zig");

// The library's own entry points, linked into this program.
extern fn tinfer_plan_load(args: *abi.PlanArgs) i32;
extern fn tinfer_step(args: *const abi.StepArgs) i32;
extern fn tinfer_plan_release(args: *abi.Handle) i32;
extern fn tinfer_last_error(buffer: [*]u8, capacity: u32) i32;
comptime {
    _ = abi;
}

const magic: u32 = 0x43455254; // "TREC"
const version: u32 = 1;

/// Offsets are bytes from the start of the file and multiples of 64.
const Header = extern struct {
    magic: u32,
    version: u32,
    num_weights: u32,
    num_steps: u32,
    plan_offset: u64,
    plan_bytes: u64,
    /// u64 [num_weights]: where each weight of the plan lies in the file.
    weights_offset: u64,
    /// Recorded [num_steps]
    steps_offset: u64,
    arena_bytes: u64,
    kv_bytes: u64,
};

const Recorded = extern struct {
    /// The step's own arrays (plan.StepHeader and what follows).
    step_offset: u64,
    step_bytes: u64,
    /// The result: its place in the arena, its f32 in the file, and how many they are.
    arena_offset: u64,
    expected_offset: u64,
    count: u64,
    /// Values by another implementation, or 0.
    reference_offset: u64,
};

const thread_counts = [_]u32{ 1, 3 };

pub fn main(init: std.process.Init.Minimal) u8 {
    var arguments = std.process.Args.Iterator.init(init.args);
    _ = arguments.next();
    var failed = false;
    while (arguments.next()) |path| {
        var file: memory.MappedFile = .{};
        memory.mapFile(path.ptr, &file) catch |err| {
            std.debug.print("{s}: {s}\n", .{ path, @errorName(err) });
            return 2;
        };
        defer memory.unmapFile(&file);
        for (dispatch.variants[0 .. dispatch.best() + 1], 0..) |variant, index| {
            for (thread_counts) |threads| {
                const start: [*]const u8 = @ptrFromInt(file.address);
                const sum = replay(start, @intCast(index), threads) catch |err| {
                    std.debug.print("{s}: {s}: {s}\n", .{ path, @errorName(err), lastError() });
                    return 2;
                };
                failed = failed or sum.num_different > 0;
                std.debug.print("{s} {s} {d} {d} {d} {e}\n", .{
                    path,              variant.name, threads, sum.count,
                    sum.num_different, sum.nmse(),
                });
            }
        }
    }
    return if (failed) 1 else 0;
}

fn lastError() []const u8 {
    const storage = struct {
        var text: [512]u8 = undefined;
    };
    return storage.text[0..@intCast(tinfer_last_error(&storage.text, storage.text.len))];
}

const Comparison = struct {
    count: u64 = 0,
    num_different: u64 = 0,
    /// Against the reference of another implementation.
    error_power: f64 = 0,
    power: f64 = 0,

    fn nmse(sum: Comparison) f64 {
        return if (sum.power == 0) 0 else sum.error_power / sum.power;
    }
};

fn replay(file: [*]const u8, variant: u32, threads: u32) !Comparison {
    const header: *const Header = @ptrCast(@alignCast(file));
    if (header.magic != magic or header.version != version) return error.NotARecording;
    const plan_bytes = try memory.allocate(header.plan_bytes, .huge);
    defer memory.release(plan_bytes);
    @memcpy(plan_bytes[0..header.plan_bytes], file + header.plan_offset);
    placeWeights(file, header, plan_bytes);
    const arena = try memory.allocate(header.arena_bytes, .huge);
    defer memory.release(arena);
    const kv = try memory.allocate(header.kv_bytes, .huge);
    defer memory.release(kv);

    var args: abi.PlanArgs = .{
        .plan_address = @intFromPtr(plan_bytes.ptr),
        .plan_bytes = header.plan_bytes,
        .arena_address = @intFromPtr(arena.ptr),
        .kv_address = @intFromPtr(kv.ptr),
        .cancel_address = 0,
        .num_threads = threads,
        .variant = variant,
        .scratch_bytes = 0,
        .handle = 0,
    };
    if (tinfer_plan_load(&args) != 0) return error.PlanRefused;
    var handle: abi.Handle = .{ .handle = args.handle };
    defer _ = tinfer_plan_release(&handle);

    var sum: Comparison = .{};
    const steps: [*]const Recorded = @ptrCast(@alignCast(file + header.steps_offset));
    for (steps[0..header.num_steps]) |*recorded| {
        const step = try memory.allocate(recorded.step_bytes, .huge);
        defer memory.release(step);
        @memcpy(step[0..recorded.step_bytes], file + recorded.step_offset);
        const step_args: abi.StepArgs = .{
            .handle = args.handle,
            .step_address = @intFromPtr(step.ptr),
            .times_address = 0,
            .expert_counts_address = 0,
        };
        if (tinfer_step(&step_args) != 0) return error.StepRefused;
        compare(file, recorded, arena.ptr, &sum);
    }
    return sum;
}

/// Writes the weights' addresses into the plan.
fn placeWeights(file: [*]const u8, header: *const Header, plan_bytes: []align(64) u8) void {
    const plan_header: *const plan.Header = @ptrCast(plan_bytes.ptr);
    std.debug.assert(plan_header.num_weights == header.num_weights);
    const tensors = @as(u64, plan_header.num_tensors) * @sizeOf(plan.Tensor);
    const start = plan_bytes.ptr + @sizeOf(plan.Header) + tensors;
    const table: [*]plan.Weight = @ptrCast(@alignCast(start));
    const offsets: [*]const u64 = @ptrCast(@alignCast(file + header.weights_offset));
    for (table[0..header.num_weights], offsets) |*weight, offset| {
        weight.address = @intFromPtr(file) + offset;
    }
}

fn floats(start: [*]const u8, offset: u64) [*]const f32 {
    return @ptrCast(@alignCast(start + offset));
}

fn compare(
    file: [*]const u8,
    recorded: *const Recorded,
    arena: [*]const u8,
    sum: *Comparison,
) void {
    const actual = floats(arena, recorded.arena_offset);
    const expected = floats(file, recorded.expected_offset);
    sum.count += recorded.count;
    for (0..recorded.count) |i| {
        const a: u32 = @bitCast(actual[i]);
        const b: u32 = @bitCast(expected[i]);
        if (a != b) sum.num_different += 1;
        if (recorded.reference_offset == 0) continue;
        const wanted: f64 = floats(file, recorded.reference_offset)[i];
        sum.error_power += (actual[i] - wanted) * (actual[i] - wanted);
        sum.power += wanted * wanted;
    }
}
