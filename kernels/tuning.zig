//! What is chosen for the machine and never changes a bit of a result: how far ahead to read, how
//! work is cut, and how long a thread spins. The defaults are those of the first machine measured.
const std = @import("std");

pub const Tuning = extern struct {
    /// How far ahead of the weights in use a line is asked for in the rows regime. Zen 5, all
    /// types, 4 KiB pages as 2 MiB: alone or with much bandwidth to be had a thread is fastest at
    /// 2560 (2048: -4 %, 1536: -10 %), two threads that share little of it at 1536 (2048: -2 %,
    /// 2560: -4 %). Zen 4 wants 512. Steps of few rows look around (reach.zig).
    prefetch_bytes: u32 = 2048,
    /// Rows regime: weight bytes of each of a unit's streams.
    stream_bytes: u32 = 16 * 1024,
    /// Longest stream of a unit whose weights are passed over more than once.
    cached_stream_bytes: u32 = 64 * 1024,
    /// Above this many activation rows the tile regime is faster for weights in blocks (Zen 5: 5 or
    /// 6 rows take a tile 26 ms for all of a 1B model in Q4_0 and Q4_K, these 27 and 32; Zen 4, Q4_0
    /// interleaved, 32 rows: 126 ms and 106).
    rows_regime: u32 = 4,
    /// Spins before a waiting thread sleeps on a futex.
    spin_limit: u32 = 4000,
    /// The same for float weights, which cost little to read again (Zen 5, BF16: 12 rows take 63 ms,
    /// a tile 105).
    float_rows_regime: u32 = 12,

    /// Most activation rows that memory is planned for in the rows regime.
    pub const max_rows_regime = 32;
    const largest = 1 << 24;

    /// Most rows that take the rows regime.
    pub fn mostRows(tuning: *const Tuning, is_float: bool) u32 {
        return if (is_float) tuning.float_rows_regime else tuning.rows_regime;
    }

    pub fn isValid(tuning: Tuning) bool {
        return tuning.rows_regime <= max_rows_regime and
            tuning.float_rows_regime <= max_rows_regime and tuning.prefetch_bytes <= largest and
            tuning.stream_bytes <= largest and tuning.cached_stream_bytes <= largest and
            tuning.spin_limit <= largest;
    }
};

comptime {
    std.debug.assert(@sizeOf(Tuning) == 24);
}
