//! Builds libtinfer: one shared library that holds the kernels compiled once per CPU variant.
//! `zig build -Doptimize=ReleaseFast` installs it; `zig build test` runs the kernels' own tests.
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
    arm_add: []const std.Target.aarch64.Feature = &.{},
};

/// The names are ABI: `TINFER_CPU` takes them and kernels/dispatch.zig orders them the same way.
const x86_variants = [_]Variant{
    .{ .name = "v2", .x86_model = &std.Target.x86.cpu.x86_64_v2 },
    .{ .name = "v3", .x86_model = &std.Target.x86.cpu.x86_64_v3 },
    .{
        .name = "v4",
        .x86_model = &std.Target.x86.cpu.x86_64_v4,
        .x86_add = &.{ .avx512vnni, .avx512bf16, .avx512vbmi, .avx512vbmi2, .gfni },
    },
};
const arm_variants = [_]Variant{
    .{ .name = "neon" },
    .{ .name = "dotprod", .arm_add = &.{ .dotprod, .fullfp16 } },
    .{ .name = "i8mm", .arm_add = &.{ .dotprod, .fullfp16, .i8mm, .bf16 } },
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{});

    const library = b.addLibrary(.{
        .name = "tinfer",
        .linkage = .dynamic,
        .root_module = rootModule(b, target, optimize),
    });
    b.installArtifact(library);

    const tests = b.addTest(.{ .root_module = rootModule(b, target, optimize) });
    const run_tests = b.addRunArtifact(tests);
    run_tests.skip_foreign_checks = true;
    b.step("test", "Run the tests of the native code").dependOn(&run_tests.step);
}

fn rootModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path("kernels/abi.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        .strip = optimize != .Debug,
    });
    const variants: []const Variant = switch (target.result.cpu.arch) {
        .x86_64 => &x86_variants,
        .aarch64 => &arm_variants,
        else => @panic("tinfer has kernels for x86-64 and aarch64"),
    };
    for (variants) |variant| module.addObject(variantObject(b, target, optimize, variant));
    return module;
}

fn variantObject(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    variant: Variant,
) *std.Build.Step.Compile {
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
    const options = b.addOptions();
    options.addOption([]const u8, "name", variant.name);
    const module = b.createModule(.{
        .root_source_file = b.path("kernels/executor.zig"),
        .target = b.resolveTargetQuery(query),
        .optimize = optimize,
        .pic = true,
        .strip = optimize != .Debug,
        .link_libc = true,
    });
    module.addOptions("variant", options);
    return b.addObject(.{
        .name = b.fmt("kernels_{s}", .{variant.name}),
        .root_module = module,
        .use_llvm = true,
    });
}
