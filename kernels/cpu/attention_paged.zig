//! attention_paged: softmax(scale * q·k) · v of every query row over its sequence's KV blocks.
//! This file shares the work out; attention_paged_panel.zig defines the arithmetic.
//!
//! A unit of work is (sequence, tile of query rows, kv head): all query heads of the group go
//! together, so that each key and value is read once. When a step has too few such units for its
//! threads (decode), a unit is also one span of chunks of 512 positions; each chunk's partial
//! result goes to shared scratch and a second phase merges them. Where that is too few still, a
//! large group's heads are shared out too (latent attention has all its heads in one). Either way
//! the same partials are merged in the same order, so the bits depend neither on threads, nor
//! tiles, nor batch mates.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const kv_cache = @import("kv_cache.zig");
const kv_tiles = @import("kv_tiles.zig");
const panel_file = @import("attention_paged_panel.zig");
const products = @import("attention_paged_products.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;
const Merged = panel_file.Merged;
const RowState = panel_file.RowState;
const Form = products.Form;
const Visible = products.Visible;

const chunk_len = panel_file.chunk_len;
const block_size = kv_cache.block_size;
const blocks_per_chunk = chunk_len / block_size;
/// (query, head) rows in the largest tile: enough to make widening the blocks cheap.
const max_tile_rows = 96;
/// Blocks that a unit takes at a time; widened, they stay in the L2 cache.
const blocks_at_once = products.max_blocks;
/// Fewer rows than this read f16 in place, more widen each block to f32 once.
const min_widened_rows = 2 * panel_file.preferred_rows + 1;
/// Units that each thread should find, so that none waits long for the last one.
const units_per_thread = 16;
/// Heads of a group that are worth reading its keys and values for.
const min_part_heads = 2 * panel_file.preferred_rows;
/// Floats before the accumulator in the partial result of one row and chunk: maximum and sum.
const partial_head = 16;

/// What stays the same over one run of the op.
const Run = struct {
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

    fn init(step: *const Step, op: *const plan.AttentionPaged, num_threads: u32) Run {
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
    fn partOf(self: *const Run, index: u32) Range {
        const first = index * self.part_len;
        return .{ .first = first, .end = @min(first + self.part_len, self.group) };
    }

    fn numRows(self: *const Run, sequence: usize) u32 {
        return self.query_starts[sequence + 1] - self.query_starts[sequence];
    }

    fn numTiles(self: *const Run, sequence: usize) u32 {
        return (self.numRows(sequence) + self.tile_len - 1) / self.tile_len;
    }

    /// Cache index of a sequence's query row, counted within the step.
    fn queryIndex(self: *const Run, sequence: usize, row: u32) u32 {
        return self.kv_lens[sequence] - self.numRows(sequence) + row;
    }

    /// First position that the query at cache index `query` sees.
    fn firstVisible(self: *const Run, query: u32) u32 {
        const window = if (self.op.window == 0) 0 else (query + 1) -| self.op.window;
        return if (self.op.chunk == 0) window else @max(window, query - query % self.op.chunk);
    }

    /// Chunks that any row of the sequence sees.
    fn chunksOf(self: *const Run, sequence: usize) Range {
        const first = self.firstVisible(self.queryIndex(sequence, 0));
        return .{
            .first = first / chunk_len,
            .end = (self.kv_lens[sequence] + chunk_len - 1) / chunk_len,
        };
    }

    fn spansOf(self: *const Run, sequence: usize) u32 {
        if (self.span == 0) return 1;
        return (self.chunksOf(sequence).count() + self.span - 1) / self.span;
    }

    fn numUnits(self: *const Run) u32 {
        var sum: u32 = 0;
        for (0..self.step.data.num_sequences) |s| sum += self.unitsOf(s);
        return sum;
    }

    fn unitsOf(self: *const Run, sequence: usize) u32 {
        const num_parts = self.cache.num_kv_heads * self.num_parts;
        return self.numTiles(sequence) * num_parts * self.spansOf(sequence);
    }

    /// Partial of (token row, head, chunk counted from the sequence's first).
    fn partial(self: *const Run, token: usize, head: usize, chunk: usize) []align(64) f32 {
        const length = partial_head + self.layout.width;
        const index = (token * self.op.num_heads + head) * self.chunks_per_row + chunk;
        const all: [*]align(64) f32 = @ptrCast(self.step.scratch.ptr);
        return @alignCast(all[index * length ..][0..length]);
    }

    fn sink(self: *const Run, head: usize) ?f32 {
        const sinks = self.step.vector(self.op.sinks) orelse return null;
        return sinks[head];
    }

    fn outputRow(self: *const Run, token: usize, head: usize) []f32 {
        const dims = self.layout.value_dim;
        const start = (token * self.op.num_heads + head) * dims;
        return (self.step.tensor(self.op.output) + start)[0..dims];
    }
};

const Range = struct {
    first: u32,
    end: u32,

    fn count(range: Range) u32 {
        return range.end - range.first;
    }
};

fn maxTileLen(group: u32) u32 {
    return @max(1, max_tile_rows / group);
}

/// Partials that the shared scratch has room for: one decode row of every unit that the threads
/// could want, over the longest context.
fn maxPartials(step: *const Step, op: *const plan.AttentionPaged, num_threads: u32) u64 {
    const header = step.header;
    const num_kv_heads = step.caches[op.cache].num_kv_heads;
    const max_chunks = (header.max_blocks_per_sequence + blocks_per_chunk - 1) / blocks_per_chunk;
    const rows = (units_per_thread * num_threads + num_kv_heads - 1) / num_kv_heads;
    return @as(u64, @min(rows, header.max_tokens)) * op.num_heads * max_chunks;
}

pub fn scratchNeed(
    step: *const Step,
    op: *const plan.AttentionPaged,
    num_threads: u32,
) ScratchNeed {
    const cache = &step.caches[op.cache];
    const layout = kv_cache.Layout.of(cache, step.header.num_blocks);
    const group = op.num_heads / cache.num_kv_heads;
    const max_rows = maxTileLen(group) * group;
    const partial_bytes = (partial_head + layout.width) * @sizeOf(f32);
    return .{
        .shared_bytes = maxPartials(step, op, num_threads) * partial_bytes,
        .thread_bytes = Tile.bytes(max_rows, &layout),
    };
}

pub fn run(step: *const Step, op: *const plan.AttentionPaged, worker: *Worker) void {
    const self: Run = .init(step, op, worker.count);
    var tile: Tile = .init(&self, worker.scratch);
    var phase = worker.phase(self.numUnits());
    // The last sequences, usually prompts, go first: they are long.
    var sequence: usize = step.data.num_sequences - 1;
    var first_unit: u32 = 0;
    while (phase.next()) |unit| {
        if (unit < first_unit) {
            sequence = step.data.num_sequences - 1;
            first_unit = 0;
        }
        while (unit - first_unit >= self.unitsOf(sequence)) {
            first_unit += self.unitsOf(sequence);
            sequence -= 1;
        }
        tile.runUnit(sequence, unit - first_unit);
    }
    if (self.span == 0) return;
    worker.sync();
    mergePartials(&self, &tile, worker);
}

/// Second phase: merges each row's partials in the order of their chunks.
fn mergePartials(self: *const Run, tile: *const Tile, worker: *Worker) void {
    const num_parts = self.cache.num_kv_heads * self.num_parts;
    var phase = worker.phase(self.step.data.num_tokens * num_parts);
    var sequence: usize = 0;
    while (phase.next()) |unit| {
        const token = unit / num_parts;
        const kv_head = unit % num_parts / self.num_parts;
        const heads = self.partOf(unit % self.num_parts);
        if (token < self.query_starts[sequence]) sequence = 0;
        while (self.query_starts[sequence + 1] <= token) sequence += 1;
        const num_chunks = self.chunksOf(sequence).count();
        const output = tile.outputs[0..self.layout.width];
        for (heads.first..heads.end) |g| {
            const head = kv_head * self.group + g;
            var merged: Merged = .start(self.sink(head));
            for (0..num_chunks) |chunk| {
                const part = self.partial(token, head, chunk);
                merged.add(part[0], part[1], @alignCast(part[partial_head..]), output);
            }
            merged.finish(output, self.outputRow(token, head));
        }
    }
}

/// A thread's working memory for one tile of (query, head) rows of one kv head.
const Tile = struct {
    run: *const Run,
    rows: [*]RowState,
    /// What each row sees.
    visible: [*]Visible,
    merged: [*]Merged,
    /// Scaled queries, panel by panel: [head_dim][rows of the panel].
    queries: [*]align(64) f32,
    /// [rows][width]
    accumulators: [*]align(64) f32,
    /// [rows][width], merged over chunks.
    outputs: [*]align(64) f32,
    /// One row's scaled query.
    query: [*]align(64) f32,
    /// Blocks as the kernels want them where they are not stored so: K parts, then V parts.
    widened: [*]align(64) f32,

    // Of the unit in hand:
    sequence: usize = 0,
    kv_head: usize = 0,
    /// Heads of its group, counted within it.
    part: Range = .{ .first = 0, .end = 0 },
    /// First query row, counted within the sequence's rows of this step.
    first_query: u32 = 0,
    num_rows: u32 = 0,
    num_panels: u32 = 0,
    kernels: products.Kernels = undefined,
    /// Whether the K and V parts are widened or unpacked before use.
    widen_keys: bool = false,
    widen_values: bool = false,

    fn bytes(max_rows: usize, layout: *const kv_cache.Layout) usize {
        var sum: usize = 0;
        inline for (.{
            max_rows * @sizeOf(RowState),
            max_rows * @sizeOf(Visible),
            max_rows * @sizeOf(Merged),
            max_rows * layout.head_dim * @sizeOf(f32),
            max_rows * layout.width * @sizeOf(f32),
            max_rows * layout.width * @sizeOf(f32),
            queryLen(layout) * @sizeOf(f32),
            widenedLen(layout) * @sizeOf(f32),
        }) |part| sum += std.mem.alignForward(usize, part, 64);
        return sum;
    }

    fn widenedLen(layout: *const kv_cache.Layout) usize {
        const one = kv_tiles.tileLen(layout.head_dim) + kv_tiles.tileLen(layout.width);
        return blocks_at_once * one;
    }

    /// Queries are rounded in whole groups of 32 dims.
    fn queryLen(layout: *const kv_cache.Layout) usize {
        return std.mem.alignForward(usize, layout.head_dim, 32);
    }

    fn init(self: *const Run, memory: []align(64) u8) Tile {
        const layout = &self.layout;
        const max_rows = maxTileLen(self.group) * self.group;
        var offset: usize = 0;
        return .{
            .run = self,
            .rows = carve(RowState, memory, &offset, max_rows),
            .visible = carve(Visible, memory, &offset, max_rows),
            .merged = carve(Merged, memory, &offset, max_rows),
            .queries = carve(f32, memory, &offset, max_rows * layout.head_dim),
            .accumulators = carve(f32, memory, &offset, max_rows * layout.width),
            .outputs = carve(f32, memory, &offset, max_rows * layout.width),
            .query = carve(f32, memory, &offset, Tile.queryLen(layout)),
            .widened = carve(f32, memory, &offset, Tile.widenedLen(layout)),
        };
    }

    /// Rows of panel `index`: as even as possible, so that no panel is left with few rows.
    fn panelRows(tile: *const Tile, index: u32) Range {
        return .{
            .first = tile.num_rows * index / tile.num_panels,
            .end = tile.num_rows * (index + 1) / tile.num_panels,
        };
    }

    /// Runs one unit of a sequence: tiles from the last (longest) to the first, in each the kv
    /// heads and the parts of their groups, in each the spans of chunks.
    fn runUnit(tile: *Tile, sequence: usize, unit: u32) void {
        const self = tile.run;
        const num_spans = self.spansOf(sequence);
        const num_kv_heads = self.cache.num_kv_heads;
        const units_per_tile = num_spans * num_kv_heads * self.num_parts;
        const index = self.numTiles(sequence) - 1 - unit / units_per_tile;
        tile.sequence = sequence;
        tile.kv_head = unit / (num_spans * self.num_parts) % num_kv_heads;
        tile.part = self.partOf(unit / num_spans % self.num_parts);
        tile.first_query = index * self.tile_len;
        const num_queries = @min(self.tile_len, self.numRows(sequence) - tile.first_query);
        tile.num_rows = num_queries * tile.part.count();
        const panel_rows = panel_file.preferred_rows;
        const fits = tile.num_rows <= panel_file.max_rows;
        tile.num_panels = if (fits) 1 else (tile.num_rows + panel_rows - 1) / panel_rows;
        tile.chooseKernels();
        tile.loadQueries();

        const chunks = self.chunksOf(sequence);
        const span = if (self.span == 0) chunks.count() else self.span;
        const first = chunks.first + unit % num_spans * span;
        const end = @min(first + span, chunks.end);
        for (tile.merged[0..tile.num_rows], 0..) |*merged, r| {
            merged.* = .start(self.sink(tile.head(r)));
        }
        for (first..end) |chunk| {
            tile.attendChunk(@intCast(chunk));
            if (self.span == 0) tile.mergeChunk() else tile.keepPartials(chunk - chunks.first);
        }
        if (self.span == 0) for (0..tile.num_rows) |r| {
            tile.merged[r].finish(tile.outputOf(r), self.outputRow(tile.token(r), tile.head(r)));
        };
    }

    /// Token row of the step that row `r` of the tile belongs to.
    fn token(tile: *const Tile, r: usize) usize {
        const query = tile.first_query + r / tile.part.count();
        return tile.run.query_starts[tile.sequence] + query;
    }

    /// Query head that row `r` of the tile belongs to.
    fn head(tile: *const Tile, r: usize) usize {
        return tile.kv_head * tile.run.group + tile.part.first + r % tile.part.count();
    }

    fn outputOf(tile: *const Tile, r: usize) []align(64) f32 {
        const width = tile.run.layout.width;
        return @alignCast(tile.outputs[r * width ..][0..width]);
    }

    fn accumulatorOf(tile: *const Tile, r: usize) []align(64) f32 {
        const width = tile.run.layout.width;
        return @alignCast(tile.accumulators[r * width ..][0..width]);
    }

    /// Scales the tile's queries and lays them out by panel; sets what each row may see.
    fn loadQueries(tile: *Tile) void {
        const self = tile.run;
        const dims = self.layout.head_dim;
        const softcap = self.op.softcap;
        const factor: f64 = if (softcap == 0) std.math.log2e else 1 / @as(f64, softcap);
        const scale: f32 = @floatCast(self.op.scale * factor);
        const rounds = Form.of(self.layout.type_k).rounds();
        for (0..tile.num_panels) |p| {
            const range = tile.panelRows(@intCast(p));
            const panel_queries = tile.queries + range.first * dims;
            for (range.first..range.end) |r| {
                const query = tile.first_query + @as(u32, @intCast(r)) / tile.part.count();
                const index = self.queryIndex(tile.sequence, query);
                tile.visible[r] = .{
                    .first = self.firstVisible(index),
                    .end = if (self.op.is_causal != 0) index + 1 else self.kv_lens[tile.sequence],
                };
                const from = (tile.token(r) * self.op.num_heads + tile.head(r)) * dims;
                const q = self.step.tensor(self.op.q) + from;
                const column = panel_queries + r - range.first;
                if (rounds) {
                    for (tile.query[0..dims], q[0..dims]) |*scaled, value| scaled.* = value * scale;
                    products.packQuery(tile.query, dims, @ptrCast(column), range.count());
                } else for (0..dims) |d| column[d * range.count()] = q[d] * scale;
            }
        }
    }

    fn hasManyRows(tile: *const Tile) bool {
        return tile.num_rows >= min_widened_rows;
    }

    /// Picks the kernels for the tile: those that read the cache in place, or those for f32.
    fn chooseKernels(tile: *Tile) void {
        const layout = &tile.run.layout;
        const many = tile.hasManyRows();
        const keys: Form = .of(layout.type_k);
        const values: Form = .of(layout.type_v);
        tile.widen_keys = keys == .scaled or (many and keys == .f16);
        tile.widen_values = values == .scaled or (many and values == .f16);
        tile.kernels = .of(
            if (many and keys == .f16) .f32 else keys,
            if (many and values == .f16) .f32 else values,
        );
    }

    /// Attends to the tile's visible blocks of one chunk, from fresh row states.
    fn attendChunk(tile: *Tile, chunk: u32) void {
        for (tile.rows[0..tile.num_rows]) |*row| row.reset();
        const all: Range = .{
            .first = chunk * blocks_per_chunk,
            .end = (chunk + 1) * blocks_per_chunk,
        };
        const seen = clipBlocks(tile.visible[0..tile.num_rows], all);
        // A few rows take each block from memory to their result while it is in the L1 cache.
        const count: u32 = if (tile.hasManyRows()) blocks_at_once else 1;
        var block = seen.first;
        while (block < seen.end) : (block += count) {
            const end = @min(block + count, seen.end);
            tile.attendBlocks(.{ .first = block, .end = end }, seen.end, all.first);
        }
    }

    /// Takes up to `blocks_at_once` blocks through all panels. `seen_end` is the end of the blocks
    /// that follow in this chunk, `chunk_start` the chunk's first block.
    fn attendBlocks(tile: *Tile, blocks: Range, seen_end: u32, chunk_start: u32) void {
        const layout = &tile.run.layout;
        var all: [blocks_at_once]products.Block = undefined;
        for (blocks.first..blocks.end, 0..) |block, i| {
            const stored = tile.blockAddress(block);
            // Along neighbouring blocks the hardware prefetches by itself, and better.
            const following = if (block + 1 < seen_end) tile.blockAddress(block + 1) else stored;
            const next = if (following == stored + layout.block_bytes) stored else following;
            const values = stored + layout.key_bytes;
            all[i] = .{
                .keys = if (tile.widen_keys) tile.widenKeys(i, stored) else stored,
                .values = if (tile.widen_values) tile.widenValues(i, values) else values,
                .key_scales = stored + kv_cache.keyScalesOffset(layout.type_k, layout.head_dim),
                .value_scales = values + kv_cache.valueScalesOffset(layout.type_v, layout.width),
                .next_keys = next,
                .next_values = next + layout.key_bytes,
            };
        }
        for (0..tile.num_panels) |p| {
            const range = tile.panelRows(@intCast(p));
            const visible = tile.visible[range.first..range.end];
            const seen = clipBlocks(visible, blocks);
            if (seen.first >= seen.end) continue;
            const panel: panel_file.Panel = .{
                .kernels = &tile.kernels,
                .num_rows = range.count(),
                .head_dim = layout.head_dim,
                .width = layout.width,
                .softcap = .{ .limit = tile.run.op.softcap * @as(f32, std.math.log2e) },
                .queries = tile.queries + range.first * layout.head_dim,
                .rows = tile.rows[range.first..range.end],
                .visible = visible,
                .accumulators = @alignCast(tile.accumulators + range.first * layout.width),
            };
            const fresh = seen.first == @max(chunk_start, visible[0].first / block_size);
            const part = all[seen.first - blocks.first .. seen.end - blocks.first];
            panel.attend(part, seen.first, fresh);
        }
    }

    /// The K part of one of the sequence's blocks, as stored.
    fn blockAddress(tile: *const Tile, block: usize) [*]const u8 {
        const self = tile.run;
        const data = self.step.data;
        const tables = self.step.array(u32, data.block_tables);
        const id = tables[tile.sequence * data.block_table_stride + block];
        return self.step.kv + self.cache.offset + self.layout.blockOffset(tile.kv_head, id);
    }

    fn widenKeys(tile: *Tile, index: usize, part: [*]const u8) [*]const u8 {
        const layout = &tile.run.layout;
        const len = kv_tiles.tileLen(layout.head_dim);
        const output: [*]align(64) f32 = @alignCast(tile.widened + index * len);
        if (layout.type_k == .f16) kv_tiles.widenHalves(part, output, len) else {
            kv_tiles.unpackKeys(layout.type_k, layout.head_dim, part, @ptrCast(output));
        }
        return @ptrCast(output);
    }

    fn widenValues(tile: *Tile, index: usize, part: [*]const u8) [*]const u8 {
        const layout = &tile.run.layout;
        const len = kv_tiles.tileLen(layout.width);
        const first = tile.widened + blocks_at_once * kv_tiles.tileLen(layout.head_dim);
        const output: [*]align(64) f32 = @alignCast(first + index * len);
        if (layout.type_v == .f16) kv_tiles.widenHalves(part, output, len) else {
            kv_tiles.unpackValues(layout.type_v, layout.width, part, @ptrCast(output));
        }
        return @ptrCast(output);
    }

    fn mergeChunk(tile: *Tile) void {
        for (0..tile.num_rows) |r| {
            const row = &tile.rows[r];
            const sum = panel_file.total(row.strands);
            tile.merged[r].add(row.maximum, sum, tile.accumulatorOf(r), tile.outputOf(r));
        }
    }

    fn keepPartials(tile: *Tile, chunk: usize) void {
        const self = tile.run;
        for (0..tile.num_rows) |r| {
            const part = self.partial(tile.token(r), tile.head(r), chunk);
            part[0] = tile.rows[r].maximum;
            part[1] = panel_file.total(tile.rows[r].strands);
            @memcpy(part[partial_head..], tile.accumulatorOf(r));
        }
    }
};

/// The part of `blocks` that any of the rows sees; rows are in the order of their queries.
fn clipBlocks(visible: []const Visible, blocks: Range) Range {
    const end = (visible[visible.len - 1].end + block_size - 1) / block_size;
    return .{
        .first = @max(blocks.first, visible[0].first / block_size),
        .end = @min(blocks.end, end),
    };
}

/// Takes `count` elements from scratch.
fn carve(comptime T: type, memory: []align(64) u8, offset: *usize, count: usize) [*]align(64) T {
    const start: [*]align(64) u8 = @alignCast(memory.ptr + offset.*);
    offset.* += std.mem.alignForward(usize, count * @sizeOf(T), 64);
    std.debug.assert(offset.* <= memory.len);
    return @ptrCast(start);
}
