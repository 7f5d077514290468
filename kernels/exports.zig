//! Names of what the objects of one CPU variant export to each other and to kernels/dispatch.zig.
const std = @import("std");
const builtin = @import("builtin");

/// The variant whose instructions build.zig compiles this object for.
const variant = switch (builtin.cpu.arch) {
    .x86_64 => if (builtin.cpu.has(.x86, .avx512bf16))
        "v4"
    else if (builtin.cpu.has(.x86, .avx2))
        "v3"
    else
        "v2",
    .aarch64 => if (builtin.cpu.has(.aarch64, .i8mm))
        "i8mm"
    else if (builtin.cpu.has(.aarch64, .dotprod))
        "dotprod"
    else
        "neon",
    else => @compileError("tinfer has kernels for x86-64 and aarch64"),
};

pub fn named(comptime name: []const u8) std.builtin.ExportOptions {
    return .{ .name = variant ++ "_" ++ name, .visibility = .hidden };
}

/// The function that another object of the variant exports as `named(name)`.
pub fn imported(comptime Function: type, comptime name: []const u8) *const Function {
    return @extern(*const Function, .{ .name = variant ++ "_" ++ name, .visibility = .hidden });
}
