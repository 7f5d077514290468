//! The thread's float control register: how values below the normal range of f32 are treated.
const simd = @import("simd.zig");

/// This thread's float control while subnormal operands and results count as zeros, as they do
/// in `brain.dot`.
pub const FlushDenormals = struct {
    const Control = if (simd.is_x86) u32 else u64;
    previous: Control,

    pub fn begin() FlushDenormals {
        var previous: Control = undefined;
        if (simd.is_x86) {
            // The address goes in a register: LLVM would miscompile some memory operands.
            asm volatile ("stmxcsr (%[p])"
                :
                : [p] "r" (&previous),
                : .{ .memory = true });
        } else previous = asm volatile ("mrs %[x], fpcr"
            : [x] "=r" (-> u64),
        );
        // x86: flush to zero and denormals are zero; aarch64: FZ, which is both.
        set(previous | (if (simd.is_x86) 0x8040 else 1 << 24));
        return .{ .previous = previous };
    }
    pub fn end(mode: FlushDenormals) void {
        set(mode.previous);
    }
    fn set(control: Control) void {
        if (simd.is_x86) {
            asm volatile ("ldmxcsr (%[p])"
                :
                : [p] "r" (&control),
                : .{ .memory = true });
        } else asm volatile ("msr fpcr, %[x]"
            :
            : [x] "r" (control),
            : .{ .memory = true });
    }
};
