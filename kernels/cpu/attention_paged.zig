//! attention_paged: softmax(scale * q·k) · v of every query row over its sequence's KV blocks.
//! attention_paged_units.zig shares the work out, attention_paged_panel.zig defines the arithmetic.
//! However a step is cut, the same partials are merged in the same order, so the bits depend neither
//! on threads, nor tiles, nor batch mates.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const kv_cache = @import("kv_cache.zig");
const kv_tiles = @import("kv_tiles.zig");
const panel_file = @import("attention_paged_panel.zig");
const products = @import("attention_paged_products.zig");
const units = @import("attention_paged_units.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;
const Merged = panel_file.Merged;
const RowState = panel_file.RowState;
const Form = products.Form;
const Visible = products.Visible;
const Range = units.Range;
const Run = units.Run;

const block_size = kv_cache.block_size;
const blocks_per_chunk = panel_file.chunk_len / block_size;
const partial_head = units.partial_head;
/// Blocks that a unit takes at a time; widened, they stay in the L2 cache.
const blocks_at_once = products.max_blocks;
/// Fewer rows than this read f16 in place, more widen each block to f32 once.
const min_widened_rows = 2 * panel_file.preferred_rows + 1;

pub fn scratchNeed(
    step: *const Step,
    op: *const plan.AttentionPaged,
    num_threads: u32,
) ScratchNeed {
    const cache = &step.caches[op.cache];
    const layout = kv_cache.Layout.of(cache, step.header.num_blocks);
    const group = op.num_heads / cache.num_kv_heads;
    const max_rows = units.maxTileLen(group) * group;
    const partial_bytes = (partial_head + layout.width) * @sizeOf(f32);
    return .{
        .shared_bytes = units.maxPartials(step, op, num_threads) * partial_bytes,
        .thread_bytes = Tile.bytes(max_rows, &layout),
    };
}

pub fn run(step: *const Step, op: *const plan.AttentionPaged, worker: *Worker) callconv(.c) void {
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
        const max_rows = units.maxTileLen(self.group) * self.group;
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
            tile.attendBlocks(.{ .first = block, .end = end }, all.first);
        }
    }

    /// Takes up to `blocks_at_once` blocks through all panels. `chunk_start` is the chunk's first
    /// block.
    fn attendBlocks(tile: *Tile, blocks: Range, chunk_start: u32) void {
        const layout = &tile.run.layout;
        var all: [blocks_at_once]products.Block = undefined;
        for (blocks.first..blocks.end, 0..) |block, i| {
            const stored = tile.blockAddress(block);
            const next = tile.blockAfter(block);
            const values = stored + layout.key_bytes;
            all[i] = .{
                .keys = if (tile.widen_keys) tile.widenKeys(i, stored) else stored,
                .values = if (tile.widen_values) tile.widenValues(i, values) else values,
                .key_scales = stored + kv_cache.keyScalesOffset(layout.type_k, layout.head_dim),
                .value_scales = values + kv_cache.valueScalesOffset(layout.type_v, layout.width),
                .next_keys = next,
                .next_values = if (next) |keys| keys + layout.key_bytes else null,
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
        return self.layout.block(self.step, self.cache, tile.sequence, tile.kv_head, block);
    }

    /// The block to ask memory for while this one is attended to, if any: a few rows alone wait for
    /// memory. Blocks end at pages, where hardware stops to read ahead.
    fn blockAfter(tile: *const Tile, block: usize) ?[*]const u8 {
        const after = block + 1;
        const is_last = after * block_size >= tile.run.kv_lens[tile.sequence];
        return if (is_last or tile.hasManyRows()) null else tile.blockAddress(after);
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
