//! What is chosen for the machine and never changes a bit of a result: how far ahead to read, how
//! work is cut, and how long a thread spins. The defaults are those of the first machine measured.
const std = @import("std");

pub const Tuning = extern struct {
    /// How far ahead of the weights in use a line is asked for in the rows regime: from 2 to 3 KiB
    /// one thread's rate peaks for all types on Zen 5, with 4 KiB pages as with 2 MiB (Q4_0 +13 %
    /// over 512, which is about the peak of Zen 4).
    prefetch_bytes: u32 = 2560,
    /// Rows regime: weight bytes of each of a unit's four streams.
    stream_bytes: u32 = 16 * 1024,
    /// Longest stream of a unit whose weights are passed over more than once.
    cached_stream_bytes: u32 = 64 * 1024,
    /// Above this many activation rows the tile regime is faster (measured: Q4_K and Q6_K cross
    /// at 8, Q4_0 and Q8_0 at 9).
    rows_regime: u32 = 8,
    /// Spins before a waiting thread sleeps on a futex.
    spin_limit: u32 = 4000,
    reserved: u32 = 0,

    /// Most activation rows that memory is planned for in the rows regime.
    pub const max_rows_regime = 16;
    const largest = 1 << 24;

    pub fn isValid(tuning: Tuning) bool {
        return tuning.rows_regime <= max_rows_regime and tuning.prefetch_bytes <= largest and
            tuning.stream_bytes <= largest and tuning.cached_stream_bytes <= largest and
            tuning.spin_limit <= largest;
    }
};

comptime {
    std.debug.assert(@sizeOf(Tuning) == 24);
}
