//! Chooses the CPU variant at start: the best one whose instructions this CPU and OS offer.
const std = @import("std");
const builtin = @import("builtin");
const included = @import("included");
const probe = @import("probe.zig");
const quantize = @import("quantize/quantize.zig");
const row_sums = @import("row_sums.zig");
const worker = @import("worker.zig");

pub const Variant = struct {
    name: [:0]const u8,
    run_step: *const fn (*const worker.Step, *worker.Worker) callconv(.c) void,
    scratch_need: *const fn (*const worker.Step, u32, *worker.ScratchNeed) callconv(.c) void,
    run_probe: *const fn (*probe.Probe, *worker.Worker) callconv(.c) void,
    dequantize: *const fn (u32, [*]const u8, [*]f32, u64) callconv(.c) bool,
    quantize_rows: *const fn (*const quantize.Job, u64, u64, *quantize.Fault) callconv(.c) bool,
    sum_rows: *const fn (*const row_sums.Job, u64, u64, u32) callconv(.c) void,
};

/// From the most portable to the fastest; the order of build.zig.
const all_names: []const [:0]const u8 = switch (builtin.cpu.arch) {
    .x86_64 => &.{ "v2", "v3", "v4" },
    .aarch64 => &.{ "neon", "dotprod", "i8mm" },
    else => @compileError("tinfer has kernels for x86-64 and aarch64"),
};

/// Those in this library: all, or the one that `zig build -Dvariant=` asked for.
const names = blk: {
    var list: []const [:0]const u8 = &.{};
    for (all_names) |name| {
        if (@field(included, name)) list = list ++ .{name};
    }
    break :blk list;
};

pub const variants = blk: {
    var list: [names.len]Variant = undefined;
    for (names, 0..) |name, index| {
        list[index].name = name;
        for (@typeInfo(Variant).@"struct".fields[1..]) |field| {
            const symbol = name ++ "_" ++ field.name;
            @field(list[index], field.name) =
                @extern(field.type, .{ .name = symbol, .visibility = .hidden });
        }
    }
    break :blk list;
};

/// Index into `variants` of the best variant that runs here.
pub fn best() u32 {
    const level = switch (builtin.cpu.arch) {
        .x86_64 => bestX86(),
        .aarch64 => bestArm(),
        else => comptime unreachable,
    };
    var count: u32 = 0;
    inline for (all_names, 0..) |name, index| {
        if (@field(included, name) and index <= level) count += 1;
    }
    return count - 1;
}

fn bestArm() u32 {
    // Every arm64 CPU of Apple has dot products, those from the M2 on i8mm and BF16, too.
    if (builtin.os.tag == .macos) return if (appleHas("I8MM") and appleHas("BF16")) 2 else 1;
    if (builtin.os.tag != .linux) return 1;
    const hwcap = std.c.getauxval(std.elf.AT_HWCAP);
    const hwcap2 = std.c.getauxval(std.elf.AT_HWCAP2);
    const dotprod = hwcap & (1 << 20) != 0 and hwcap & (1 << 10) != 0; // ASIMDDP, ASIMDHP
    const i8mm = hwcap2 & (1 << 13) != 0 and hwcap2 & (1 << 14) != 0; // I8MM, BF16
    return if (dotprod and i8mm) 2 else if (dotprod) 1 else 0;
}

fn appleHas(comptime feature: []const u8) bool {
    var value: u32 = 0;
    var size: usize = @sizeOf(u32);
    const name = "hw.optional.arm.FEAT_" ++ feature;
    return std.c.sysctlbyname(name, &value, &size, null, 0) == 0 and value != 0;
}

const Leaf = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Leaf {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (eax),
          [_] "={ebx}" (ebx),
          [_] "={ecx}" (ecx),
          [_] "={edx}" (edx),
        : [_] "{eax}" (leaf),
          [_] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

/// Which register files the OS saves (XCR0).
fn xgetbv() u32 {
    return asm volatile ("xgetbv"
        : [_] "={eax}" (-> u32),
        : [_] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

fn has(register: u32, bits: []const u5) bool {
    for (bits) |bit| if (register >> bit & 1 == 0) return false;
    return true;
}

/// Feature bits: Intel SDM volume 2, CPUID leaves 1 and 7.
fn bestX86() u32 {
    if (cpuid(0, 0).eax < 7) return 0;
    const leaf1 = cpuid(1, 0);
    if (!has(leaf1.ecx, &.{27})) return 0; // OSXSAVE
    const saved = xgetbv();
    const leaf7 = cpuid(7, 0);
    const leaf71 = cpuid(7, 1);
    // FMA, F16C; AVX2, BMI1, BMI2
    const v3 = saved & 0x6 == 0x6 and has(leaf1.ecx, &.{ 12, 29 }) and has(leaf7.ebx, &.{ 3, 5, 8 });
    if (!v3) return 0;
    // AVX512 F DQ CD BW VL; VBMI VBMI2 GFNI VNNI; BF16
    const v4 = saved & 0xe6 == 0xe6 and has(leaf7.ebx, &.{ 16, 17, 28, 30, 31 }) and
        has(leaf7.ecx, &.{ 1, 6, 8, 11 }) and has(leaf71.eax, &.{5});
    return if (v4) 2 else 1;
}
