//! Multiplies one packed activation panel by one weight tile: 6 x 32 outputs. Integer sums are
//! exact; the float part follows the canonical order, rounding by rounding.
const std = @import("std");
const vector = @import("tile_vector.zig");
const layout = @import("tile_layout.zig");
const Bytes = vector.Bytes;
const Shorts = vector.Shorts;
const Ints = vector.Ints;
const Floats = vector.Floats;
const Recipe = layout.Recipe;
const Tile = layout.Tile;
const Panel = layout.Panel;
const columns = layout.columns;
const panel_rows = layout.panel_rows;

/// A vector of sums is of so many rows and columns.
const sum_rows = vector.sum_rows;
const sum_columns = vector.sum_columns;
/// Vectors of columns in a register tile, and its rows: as many as the registers leave room for.
const nr = 2 * sum_rows;
fn mostRows(comptime shape: Recipe) comptime_int {
    return if (vector.registers == 32 or shape.signedPairs()) 6 else 3;
}
/// For the last panel, of which no more may be there.
const few_rows = if (sum_rows == 1) 3 else 4;
/// Registers suffice to keep the float accumulators over a whole tile.
const resident = vector.registers == 32;

/// What kernels take beside the panel, computed for the whole tile before they run: what sums start
/// from, or activations as words.
const Prepared = struct {
    const capacity = layout.depth / 8 * panel_rows + vector.lanes;
    /// -offset * Σa per sub-block; on `pairs` variants as two i16, per run of pair sums.
    bias: [capacity]i32,
    /// f32(Σa) per group of 32.
    sums: [capacity]f32,
    /// Activations for a tile of words: those at 0 and 2 of each four, and those at 1 and 3.
    words: [2][layout.depth / 4 * panel_rows]i32 align(64),

    fn fill(
        prepared: *Prepared,
        comptime recipe: Recipe,
        panel: *const Panel.View,
        kc: usize,
    ) void {
        if (comptime recipe.signedPairs()) return prepared.fillWords(panel, kc);
        const minus_offset: i16 = -recipe.offset;
        const run_dwords = comptime if (vector.in_pairs) recipe.pairDwords() else recipe.sub / 4;
        const in_runs = recipe.offset != 0 and 4 * run_dwords < @min(recipe.sub, 32);
        if (in_runs) return prepared.fillRuns(run_dwords, minus_offset, panel, kc);
        if (recipe.group == 256 and recipe.sub == 32) {
            return prepared.fillThirtyTwos(minus_offset, panel, kc);
        }
        const source = switch (recipe.sub) {
            16 => panel.lane_16,
            32 => panel.lane_32,
            else => panel.sum_256,
        };
        const count = kc / recipe.sub * panel_rows;
        var i: usize = 0;
        while (i < count) : (i += vector.lanes) {
            const sums = vector.load(Ints, source + i);
            const pairs: Shorts = @bitCast(sums);
            const bias: Ints = if (recipe.sub == 256)
                sums *% vector.splat(Ints, minus_offset)
            else if (vector.in_pairs)
                @bitCast(pairs *% vector.splat(Shorts, minus_offset))
            else
                vector.pairDot(pairs, @splat(minus_offset));
            if (recipe.offset != 0) vector.store(prepared.bias[i..].ptr, bias);
            const total: Floats = @floatFromInt(vector.pairDot(pairs, @splat(1)));
            if (recipe.has_min) vector.store(prepared.sums[i..].ptr, total);
        }
    }

    fn fillWords(prepared: *Prepared, panel: *const Panel.View, kc: usize) void {
        var i: usize = 0;
        while (i < kc / 4 * panel_rows) : (i += vector.lanes) {
            const pairs = vector.splitWords(vector.load(vector.Words, panel.quants + i));
            inline for (&prepared.words, pairs) |*words, pair| vector.store(words[i..].ptr, pair);
        }
    }

    /// Sums of `dwords` fours of activations, which are packed nowhere.
    fn fillRuns(
        prepared: *Prepared,
        comptime dwords: comptime_int,
        minus_offset: i16,
        panel: *const Panel.View,
        kc: usize,
    ) void {
        const ones: Bytes = @splat(1);
        for (0..kc / 4 / dwords) |step| {
            var r: usize = 0;
            while (r < panel_rows) : (r += vector.lanes) {
                var sum: Ints = @splat(0);
                inline for (0..dwords) |i| {
                    const quants = panel.quants + (step * dwords + i) * panel_rows + r;
                    const dword = vector.load(Bytes, quants);
                    sum = if (vector.in_pairs)
                        @bitCast(@as(Shorts, @bitCast(sum)) +% vector.pairs(ones, dword))
                    else
                        vector.dot(sum, ones, dword);
                }
                const bias: Ints = if (vector.in_pairs)
                    @bitCast(@as(Shorts, @bitCast(sum)) *% vector.splat(Shorts, minus_offset))
                else
                    sum *% vector.splat(Ints, minus_offset);
                vector.store(prepared.bias[step * panel_rows + r ..].ptr, bias);
            }
        }
    }

    /// Super-blocks with sub-blocks of 32: their sums are those of two neighbouring 16s.
    fn fillThirtyTwos(
        prepared: *Prepared,
        minus_offset: i16,
        panel: *const Panel.View,
        kc: usize,
    ) void {
        for (0..kc / 32) |step| {
            var r: usize = 0;
            while (r < panel_rows) : (r += vector.lanes) {
                const source = panel.lane_16 + 2 * step * panel_rows + r;
                const pairs = vector.load(Shorts, source) +% vector.load(Shorts, source + panel_rows);
                const bias: Ints = if (vector.in_pairs)
                    @bitCast(pairs *% vector.splat(Shorts, minus_offset))
                else
                    vector.pairDot(pairs, @splat(minus_offset));
                // What passes the step's rows is overwritten by the next step.
                vector.store(prepared.bias[step * panel_rows + r ..].ptr, bias);
            }
        }
    }
};

/// out `[panel_rows][columns]` = +0, what the canonical order starts from.
pub fn clear(out: [*]align(64) f32) void {
    const vectors: [*]Floats = @ptrCast(out);
    inline for (0..panel_rows * columns / vector.lanes) |i| vectors[i] = @splat(0);
}

/// Puts `out` in rows when all of K has been added; before, `sum_rows` rows lie column by column.
pub fn finish(out: [*]align(64) f32) void {
    if (sum_rows == 1) return;
    for (0..panel_rows / 2) |r| {
        const both: *[2 * columns]f32 = out[r * 2 * columns ..][0 .. 2 * columns];
        const first, const second = std.simd.deinterlace(2, @as(@Vector(2 * columns, f32), both.*));
        both[0..columns].* = first;
        both[columns..].* = second;
    }
}

/// out += panel · tile over `kc` weights, in its first `rows` rows at least.
pub fn multiply(
    comptime recipe: Recipe,
    tile: *const Tile,
    panel: *const Panel.View,
    rows: usize,
    kc: usize,
    out: [*]align(64) f32,
) void {
    var prepared: Prepared = undefined;
    const has_sums = recipe.offset != 0 or (recipe.group == 32 and recipe.has_min);
    if (has_sums or comptime recipe.signedPairs()) prepared.fill(recipe, panel, kc);
    const shape = comptime recipe.shape();
    if (rows <= few_rows) {
        Kernel(shape, few_rows).run(tile, panel, &prepared, rows, kc, out);
    } else Kernel(shape, mostRows(shape)).run(tile, panel, &prepared, rows, kc, out);
}

/// `shape` is a recipe without what only `Prepared` needs, so that types share kernels; `tile_rows`
/// rows of a register tile, of whose sums twice as many are live in super-blocks.
fn Kernel(comptime shape: Recipe, comptime tile_rows: usize) type {
    // Vectors of rows in a register tile.
    const mr = tile_rows / sum_rows;

    return struct {
        const Sums = [mr][nr]Ints;
        const Self = @This();

        tile: *const Tile,
        panel: Panel.View,
        prepared: *const Prepared,
        out: [*]align(64) f32,
        column: usize,
        row: usize,

        noinline fn run(
            tile: *const Tile,
            panel: *const Panel.View,
            prepared: *const Prepared,
            rows: usize,
            kc: usize,
            out: [*]align(64) f32,
        ) void {
            var self: Self = .{
                .tile = tile,
                .panel = panel.*,
                .prepared = prepared,
                .out = out,
                .column = 0,
                .row = 0,
            };
            while (self.column < columns) : (self.column += nr * sum_columns) {
                self.row = 0;
                while (self.row < rows) : (self.row += tile_rows) {
                    if (shape.group == 32) self.blocks(kc) else self.superBlocks(kc);
                }
            }
        }

        /// 32-blocks: t = f32(s) * d, then + f32(Σa) * m; acc = fma(t, d_a, acc)
        inline fn blocks(self: Self, kc: usize) void {
            @setEvalBranchQuota(10000);
            if (shape.has_two_scales) return self.halvedBlocks(kc);
            var kept: [mr][nr]Floats = undefined;
            if (resident) inline for (0..mr) |r| inline for (0..nr) |v| {
                kept[r][v] = self.target(r, v).*;
            };
            for (0..kc / 32) |b| {
                var sums: Sums = undefined;
                self.addProducts(8, true, &sums, b * 8, b);
                inline for (0..nr) |v| inline for (0..mr) |r| {
                    const scale = self.columnsOf(Floats, &self.tile.scale[b], v);
                    var t = @as(Floats, @floatFromInt(sums[r][v])) * scale;
                    if (shape.has_min) {
                        const min = self.columnsOf(Floats, &self.tile.min[b], v);
                        t = self.multiplyAddRows(min, &self.prepared.sums, b, r, t);
                    }
                    const acc = if (resident) &kept[r][v] else self.target(r, v);
                    acc.* = self.multiplyAddRows(t, self.panel.scale, b, r, acc.*);
                };
            }
            if (resident) inline for (0..mr) |r| inline for (0..nr) |v| {
                self.target(r, v).* = kept[r][v];
            };
        }

        /// t = f32(s0) * d0, then + f32(s1) * d1; acc = fma(t, d_a, acc)
        inline fn halvedBlocks(self: Self, kc: usize) void {
            for (0..kc / 32) |b| {
                var sums: Sums = undefined;
                var terms: [mr][nr]Floats = undefined;
                self.addProducts(4, true, &sums, b * 8, 2 * b);
                inline for (0..nr) |v| inline for (0..mr) |r| {
                    const scale = self.columnsOf(Floats, &self.tile.scale[b], v);
                    // Before the second half: there are no registers for the sums of both.
                    terms[r][v] = vector.inOrder(@as(Floats, @floatFromInt(sums[r][v])) * scale);
                };
                vector.apart();
                self.addProducts(4, true, &sums, b * 8 + 4, 2 * b + 1);
                inline for (0..nr) |v| inline for (0..mr) |r| {
                    const second = self.columnsOf(Floats, &self.tile.min[b], v);
                    const sum: Floats = @floatFromInt(sums[r][v]);
                    const t = vector.multiplyAdd(sum, second, terms[r][v]);
                    const acc = self.target(r, v);
                    acc.* = self.multiplyAddRows(t, self.panel.scale, b, r, acc.*);
                };
                vector.apart();
            }
        }

        /// K-quants: one exact integer sum over the 256 weights of a super-block.
        inline fn superBlocks(self: Self, kc: usize) void {
            @setEvalBranchQuota(10000);
            const dwords: comptime_int = @min(shape.sub, 32) / 4;
            const steps = 64 / dwords;
            for (0..kc / 256) |b| {
                var sums: Sums = @splat(@splat(@splat(0)));
                if (shape.sub == 256) self.addProducts(dwords, true, &sums, b * 64, b);
                const first = if (shape.sub == 256) 1 else 0;
                for (b * steps + first..(b + 1) * steps) |s| {
                    self.addProducts(dwords, false, &sums, s * dwords, s);
                }
                self.addSuperBlock(&sums, b);
            }
        }

        /// t = f32(s) * d, then - f32(m) * dmin; acc = fma(t, d_a, acc)
        inline fn addSuperBlock(self: Self, sums: *const Sums, b: usize) void {
            var mins: Sums = undefined;
            if (shape.has_min) self.sumMins(&mins, b);
            inline for (0..nr) |v| inline for (0..mr) |r| {
                const sum = if (shape.negated) vector.splat(Ints, 0) -% sums[r][v] else sums[r][v];
                const scale = self.columnsOf(Floats, &self.tile.scale[b], v);
                var t = @as(Floats, @floatFromInt(sum)) * scale;
                if (shape.has_min) {
                    const min = self.columnsOf(Floats, &self.tile.min[b], v);
                    t = vector.multiplyAdd(-@as(Floats, @floatFromInt(mins[r][v])), min, t);
                }
                const acc = self.target(r, v);
                acc.* = self.multiplyAddRows(t, self.panel.scale, b, r, acc.*);
            };
        }

        /// Σ min_j Σa_j over the sub-blocks of a super-block, two of them at a time.
        inline fn sumMins(self: Self, mins: *Sums, b: usize) void {
            const steps = if (shape.min_sub == 16) 8 else 4;
            const pairs = if (shape.min_sub == 16) self.panel.pair_16 else self.panel.pair_32;
            mins.* = @splat(@splat(@splat(0)));
            inline for (0..steps) |i| {
                const step = b * steps + i;
                inline for (0..mr) |r| {
                    const pair = self.rowsOf(Shorts, pairs, step, r);
                    inline for (0..nr) |v| {
                        const min = self.columnsOf(Shorts, &self.tile.min_pair[step], v);
                        mins[r][v] = vector.addPairDot(mins[r][v], min, pair);
                    }
                }
            }
        }

        /// sums (+)= the products of `dwords` steps of 4 weights from `first` on, and bias and
        /// multiplier `step` where the recipe has them.
        inline fn addProducts(
            self: Self,
            comptime dwords: comptime_int,
            comptime fresh: bool,
            sums: *Sums,
            first: usize,
            step: usize,
        ) void {
            const add = if (comptime shape.signedPairs())
                addWords
            else if (vector.in_pairs) addInPairs else addDots;
            add(self, dwords, fresh, sums, first, step);
        }

        inline fn addDots(
            self: Self,
            comptime dwords: comptime_int,
            comptime fresh: bool,
            sums: *Sums,
            first: usize,
            step: usize,
        ) void {
            const multiplied = shape.group == 256 and shape.sub < 256;
            var chain: Sums = undefined;
            inline for (0..mr) |r| inline for (0..nr) |v| {
                chain[r][v] = if (fresh or multiplied) self.bias(Ints, step, r) else sums[r][v];
            };
            inline for (0..dwords / vector.dot_dwords) |j| {
                const dword = first + j * vector.dot_dwords;
                const weights = self.weightsOf(dword);
                inline for (0..mr) |r| {
                    const a = self.activations(dword, r);
                    inline for (0..nr) |v| chain[r][v] = vector.dotTile(chain[r][v], weights[v], a);
                }
            }
            if (!multiplied) {
                sums.* = chain;
                return;
            }
            inline for (0..nr) |v| {
                const factor = self.columnsOf(Ints, &self.tile.multiplier[step], v);
                inline for (0..mr) |r| sums[r][v] +%= chain[r][v] *% factor;
            }
        }

        inline fn addWords(
            self: Self,
            comptime dwords: comptime_int,
            comptime fresh: bool,
            sums: *Sums,
            first: usize,
            _: usize,
        ) void {
            inline for (0..dwords) |j| inline for (0..2) |half| {
                const line = &self.tile.weights[2 * (first + j) + half];
                var weights: [nr]Shorts = undefined;
                inline for (&weights, 0..) |*w, v| {
                    // Loads bound this loop: once for all rows.
                    w.* = vector.inOrder(self.columnsOf(Shorts, line, v));
                }
                const at = (first + j) * panel_rows + self.row;
                inline for (0..mr) |r| {
                    const a = vector.broadcast(Shorts, self.prepared.words[half][at + r]);
                    inline for (0..nr) |v| {
                        const sum = vector.pairDot(weights[v], a);
                        sums[r][v] = if (fresh and j == 0 and half == 0)
                            sum
                        else
                            vector.inOrder(sums[r][v] +% sum);
                    }
                }
            };
        }

        inline fn addInPairs(
            self: Self,
            comptime dwords: comptime_int,
            comptime fresh: bool,
            sums: *Sums,
            first: usize,
            step: usize,
        ) void {
            const run_dwords = shape.pairDwords();
            const runs = dwords / run_dwords;
            inline for (0..runs) |run_index| {
                var chain: [mr][nr]Shorts = undefined;
                inline for (0..run_dwords) |j| {
                    const dword = first + run_index * run_dwords + j;
                    const weights = self.weightsOf(dword);
                    inline for (0..mr) |r| {
                        const a = self.activations(dword, r);
                        inline for (0..nr) |v| {
                            const product = vector.pairs(weights[v], a);
                            chain[r][v] = if (j > 0)
                                vector.inOrder(chain[r][v] +% product)
                            else if (shape.offset != 0)
                                self.bias(Shorts, step * runs + run_index, r) +% product
                            else
                                product;
                        }
                    }
                }
                inline for (0..nr) |v| {
                    const factor: Shorts = if (shape.group == 256)
                        self.columnsOf(Shorts, &self.tile.multiplier[step], v)
                    else
                        @splat(1);
                    inline for (0..mr) |r| {
                        const sum = vector.pairDot(chain[r][v], factor);
                        sums[r][v] = if (fresh and run_index == 0)
                            sum
                        else
                            vector.inOrder(sums[r][v] +% sum);
                    }
                }
            }
        }

        /// The register tile's weights, `vector.dot_dwords` of each column.
        inline fn weightsOf(self: Self, dword: usize) [nr]Bytes {
            const lines: [*]const u32 = &self.tile.weights[dword];
            var weights: [nr]Bytes = undefined;
            inline for (&weights, 0..) |*w, v| {
                const from = lines + self.column * vector.dot_dwords + v * vector.lanes;
                w.* = @as(*const Bytes, @ptrCast(@alignCast(from))).*;
            }
            return weights;
        }

        inline fn bias(self: Self, comptime T: type, step: usize, comptime r: usize) T {
            if (shape.offset == 0) return @splat(0);
            return self.rowsOf(T, &self.prepared.bias, step, r);
        }

        inline fn activations(self: Self, dword: usize, comptime r: usize) Bytes {
            const line = self.panel.quants + Panel.quantsAt(dword, self.row);
            if (sum_rows == 2) return vector.load(Bytes, line + 4 * r);
            if (vector.products != .signed_dot) return vector.broadcast(Bytes, line[r]);
            // Arm multiplies by one element of a register: two loads serve all six rows.
            const start = if (r < 4) 0 else 2;
            const quad = vector.load(Ints, line + start);
            return @bitCast(@shuffle(i32, quad, undefined, @as([4]i32, @splat(r - start))));
        }

        /// What vector `v` of the register tile's columns meets in one row of the weight tile.
        inline fn columnsOf(self: Self, comptime T: type, line: anytype, comptime v: usize) T {
            const first = &line[self.column + v * sum_columns];
            if (sum_rows == 1) return @as(*const T, @ptrCast(@alignCast(first))).*;
            const each = vector.load(@Vector(2, u32), first);
            return @bitCast(@shuffle(u32, each, undefined, [4]i32{ 0, 0, 1, 1 }));
        }

        /// What vector `r` of the register tile's rows meets in step `step` of a panel's part.
        inline fn rowsOf(
            self: Self,
            comptime T: type,
            part: anytype,
            step: usize,
            comptime r: usize,
        ) T {
            const first = &part[step * panel_rows + self.row + r * sum_rows];
            if (sum_rows == 1) return vector.broadcast(T, @bitCast(first.*));
            const both: @Vector(2, u64) = @splat(vector.load(u64, first));
            return @bitCast(both);
        }

        /// a * the rows' values + c
        inline fn multiplyAddRows(
            self: Self,
            a: Floats,
            part: anytype,
            step: usize,
            comptime r: usize,
            c: Floats,
        ) Floats {
            if (sum_rows == 2) return vector.multiplyAdd(a, self.rowsOf(Floats, part, step, r), c);
            return vector.multiplyAddBy(a, part[step * panel_rows + self.row + r], c);
        }

        /// Where vector `v` of the columns and `r` of the rows is kept; see `finish`.
        inline fn target(self: Self, comptime r: usize, comptime v: usize) *Floats {
            const line = self.out + (self.row + r * sum_rows) * columns;
            return @ptrCast(@alignCast(line + self.column * sum_rows + v * vector.lanes));
        }
    };
}
