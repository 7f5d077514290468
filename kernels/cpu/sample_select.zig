//! Candidates of one output row: finding them among the logits and cutting them to a prefix of
//! the order "larger logit first, then lower id", without ever sorting the vocabulary.
const std = @import("std");
const math = @import("sample_math.zig");
const Vec = math.Vec;
const lanes = math.lanes;

/// Logits whose largest is remembered: most blocks are then never looked at again.
pub const block_len = 128;
/// Logits that one unit of work scans; 16 KiB, so that the second pass reads the first cache.
const slice_len = 4096;
const slice_blocks = slice_len / block_len;

/// What one pass over the logits leaves behind.
pub const Scan = struct {
    logits: []const f32,
    /// Largest logit of each block, -infinity where there is none.
    block_max: []f32,
    /// Sum of e^(logit - largest logit of the slice) over each slice.
    slice_sum: []f32,

    pub fn numSlices(vocab_size: usize) usize {
        return std.math.divCeil(usize, vocab_size, slice_len) catch unreachable;
    }
    /// Floats that a scan keeps, whole cache lines.
    pub fn storageLen(vocab_size: usize) usize {
        const blocks = std.math.divCeil(usize, vocab_size, block_len) catch unreachable;
        return std.mem.alignForward(usize, blocks + numSlices(vocab_size), lanes);
    }

    pub fn init(logits: []const f32, storage: [*]f32) Scan {
        const blocks = std.math.divCeil(usize, logits.len, block_len) catch unreachable;
        return .{
            .logits = logits,
            .block_max = storage[0..blocks],
            .slice_sum = storage[blocks..][0..numSlices(logits.len)],
        };
    }

    pub fn scanSlice(scan: *const Scan, slice: usize) void {
        const maxima = scan.blocksOf(slice);
        const first = slice * slice_blocks;
        var padded: [block_len]f32 = undefined;
        for (maxima, first..) |*max, index| {
            const logits = scan.block(index, &padded);
            var best = math.splat(-math.infinity);
            inline for (0..block_len / lanes) |v| {
                best = math.larger(best, math.load(logits + v * lanes));
            }
            max.* = math.maxLane(best);
        }
        const slice_max = maxOf(maxima);
        var sum = math.splat(0);
        if (slice_max > -math.infinity) for (0..maxima.len) |i| {
            const logits = scan.block(first + i, &padded);
            var block_sum = math.splat(0); // short sums of short sums lose the least
            inline for (0..block_len / lanes) |v| {
                block_sum += math.exp(math.load(logits + v * lanes) - math.splat(slice_max));
            }
            sum += block_sum;
        };
        scan.slice_sum[slice] = math.sumLanes(sum);
    }

    /// Notes that the logit changed; `refresh` then scans its slice again.
    pub fn touch(scan: *const Scan, token_id: usize) void {
        scan.slice_sum[token_id / slice_len] = -1;
    }

    pub fn refresh(scan: *const Scan) void {
        for (scan.slice_sum, 0..) |sum, slice| {
            if (sum < 0) scan.scanSlice(slice);
        }
    }

    /// Largest logit, or -infinity.
    pub fn largest(scan: *const Scan) f32 {
        return maxOf(scan.block_max);
    }

    /// Sum of e^(logit - max) over all logits, slices in order.
    pub fn total(scan: *const Scan, max: f32) f64 {
        var sum: f64 = 0;
        for (scan.slice_sum, 0..) |own, slice| {
            const scale = math.expScalar(maxOf(scan.blocksOf(slice)) - max);
            sum += @as(f64, own) * @as(f64, scale);
        }
        return sum;
    }

    /// Lowest id whose logit equals `max`, the result of `largest`.
    pub fn firstOf(scan: *const Scan, max: f32) usize {
        for (scan.block_max, 0..) |own, block_index| {
            if (own != max) continue;
            for (scan.logits[block_index * block_len ..], block_index * block_len..) |logit, id| {
                if (logit == max or (logit > max and max == math.largest)) return id;
            }
        }
        unreachable; // `max` came from these blocks
    }

    /// Logits of one block; the last, shorter one is filled up with -infinity in `padded`.
    fn block(scan: *const Scan, index: usize, padded: *[block_len]f32) [*]const f32 {
        const rest = scan.logits[index * block_len ..];
        if (rest.len >= block_len) return rest.ptr;
        @memset(padded, -math.infinity);
        @memcpy(padded[0..rest.len], rest);
        return padded;
    }

    fn blocksOf(scan: *const Scan, slice: usize) []f32 {
        const end = @min((slice + 1) * slice_blocks, scan.block_max.len);
        return scan.block_max[slice * slice_blocks .. end];
    }
};

fn maxOf(values: []const f32) f32 {
    var best: f32 = -math.infinity;
    for (values) |value| best = if (value > best) value else best;
    return best;
}

/// Candidates in ascending id order. The arrays hold a whole vocabulary and one vector more.
pub const Candidates = struct {
    ids: [*]align(64) u32,
    logits: [*]align(64) f32,
    weights: [*]align(64) f32,
    len: usize = 0,

    /// Takes every logit that is at least `threshold`; never NaN, never -infinity.
    pub fn collect(self: *Candidates, scan: *const Scan, threshold: f32) void {
        self.len = 0;
        const bound = @max(threshold, -math.largest);
        var padded: [block_len]f32 = undefined;
        for (scan.block_max, 0..) |max, index| {
            if (max < bound) continue;
            const logits = scan.block(index, &padded);
            for (0..block_len / lanes) |v| {
                const x = math.load(logits + v * lanes);
                var mask: u16 = @bitCast(x >= math.splat(bound));
                const id: u32 = @intCast(index * block_len + v * lanes);
                if (mask == 0xffff) {
                    const ids = std.simd.iota(u32, lanes) + @as(@Vector(lanes, u32), @splat(id));
                    self.ids[self.len..][0..lanes].* = ids;
                    self.logits[self.len..][0..lanes].* = x;
                    self.len += lanes;
                    continue;
                }
                const values: [lanes]f32 = x;
                while (mask != 0) : (mask &= mask - 1) {
                    const lane = @ctz(mask);
                    self.ids[self.len] = id + lane;
                    self.logits[self.len] = values[lane];
                    self.len += 1;
                }
            }
        }
    }

    /// Takes the `count` largest logits; of equal ones the lower ids.
    pub fn collectLargest(self: *Candidates, scan: *const Scan, count: usize) void {
        // At least `count` logits reach the count-th largest of the blocks' maxima.
        var threshold: f32 = -math.infinity;
        if (count <= scan.block_max.len) {
            const maxima: Amounts(u32) = .{ .logits = scan.block_max };
            threshold = valueOf(maxima.cut(@intCast(count)).key);
        }
        self.collect(scan, threshold);
        if (self.len <= count) return;
        const ones: Amounts(u32) = .{ .logits = self.logits[0..self.len] };
        self.keep(u32, ones, @intCast(count));
    }

    /// Keeps the fewest largest logits whose `weights` add up to `wanted`; at least one.
    pub fn keepMass(self: *Candidates, wanted: f64) void {
        const amounts: Amounts(f64) = .{
            .logits = self.logits[0..self.len],
            .weights = self.weights,
        };
        self.keep(f64, amounts, @max(wanted, std.math.floatMin(f64)));
    }

    fn keep(self: *Candidates, Amount: type, amounts: Amounts(Amount), target: Amount) void {
        const cut = amounts.cut(target);
        var reached = cut.above;
        var kept: usize = 0;
        for (0..self.len) |i| {
            const key = keyOf(self.logits[i]);
            if (key < cut.key) continue;
            if (key == cut.key) {
                if (reached >= target) continue;
                reached += amounts.at(i);
            }
            self.ids[kept] = self.ids[i];
            self.logits[kept] = self.logits[i];
            kept += 1;
        }
        self.len = kept;
    }

    /// Keeps the logits that are at least `threshold`.
    pub fn keepAtLeast(self: *Candidates, threshold: f32) void {
        var kept: usize = 0;
        for (0..self.len) |i| {
            if (self.logits[i] < threshold) continue;
            self.ids[kept] = self.ids[i];
            self.logits[kept] = self.logits[i];
            kept += 1;
        }
        self.len = kept;
    }

    /// weights = e^((logit - max) / temperature), and zeros up to a whole number of vectors.
    pub fn weigh(self: *Candidates, max: f32, temperature: f32) void {
        const padded_len = std.mem.alignForward(usize, self.len, lanes);
        for (self.len..padded_len) |i| self.logits[i] = -math.infinity;
        var i: usize = 0;
        while (i < padded_len) : (i += lanes) {
            const x: Vec = self.logits[i..][0..lanes].*;
            const scaled = (x - math.splat(max)) / math.splat(temperature);
            self.weights[i..][0..lanes].* = math.exp(scaled);
        }
    }

    /// Sum of the weights, 16 at a time, in f64.
    pub fn mass(self: *const Candidates) f64 {
        var sum: f64 = 0;
        var i: usize = 0;
        while (i < self.len) : (i += lanes) sum += self.sumAt(i);
        return sum;
    }

    /// Draws a candidate with probability proportional to its weight, candidates in id order;
    /// `uniform` in [0, 1).
    pub fn draw(self: *const Candidates, uniform: f64) u32 {
        const target = uniform * self.mass();
        // Where rounding leaves the target unreached, the last candidate with a weight is drawn.
        var reached: f64 = 0;
        var before: f64 = 0;
        var chosen: usize = 0;
        var i: usize = 0;
        while (i < self.len and reached <= target) : (i += lanes) {
            const sum = self.sumAt(i);
            if (sum == 0) continue;
            chosen = i;
            before = reached;
            reached += sum;
        }
        var last = chosen;
        for (chosen..@min(chosen + lanes, self.len)) |at| {
            if (self.weights[at] == 0) continue;
            last = at;
            before += self.weights[at];
            if (before > target) break;
        }
        return self.ids[last];
    }

    fn sumAt(self: *const Candidates, i: usize) f64 {
        return math.sumLanes(self.weights[i..][0..lanes].*);
    }
};

/// The unsigned number that orders as the float does.
fn keyOf(x: f32) u32 {
    const bits: u32 = @bitCast(x);
    return if (bits >> 31 == 1) ~bits else bits | 0x8000_0000;
}

fn valueOf(key: u32) f32 {
    return @bitCast(if (key >> 31 == 1) key & 0x7fff_ffff else ~key);
}

/// Where a prefix of the descending order ends: all above `key`, whose amounts sum to `above`,
/// and as many of those equal to `key` as are needed.
fn Cut(Amount: type) type {
    return struct { key: u32, above: Amount };
}

/// Logits with an amount each: 1 when `Amount` is u32, their weight when it is f64.
fn Amounts(Amount: type) type {
    return struct {
        logits: []const f32,
        weights: if (Amount == f64) [*]const f32 else void = if (Amount == f64) undefined else {},

        fn at(self: @This(), i: usize) Amount {
            return if (Amount == f64) self.weights[i] else 1;
        }

        /// The shortest prefix whose amounts reach `target` (> 0), by three rounds of counting
        /// over 11, 11 and 10 bits of the keys. All of them where the target is not reached.
        fn cut(self: @This(), target: Amount) Cut(Amount) {
            var prefix: u32 = 0;
            var above: Amount = 0;
            inline for (.{ 21, 10, 0 }, .{ 11, 11, 10 }) |shift, bits| {
                var bins: [1 << bits]Amount = @splat(0);
                for (self.logits, 0..) |logit, i| {
                    const key = keyOf(logit);
                    const known = shift + bits;
                    if (known == 32 or key >> known == prefix >> known) {
                        bins[key >> shift & (bins.len - 1)] += self.at(i);
                    }
                }
                var chosen: usize = 0;
                var reached = above;
                var bin = bins.len;
                while (bin > 0 and reached < target) {
                    bin -= 1;
                    if (bins[bin] == 0) continue;
                    chosen = bin;
                    above = reached;
                    reached += bins[bin];
                }
                prefix |= @as(u32, @intCast(chosen)) << shift;
            }
            return .{ .key = prefix, .above = above };
        }
    };
}
