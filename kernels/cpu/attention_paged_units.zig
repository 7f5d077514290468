//! How attention_paged is cut into units of work. One is (sequence, tile of query rows, kv head): all
//! query heads of the group go together, so that each key and value is read once. When a step has
//! too few such units for its threads (decode), a unit is also one span of chunks of 512 positions,
//! whose partial results a second phase merges. Where that is too few still, a large group's heads
//! are shared out too (latent attention has all its heads in one).
const std = @import("std");
const plan = @import("../plan.zig");
const kv_cache = @import("kv_cache.zig");
const panel_file = @import("attention_paged_panel.zig");
const Step = @import("../worker.zig").Step;

const chunk_len = panel_file.chunk_len;
const blocks_per_chunk = chunk_len / kv_cache.block_size;
/// (query, head) rows in the largest tile: enough to make widening the blocks cheap.
const max_tile_rows = 96;
/// Units that each thread should find, so that none waits long for the last one.
const units_per_thread = 16;
/// Heads of a group that are worth reading its keys and values for.
const min_part_heads = 2 * panel_file.preferred_rows;
/// Floats before the accumulator in the partial result of one row and chunk: maximum and sum.
pub const partial_head = 16;

/// What stays the same over one run of the op.
pub const Run = struct {
    step: *const Step,
    op: *const plan.AttentionPaged,
    cache: *const plan.Cache,
    layout: kv_cache.Layout,
    /// Query heads per kv head.
    group: u32,
    /// Of these, as many as a unit takes; the group's parts.
    part_len: u32,
    num_parts: u32,
    /// Query rows in a tile.
    tile_len: u32,
    /// Chunks in one unit; 0: a unit takes all of them and needs no second phase.
    span: u32,
    /// Partials kept for one row and head (the most chunks of any sequence).
    chunks_per_row: u32,
    query_starts: [*]const u32,
    kv_lens: [*]const u32,

    pub fn init(step: *const Step, op: *const plan.AttentionPaged, num_threads: u32) Run {
        const cache = &step.caches[op.cache];
        var self: Run = .{
            .step = step,
            .op = op,
            .cache = cache,
            .layout = .of(cache, step.header.num_blocks),
            .group = op.num_heads / cache.num_kv_heads,
            .part_len = op.num_heads / cache.num_kv_heads,
            .num_parts = 1,
            .tile_len = 0,
            .span = 0,
            .chunks_per_row = 0,
            .query_starts = step.array(u32, step.data.query_starts),
            .kv_lens = step.array(u32, step.data.kv_lens),
        };
        self.chooseUnits(num_threads);
        return self;
    }

    fn chooseUnits(self: *Run, num_threads: u32) void {
        const wanted = units_per_thread * num_threads;
        // Tiles as large as the threads allow, but not so small that widening dominates.
        const largest = maxTileLen(self.group);
        const fair = self.step.data.num_tokens * self.cache.num_kv_heads / wanted;
        self.tile_len = std.math.clamp(fair, @min(largest, 2 * panel_file.preferred_rows), largest);
        var num_units: u32 = 0;
        var num_chunk_units: u32 = 0;
        for (0..self.step.data.num_sequences) |s| {
            const tiles = self.numTiles(s) * self.cache.num_kv_heads;
            const chunks = self.chunksOf(s);
            num_units += tiles;
            num_chunk_units += tiles * chunks.count();
            self.chunks_per_row = @max(self.chunks_per_row, chunks.count());
        }
        if (num_units >= wanted) return;
        const rows = @as(u64, self.step.data.num_tokens) * self.op.num_heads;
        const partials = rows * self.chunks_per_row;
        const have_room = partials <= maxPartials(self.step, self.op, num_threads);
        if (num_chunk_units > num_units and have_room) {
            self.span = @max(1, num_chunk_units / wanted);
            num_units = num_chunk_units / self.span;
        }
        const most_parts = @max(1, self.group / min_part_heads);
        const parts = std.math.clamp(wanted / num_units, 1, most_parts);
        self.part_len = (self.group + parts - 1) / parts;
        self.num_parts = (self.group + self.part_len - 1) / self.part_len;
    }

    /// Heads of part `index` of a group, counted within the group.
    pub fn partOf(self: *const Run, index: u32) Range {
        const first = index * self.part_len;
        return .{ .first = first, .end = @min(first + self.part_len, self.group) };
    }

    pub fn numRows(self: *const Run, sequence: usize) u32 {
        return self.query_starts[sequence + 1] - self.query_starts[sequence];
    }

    pub fn numTiles(self: *const Run, sequence: usize) u32 {
        return (self.numRows(sequence) + self.tile_len - 1) / self.tile_len;
    }

    /// Cache index of a sequence's query row, counted within the step.
    pub fn queryIndex(self: *const Run, sequence: usize, row: u32) u32 {
        return self.kv_lens[sequence] - self.numRows(sequence) + row;
    }

    /// First position that the query at cache index `query` sees.
    pub fn firstVisible(self: *const Run, query: u32) u32 {
        const window = if (self.op.window == 0) 0 else (query + 1) -| self.op.window;
        return if (self.op.chunk == 0) window else @max(window, query - query % self.op.chunk);
    }

    /// Chunks that any row of the sequence sees.
    pub fn chunksOf(self: *const Run, sequence: usize) Range {
        const first = self.firstVisible(self.queryIndex(sequence, 0));
        return .{
            .first = first / chunk_len,
            .end = (self.kv_lens[sequence] + chunk_len - 1) / chunk_len,
        };
    }

    pub fn spansOf(self: *const Run, sequence: usize) u32 {
        if (self.span == 0) return 1;
        return (self.chunksOf(sequence).count() + self.span - 1) / self.span;
    }

    pub fn numUnits(self: *const Run) u32 {
        var sum: u32 = 0;
        for (0..self.step.data.num_sequences) |s| sum += self.unitsOf(s);
        return sum;
    }

    pub fn unitsOf(self: *const Run, sequence: usize) u32 {
        const num_parts = self.cache.num_kv_heads * self.num_parts;
        return self.numTiles(sequence) * num_parts * self.spansOf(sequence);
    }

    /// Partial of (token row, head, chunk counted from the sequence's first).
    pub fn partial(self: *const Run, token: usize, head: usize, chunk: usize) []align(64) f32 {
        const length = partial_head + self.layout.width;
        const index = (token * self.op.num_heads + head) * self.chunks_per_row + chunk;
        const all: [*]align(64) f32 = @ptrCast(self.step.scratch.ptr);
        return @alignCast(all[index * length ..][0..length]);
    }

    pub fn sink(self: *const Run, head: usize) ?f32 {
        const sinks = self.step.vector(self.op.sinks) orelse return null;
        return sinks[head];
    }

    pub fn outputRow(self: *const Run, token: usize, head: usize) []f32 {
        const dims = self.layout.value_dim;
        const start = (token * self.op.num_heads + head) * dims;
        return (self.step.tensor(self.op.output) + start)[0..dims];
    }
};

pub const Range = struct {
    first: u32,
    end: u32,

    pub fn count(range: Range) u32 {
        return range.end - range.first;
    }
};

pub fn maxTileLen(group: u32) u32 {
    return @max(1, max_tile_rows / group);
}

/// Partials that the shared scratch has room for: one decode row of every unit that the threads
/// could want, over the longest context.
pub fn maxPartials(step: *const Step, op: *const plan.AttentionPaged, num_threads: u32) u64 {
    const header = step.header;
    const num_kv_heads = step.caches[op.cache].num_kv_heads;
    const max_chunks = (header.max_blocks_per_sequence + blocks_per_chunk - 1) / blocks_per_chunk;
    const rows = (units_per_thread * num_threads + num_kv_heads - 1) / num_kv_heads;
    return @as(u64, @min(rows, header.max_tokens)) * op.num_heads * max_chunks;
}
