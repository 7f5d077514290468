//! Opens a plan's binary form and checks every index and count in it once, at load, so that ops
//! can trust them; checks a step's counts before each run.
const std = @import("std");
const plan = @import("plan.zig");
const kv_cache = @import("cpu/kv_cache.zig");
const quant = @import("quant/quant.zig");
const interleave = @import("interleave.zig");
const worker = @import("worker.zig");

/// Fills in the tables of `step`; returns what is wrong, or null.
pub fn open(bytes: []align(8) const u8, step: *worker.Step) ?[]const u8 {
    if (bytes.len < @sizeOf(plan.Header)) return "shorter than its header";
    const header: *const plan.Header = @ptrCast(bytes.ptr);
    if (header.magic != plan.magic) return "wrong magic";
    if (header.version != plan.version) return "wrong version";
    var offset: usize = @sizeOf(plan.Header);
    step.header = header;
    step.tensors = take(plan.Tensor, bytes, &offset, header.num_tensors) orelse return "tensor table cut";
    step.weights = take(plan.Weight, bytes, &offset, header.num_weights) orelse return "weight table cut";
    step.caches = take(plan.Cache, bytes, &offset, header.num_caches) orelse return "cache table cut";
    step.ops = take(plan.Op, bytes, &offset, header.num_ops) orelse return "ops cut";
    if (offset != bytes.len) return "bytes left over";
    for (step.tensors) |tensor| {
        const rows: u64 = switch (tensor.rows) {
            .tokens => header.max_tokens,
            .outputs => header.max_outputs,
        };
        if (tensor.offset % 64 != 0) return "tensor not aligned";
        if (tensor.offset + rows * tensor.width * 4 > header.arena_bytes) return "tensor outside the arena";
    }
    for (step.weights) |*weight| if (checkWeight(step.weights, weight)) |problem| return problem;
    for (step.caches) |*cache| {
        if (cache.offset % 64 != 0 or cache.num_kv_heads == 0) return "cache misplaced or without heads";
        const planes = kv_cache.Layout.of(cache, header.num_blocks).plane_bytes;
        if (cache.offset + planes * cache.num_kv_heads > header.kv_bytes) return "cache outside the KV pool";
    }
    for (step.ops) |*op| if (checkOp(step, op)) |problem| return problem;
    return null;
}

fn take(comptime T: type, bytes: []align(8) const u8, offset: *usize, count: u32) ?[]const T {
    const length = @as(usize, count) * @sizeOf(T);
    if (length > bytes.len - offset.*) return null;
    const start: [*]const T = @ptrCast(@alignCast(bytes.ptr + offset.*));
    offset.* += length;
    return start[0..count];
}

fn checkWeight(weights: []const plan.Weight, weight: *const plan.Weight) ?[]const u8 {
    const known = quant.fromId(weight.type) orelse return "weight type without kernels";
    if (weight.cols % quant.blockLen(known) != 0) return "weight rows are not whole quant blocks";
    if (weight.rows == 0 or weight.cols == 0) return "empty weight";
    if (!hasLayout(weight, weight.layout)) return "weight cannot be interleaved";
    if (weight.scales == plan.none) return null;
    if (!quant.isScaled(known)) return "weight whose type has no scales";
    return checkScales(weights, weight);
}

/// Whether kernels take the weight in this layout.
pub fn hasLayout(weight: *const plan.Weight, layout: plan.Layout) bool {
    return switch (layout) {
        .rows => true,
        .interleaved => weight.rows % interleave.row_step == 0 and
            interleave.fits(quant.fromId(weight.type).?, weight.cols),
        _ => false,
    };
}

fn checkScales(weights: []const plan.Weight, weight: *const plan.Weight) ?[]const u8 {
    if (weight.scales >= weights.len) return "scales out of range";
    const scales = weights[weight.scales];
    if (scales.type != @intFromEnum(quant.Type.f32)) return "scales that are not f32";
    const block_cols = weight.block_cols;
    if (weight.block_rows == 0 or block_cols == 0) return "empty scale blocks";
    if (block_cols < weight.cols and block_cols % 16 != 0) return "scale blocks are not whole steps";
    if (scales.cols != (@as(u64, weight.cols) + block_cols - 1) / block_cols) return "scales per row";
    const last_row = @as(u64, weight.first_row) + weight.rows - 1;
    return if (last_row / weight.block_rows >= scales.rows) "rows without scales" else null;
}

/// Operand fields are recognised by name, so a new op needs no line here.
const tensor_fields = [_][]const u8{ "input", "output", "q", "k", "v", "rotations", "logits", "routing", "slot_routing", "gate_input", "up_input" };
const weight_fields = [_][]const u8{ "weight", "bias", "gate", "gate_bias", "up", "up_bias", "frequencies", "sinks", "selection_bias", "lengths" };

fn checkOp(step: *const worker.Step, op: *const plan.Op) ?[]const u8 {
    return switch (op.opcode) {
        .embed => checkEmbed(step, op.as(plan.Embed)),
        .gather_rows => checkFields(step, op.as(plan.GatherRows)),
        .norm => checkNorm(step, op.as(plan.Norm)),
        .linear => checkLinear(step, op.as(plan.Linear)),
        .linear_glu => checkLinearGlu(step, op.as(plan.LinearGlu)),
        .rotations => checkFields(step, op.as(plan.Rotations)),
        .qkv_prep => checkQkvPrep(step, op.as(plan.QkvPrep)),
        .attention_paged => checkAttention(step, op.as(plan.AttentionPaged)),
        .sample => checkFields(step, op.as(plan.Sample)),
        .route => checkRoute(step, op.as(plan.Route)),
        .scale_slots => checkScaleSlots(step, op.as(plan.ScaleSlots)),
        .expert_glu => checkExpertGlu(step, op.as(plan.ExpertGlu)),
        .expert_linear => checkExpertLinear(step, op.as(plan.ExpertLinear)),
        .unary => checkFields(step, op.as(plan.Unary)),
        .add => checkAdd(step, op.as(plan.Add)),
        .glu => checkGlu(step, op.as(plan.Glu)),
        .position_scale => checkPositionScale(step, op.as(plan.PositionScale)),
        .copy_columns => checkCopyColumns(step, op.as(plan.CopyColumns)),
        .slot_linear => checkSlotLinear(step, op.as(plan.SlotLinear)),
        .sum_slots => checkSumSlots(step, op.as(plan.SumSlots)),
        .magnitude => checkMagnitude(step, op.as(plan.Magnitude)),
        .adapter_scale => checkAdapterScale(step, op.as(plan.AdapterScale)),
        _ => "unknown opcode",
    };
}

fn checkLinear(step: *const worker.Step, op: *const plan.Linear) ?[]const u8 {
    if (op.num_outputs == 0 or op.num_outputs > plan.max_linear_outputs) return "bad number of outputs";
    for (op.outputs[0..op.num_outputs]) |*output| {
        if (checkFields(step, output)) |problem| return problem;
        if (step.weights[output.weight].cols != step.tensors[op.input].width) return "linear shapes differ";
        if (step.weights[output.weight].rows != step.tensors[output.output].width) return "linear shapes differ";
    }
    return checkFields(step, op) orelse checkRowNorm(step, op.input, &op.norm);
}

fn checkNorm(step: *const worker.Step, op: *const plan.Norm) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (op.norm.kind == .absent) return "norm of no kind";
    const width = step.tensors[op.input].width;
    if (op.group_width == 0 or width % op.group_width != 0) return "norm groups";
    if (step.tensors[op.output].width != width) return "norm width";
    if (checkFields(step, &op.norm)) |problem| return problem;
    var narrowest = width;
    for ([_]u32{ op.norm.weight, op.norm.bias }) |id| {
        if (id == plan.none) continue;
        const cols = step.weights[id].cols;
        if (cols != op.group_width and cols != width) return "norm width";
        if (narrowest != width and cols != narrowest) return "norm weight and bias differ in width";
        narrowest = cols;
    }
    return null;
}

fn checkEmbed(step: *const worker.Step, op: *const plan.Embed) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    return if (step.tensors[op.output].width != step.weights[op.weight].cols) "embedding width" else null;
}

fn checkAdd(step: *const worker.Step, op: *const plan.Add) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const input = step.tensors[op.input];
    const output = step.tensors[op.output];
    return if (input.width != output.width or input.rows != output.rows) "add shapes differ" else null;
}

fn checkGlu(step: *const worker.Step, op: *const plan.Glu) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const gate = step.tensors[op.gate_input];
    const up = step.tensors[op.up_input];
    const output = step.tensors[op.output];
    if (gate.rows != up.rows or up.rows != output.rows or up.width != output.width) return "glu shapes differ";
    return if (gate.width != 1 and gate.width != up.width) "glu shapes differ" else null;
}

fn checkPositionScale(step: *const worker.Step, op: *const plan.PositionScale) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (step.tensors[op.output].rows != .tokens) return "positions of output rows";
    return if (op.interval == 0) "empty interval" else null;
}

fn checkAdapterScale(step: *const worker.Step, op: *const plan.AdapterScale) ?[]const u8 {
    if (op.adapter >= plan.max_adapters) return "adapter out of range";
    return checkFields(step, op);
}

fn checkCopyColumns(step: *const worker.Step, op: *const plan.CopyColumns) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const input = step.tensors[op.input];
    const output = step.tensors[op.output];
    if (op.count == 0 or input.rows != output.rows) return "copy_columns shapes differ";
    const last: u64 = op.count - 1;
    if (op.input_start + last * op.input_stride + op.width > input.width) return "columns outside the input";
    if (op.output_start + last * op.output_stride + op.width > output.width) return "columns outside the output";
    return null;
}

/// Slots of a row; without a routing there is one for each of `num_matrices`.
fn checkSlots(step: *const worker.Step, routing: u32, num_matrices: u32, others: [2]u32) error{Bad}!u64 {
    if (routing == plan.none) return num_matrices;
    if (checkRouting(step, routing, others) != null) return error.Bad;
    return step.tensors[routing].width / 2;
}

fn checkSlotLinear(step: *const worker.Step, op: *const plan.SlotLinear) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (checkExperts(step, op.weight, op.bias, op.num_matrices)) |problem| return problem;
    const slots = checkSlots(step, op.slot_routing, op.num_matrices, .{ op.input, op.output }) catch
        return "slot_linear routing";
    const shape = step.weights[op.weight];
    const width = step.tensors[op.input].width;
    if (step.tensors[op.input].rows != step.tensors[op.output].rows) return "slot_linear shapes differ";
    if (width != shape.cols and width != slots * shape.cols) return "slot_linear shapes differ";
    return if (step.tensors[op.output].width != slots * shape.rows) "slot_linear shapes differ" else null;
}

fn checkSumSlots(step: *const worker.Step, op: *const plan.SumSlots) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (checkRouting(step, op.routing, .{ op.input, op.output })) |problem| return problem;
    const wanted = @as(u64, step.tensors[op.routing].width / 2) * step.tensors[op.output].width;
    return if (step.tensors[op.input].width != wanted) "sum_slots shapes differ" else null;
}

fn checkMagnitude(step: *const worker.Step, op: *const plan.Magnitude) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (op.adapter >= plan.max_adapters) return "adapter out of range";
    if (op.lengths == plan.none) return "magnitude lengths";
    const lengths = step.weights[op.lengths];
    if (lengths.rows % 4 != 0 or quant.fromId(lengths.type) != .f32) return "magnitude lengths";
    const num_matrices = lengths.rows / 4;
    const slots = checkSlots(step, op.slot_routing, num_matrices, .{ op.input, op.output }) catch
        return "magnitude routing";
    const input = step.tensors[op.input];
    const output = step.tensors[op.output];
    if (input.width != output.width or input.rows != output.rows) return "magnitude shapes differ";
    if (output.width != slots * lengths.cols) return "magnitude shapes differ";
    if (op.bias == plan.none) return null;
    const biases = step.weights[op.bias];
    return if (biases.rows != num_matrices or biases.cols != lengths.cols) "magnitude biases" else null;
}

fn checkRowNorm(step: *const worker.Step, input: u32, norm: *const plan.RowNorm) ?[]const u8 {
    if (norm.kind == .absent) return null;
    if (checkFields(step, norm)) |problem| return problem;
    for ([_]u32{ norm.weight, norm.bias }) |id| {
        if (id == plan.none) continue;
        if (step.weights[id].cols != step.tensors[input].width) return "norm width";
    }
    return null;
}

fn checkLinearGlu(step: *const worker.Step, op: *const plan.LinearGlu) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const gate = step.weights[op.gate];
    const up = step.weights[op.up];
    if (gate.rows != up.rows or gate.cols != up.cols) return "gate and up differ in shape";
    if (gate.cols != step.tensors[op.input].width) return "linear_glu shapes differ";
    if (checkRowNorm(step, op.input, &op.norm)) |problem| return problem;
    return if (gate.rows != step.tensors[op.output].width) "linear_glu shapes differ" else null;
}

fn checkRoute(step: *const worker.Step, op: *const plan.Route) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const num_experts = step.tensors[op.logits].width;
    if (num_experts == 0 or num_experts > plan.max_experts) return "number of experts";
    if (op.num_groups == 0 or num_experts % op.num_groups != 0) return "experts are not whole groups";
    if (op.num_groups_used == 0 or op.num_groups_used > op.num_groups) return "number of groups used";
    const reachable = num_experts / op.num_groups * op.num_groups_used;
    if (op.num_slots == 0 or op.num_slots > reachable) return "experts per token";
    if (step.tensors[op.output].width != 2 * op.num_slots) return "routing width";
    if (op.selection_bias == plan.none) return null;
    return if (step.weights[op.selection_bias].cols != num_experts) "selection bias" else null;
}

fn checkRouting(step: *const worker.Step, routing: u32, others: [2]u32) ?[]const u8 {
    const tensor = step.tensors[routing];
    if (tensor.width == 0 or tensor.width % 2 != 0) return "routing width";
    for (others) |other| if (step.tensors[other].rows != tensor.rows) return "rows without routing";
    return null;
}

fn checkScaleSlots(step: *const worker.Step, op: *const plan.ScaleSlots) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (checkRouting(step, op.routing, .{ op.input, op.output })) |problem| return problem;
    const wanted = step.tensors[op.routing].width / 2 * step.tensors[op.input].width;
    return if (step.tensors[op.output].width != wanted) "scale_slots shapes differ" else null;
}

/// `count` weights from `first` on, all of the shape of the first; biases a row for each.
fn checkExperts(step: *const worker.Step, first: u32, bias: u32, count: u32) ?[]const u8 {
    if (count == 0 or count > plan.max_experts) return "number of experts";
    if (count > step.weights.len - first) return "expert out of range";
    const shape = step.weights[first];
    for (step.weights[first..][0..count]) |weight| {
        if (weight.rows != shape.rows or weight.cols != shape.cols) return "experts differ in shape";
    }
    if (bias == plan.none) return null;
    const biases = step.weights[bias];
    return if (biases.rows != count or biases.cols != shape.rows) "expert biases" else null;
}

fn checkExpertGlu(step: *const worker.Step, op: *const plan.ExpertGlu) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (checkRouting(step, op.routing, .{ op.input, op.output })) |problem| return problem;
    if (checkExperts(step, op.gate, op.gate_bias, op.num_experts)) |problem| return problem;
    if (checkExperts(step, op.up, op.up_bias, op.num_experts)) |problem| return problem;
    const gate = step.weights[op.gate];
    const up = step.weights[op.up];
    if (gate.rows != up.rows or gate.cols != up.cols) return "gate and up differ in shape";
    const num_slots = step.tensors[op.routing].width / 2;
    const width = step.tensors[op.input].width;
    if (width != gate.cols and width != num_slots * gate.cols) return "expert_glu shapes differ";
    return if (step.tensors[op.output].width != num_slots * gate.rows) "expert_glu shapes differ" else null;
}

fn checkExpertLinear(step: *const worker.Step, op: *const plan.ExpertLinear) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    if (checkRouting(step, op.routing, .{ op.input, op.output })) |problem| return problem;
    if (checkExperts(step, op.weight, op.bias, op.num_experts)) |problem| return problem;
    const weight = step.weights[op.weight];
    const width = step.tensors[op.input].width;
    const num_slots = step.tensors[op.routing].width / 2;
    if (width != weight.cols and width != num_slots * weight.cols) return "expert_linear shapes differ";
    return if (step.tensors[op.output].width != weight.rows) "expert_linear shapes differ" else null;
}

fn checkHeads(cache: plan.Cache, num_heads: u32) ?[]const u8 {
    if (num_heads == 0 or num_heads % cache.num_kv_heads != 0) return "heads are not whole groups";
    return if (cache.head_dim == 0 or cache.head_dim % 2 != 0) "odd head size" else null;
}

fn checkQkvPrep(step: *const worker.Step, op: *const plan.QkvPrep) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const cache = step.caches[op.cache];
    if (checkHeads(cache, op.num_heads)) |problem| return problem;
    if (step.tensors[op.q].width != op.num_heads * cache.head_dim) return "q width";
    if (step.tensors[op.k].width != cache.num_kv_heads * cache.head_dim) return "k width";
    if (step.tensors[op.v].width != cache.num_kv_heads * cache.value_dim) return "v width";
    if (op.pairing == .none) return null;
    if (op.rotations == plan.none) return "rotation without a table";
    return if (step.tensors[op.rotations].width > cache.head_dim) "rotation wider than a head" else null;
}

fn checkAttention(step: *const worker.Step, op: *const plan.AttentionPaged) ?[]const u8 {
    if (checkFields(step, op)) |problem| return problem;
    const cache = step.caches[op.cache];
    if (checkHeads(cache, op.num_heads)) |problem| return problem;
    if (step.tensors[op.q].width != op.num_heads * cache.head_dim) return "q width";
    return if (step.tensors[op.output].width != op.num_heads * cache.value_dim) "output width" else null;
}

fn checkFields(step: *const worker.Step, op: anytype) ?[]const u8 {
    const T = @typeInfo(@TypeOf(op)).pointer.child;
    inline for (@typeInfo(T).@"struct".fields) |field| {
        if (field.type == u32) {
            const value = @field(op, field.name);
            if (comptime isIn(field.name, &tensor_fields)) {
                const optional = comptime isIn(field.name, &.{ "rotations", "slot_routing" });
                if (!(optional and value == plan.none) and value >= step.tensors.len) return "operand out of range";
            }
            if (comptime isIn(field.name, &weight_fields)) {
                if (value != plan.none and value >= step.weights.len) return "weight out of range";
            }
            if (comptime std.mem.eql(u8, field.name, "cache")) {
                if (value >= step.caches.len) return "cache out of range";
            }
        }
    }
    return null;
}

fn isIn(comptime name: []const u8, comptime list: []const []const u8) bool {
    for (list) |entry| if (std.mem.eql(u8, entry, name)) return true;
    return false;
}

/// Checks a step's counts, token ids and tables against the plan's limits.
pub fn checkStep(s: *const worker.Step) ?[]const u8 {
    const data = s.data;
    const header = s.header;
    if (data.num_tokens == 0 or data.num_tokens > header.max_tokens) return "token count";
    if (data.num_outputs > header.max_outputs) return "output count";
    if (data.num_sequences == 0 or data.num_sequences > header.max_sequences) return "sequence count";
    const starts = s.array(u32, data.query_starts)[0 .. data.num_sequences + 1];
    if (starts[0] != 0 or starts[data.num_sequences] != data.num_tokens) return "query starts";
    const kv_lens = s.array(u32, data.kv_lens);
    for (0..data.num_sequences) |i| {
        if (starts[i + 1] <= starts[i]) return "empty sequence";
        const blocks = (kv_lens[i] + plan.block_size - 1) / plan.block_size;
        if (kv_lens[i] < starts[i + 1] - starts[i] or blocks > data.block_table_stride) return "cached length";
        const table = s.array(u32, data.block_tables)[i * data.block_table_stride ..][0..blocks];
        for (table) |block| if (block >= header.num_blocks) return "block id";
    }
    for (s.array(i32, data.token_ids)[0..data.num_tokens]) |id| {
        if (id < 0 or id >= header.vocab_size) return "token id";
    }
    for (s.ops) |*op| if (op.opcode == .embed and op.as(plan.Embed).row == .position) {
        const num_rows = s.weights[op.as(plan.Embed).weight].rows;
        for (s.array(i32, data.positions)[0..data.num_tokens]) |position| {
            if (position < 0 or position >= num_rows) return "position without an embedding";
        }
    };
    for (s.array(u32, data.output_rows)[0..data.num_outputs]) |row| {
        if (row >= data.num_tokens) return "output row";
    }
    return null;
}
