//! Builds libtinfer: one shared library that holds the kernels compiled once per CPU variant.
//! `zig build -Doptimize=ReleaseFast` installs it; `zig build test` runs the kernels' own tests;
//! `zig build replay` builds the program that replays recorded steps.
const std = @import("std");
const builtin = @import("builtin");

comptime {
    const wanted = std.SemanticVersion{ .major = 0, .minor = 16, .patch = 0 };
    if (builtin.zig_version.order(wanted) != .eq) @compileError("tinfer is built with Zig 0.16.0");
}

const Variant = struct {
    name: []const u8,
    x86_model: ?*const std.Target.Cpu.Model = null,
    x86_add: []const std.Target.x86.Feature = &.{},
    /// What kernels/dispatch.zig asks of a CPU before it takes the variant, for tests.
    x86_needs: []const std.Target.x86.Feature = &.{},
    arm_add: []const std.Target.aarch64.Feature = &.{},
};

const v3_needs = [_]std.Target.x86.Feature{ .avx2, .bmi, .bmi2, .f16c, .fma };
const v4_add = [_]std.Target.x86.Feature{
    .avx512vnni, .avx512bf16, .avx512vbmi, .avx512vbmi2, .gfni,
};

/// The names are ABI: `TINFER_CPU` takes them and kernels/dispatch.zig orders them the same way.
const x86_variants = [_]Variant{
    .{ .name = "v2", .x86_model = &std.Target.x86.cpu.x86_64_v2 },
    .{ .name = "v3", .x86_model = &std.Target.x86.cpu.x86_64_v3, .x86_needs = &v3_needs },
    .{
        .name = "v4",
        .x86_model = &std.Target.x86.cpu.x86_64_v4,
        .x86_add = &v4_add,
        .x86_needs = &(v3_needs ++ v4_add ++ [_]std.Target.x86.Feature{
            .avx512f, .avx512bw, .avx512cd, .avx512dq, .avx512vl,
        }),
    },
};
const arm_variants = [_]Variant{
    .{ .name = "neon" },
    .{ .name = "dotprod", .arm_add = &.{ .dotprod, .fullfp16 } },
    .{ .name = "i8mm", .arm_add = &.{ .dotprod, .fullfp16, .i8mm, .bf16 } },
};

/// Files of kernels/ that each make an object of a CPU variant, the largest first.
const roots = [_][]const u8{ "executor", "panels", "attention", "offline" };

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{});
    const only = b.option([]const u8, "variant", "Compile this CPU variant alone (development)");

    const library = b.addLibrary(.{
        .name = "tinfer",
        .linkage = .dynamic,
        .root_module = rootModule(b, target, optimize, only),
    });
    b.installArtifact(library);

    addTests(b, target, optimize);
    addReplay(b, target, optimize);
    keepCoresBusy(b);
}

/// Lets Zig's runner start all steps that are ready. By itself it has a thread for every core but
/// one and takes a step on its own thread when those are busy; meanwhile it hands out nothing, so
/// that one of two cores stands idle while the other compiles for a minute.
fn keepCoresBusy(b: *std.Build) void {
    if (b.graph.max_jobs != null) return; // `-j` asks for a number
    const runner: *std.Io.Threaded = @ptrCast(@alignCast(b.graph.io.userdata));
    runner.setAsyncLimit(.limited(64));
}

/// `zig build test`: the library's own tests, and the kernels' for each CPU variant that this
/// machine runs.
fn addTests(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) void {
    const test_step = b.step("test", "Run the tests of the native code");
    const tests = b.addTest(.{ .root_module = rootModule(b, target, optimize, null) });
    const run_tests = b.addRunArtifact(tests);
    run_tests.skip_foreign_checks = true;
    test_step.dependOn(&run_tests.step);

    for (variantsOf(target)) |variant| {
        if (!runsHere(b, target, variant)) continue;
        const kernel_tests = b.addTest(.{
            .name = b.fmt("test_{s}", .{variant.name}),
            .use_llvm = true,
            .root_module = variantModule(b, target, .ReleaseSafe, variant, "tests"),
        });
        test_step.dependOn(&b.addRunArtifact(kernel_tests).step);
    }
}

fn runsHere(b: *std.Build, target: std.Build.ResolvedTarget, variant: Variant) bool {
    const host = b.graph.host.result;
    const wanted = target.result;
    if (host.cpu.arch != wanted.cpu.arch or host.os.tag != wanted.os.tag) return false;
    // A CPU model's own set has tuning hints too, which say nothing of what runs.
    const needs = switch (host.cpu.arch) {
        .x86_64 => std.Target.x86.featureSet(variant.x86_needs),
        .aarch64 => std.Target.aarch64.featureSet(variant.arm_add),
        else => unreachable,
    };
    return host.cpu.features.isSuperSetOf(needs);
}

/// `zig build replay`: the program that runs recorded steps again, for scripts/check-aarch64.ts.
fn addReplay(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) void {
    const module = rootModule(b, target, optimize, null);
    module.root_source_file = b.path("kernels/replay.zig");
    const program = b.addExecutable(.{ .name = "replay", .root_module = module, .use_llvm = true });
    const install = b.addInstallArtifact(program, .{});
    b.step("replay", "Build the program that replays recorded steps").dependOn(&install.step);
}

/// The library with all CPU variants, or with `only` one of them.
fn rootModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    only: ?[]const u8,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path("kernels/abi.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        .strip = optimize != .Debug,
    });
    const included = b.addOptions();
    inline for (.{ x86_variants, arm_variants }) |variants| for (variants) |variant| {
        const name = variant.name;
        included.addOption(bool, name, only == null or std.mem.eql(u8, only.?, name));
    };
    module.addOptions("included", included);
    // As many at a time as there are cores: each waits for the one that far before it.
    const cores = std.Thread.getCpuCount() catch 1;
    var objects: std.ArrayList(*std.Build.Step.Compile) = .empty;
    for (roots) |root| for (variantsOf(target)) |variant| {
        if (only) |name| if (!std.mem.eql(u8, name, variant.name)) continue;
        const object = b.addObject(.{
            .name = b.fmt("{s}_{s}", .{ root, variant.name }),
            .root_module = variantModule(b, target, optimize, variant, root),
            .use_llvm = true,
        });
        if (objects.items.len >= cores) {
            object.step.dependOn(&objects.items[objects.items.len - cores].step);
        }
        objects.append(b.allocator, object) catch @panic("OOM");
        module.addObject(object);
    };
    return module;
}

fn variantsOf(target: std.Build.ResolvedTarget) []const Variant {
    return switch (target.result.cpu.arch) {
        .x86_64 => &x86_variants,
        .aarch64 => &arm_variants,
        else => @panic("tinfer has kernels for x86-64 and aarch64"),
    };
}

/// `target` with the instructions of `variant`.
fn variantTarget(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    variant: Variant,
) std.Build.ResolvedTarget {
    var query: std.Target.Query = .{
        .cpu_arch = target.result.cpu.arch,
        .os_tag = target.result.os.tag,
        .abi = target.result.abi,
        .glibc_version = target.query.glibc_version,
    };
    if (variant.x86_model) |model| {
        query.cpu_model = .{ .explicit = model };
        query.cpu_features_add = std.Target.x86.featureSet(variant.x86_add);
    } else {
        query.cpu_model = .baseline;
        query.cpu_features_add = std.Target.aarch64.featureSet(variant.arm_add);
    }
    return b.resolveTargetQuery(query);
}

/// kernels/`root`.zig for the CPU of `variant`, whose name it imports: instructions do not tell it,
/// since macOS has dot products from the baseline on.
fn variantModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    variant: Variant,
    root: []const u8,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(b.fmt("kernels/{s}.zig", .{root})),
        .target = variantTarget(b, target, variant),
        .optimize = optimize,
        .pic = true,
        .strip = optimize != .Debug,
        .link_libc = true,
    });
    const options = b.addOptions();
    options.addOption([]const u8, "name", variant.name);
    module.addOptions("variant", options);
    return module;
}
