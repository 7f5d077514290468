//! Names of what the objects of one CPU variant export to each other and to kernels/dispatch.zig.
const std = @import("std");
const variant = @import("variant").name;

pub fn named(comptime name: []const u8) std.builtin.ExportOptions {
    return .{ .name = variant ++ "_" ++ name, .visibility = .hidden };
}

/// The function that another object of the variant exports as `named(name)`.
pub fn imported(comptime Function: type, comptime name: []const u8) *const Function {
    return @extern(*const Function, .{ .name = named(name).name, .visibility = .hidden });
}
