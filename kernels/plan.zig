//! The binary form of a plan as the executor reads it: header, tables and op records.
//! src/plan/binary.ts writes it; the field order here and in src/plan/ops.ts is one contract.

pub const magic: u32 = 0x4e4c5054; // "TPLN"
pub const version: u32 = 4;
/// Operand that is not there.
pub const none: u32 = 0xffff_ffff;
/// Token slots in one block of the KV cache.
pub const block_size: u32 = 32;
/// 32-bit words in one op record, the opcode included.
pub const op_words = 64;
pub const max_linear_outputs = 8;
/// In the cancel word: every step stops.
pub const cancel_all: u32 = 0xffff_ffff;
/// Low-rank adapters of one plan.
pub const max_adapters = 16;
/// Experts of one layer; also most experts of one token.
pub const max_experts = 1024;

/// Every count is a count of records; `*_bytes` are bytes.
pub const Header = extern struct {
    magic: u32,
    version: u32,
    num_tensors: u32,
    num_weights: u32,
    num_caches: u32,
    num_ops: u32,
    /// Most token rows (T), output rows (R) and sequences (S) in one step.
    max_tokens: u32,
    max_outputs: u32,
    max_sequences: u32,
    max_blocks_per_sequence: u32,
    /// Blocks in the KV pool.
    num_blocks: u32,
    vocab_size: u32,
    arena_bytes: u64,
    kv_bytes: u64,
};

pub const Rows = enum(u32) { tokens = 0, outputs = 1 };

/// An f32 activation `[rows, width]` in the arena, rows contiguous.
pub const Tensor = extern struct { offset: u64, width: u32, rows: Rows };

/// How a weight's rows lie: one after another as in files, or 16 side by side (interleave.zig).
pub const Layout = enum(u32) { rows = 0, interleaved = 1, _ };

/// A weight matrix `[rows, cols]` in its file's quant type; `type` is a number of quant/quant.zig.
/// Products with it count `gain` times (lookups have that in their scale).
pub const Weight = extern struct {
    address: u64,
    /// Where `scales` lies; `linkScales` fills it in.
    scale_address: u64 = 0,
    type: u32,
    rows: u32,
    cols: u32,
    gain: f32 = 1,
    /// 8-bit floats: the F32 weight `[row blocks, column blocks]` that holds their scales; `none`
    /// where every scale is 1.
    scales: u32 = none,
    /// Rows and columns that share a scale. Columns are a multiple of 16, or all.
    block_rows: u32 = 0,
    block_cols: u32 = 0,
    /// Blocks begin at row 0 of a tensor of which this is a part: the row of it that is row 0 here.
    first_row: u32 = 0,
    layout: Layout = .rows,
    reserved: u32 = 0,
};

/// Tells each weight where its scales lie, once all addresses are known.
pub fn linkScales(weights: []Weight) void {
    for (weights) |*weight| {
        if (weight.scales != none) weight.scale_address = weights[weight.scales].address;
    }
}

/// Storage type of cached keys and values.
pub const KvType = enum(u32) { f32 = 0, f16 = 1, bf16 = 2, q8_0 = 3, q4_0 = 4 };

/// One layer's KV cache: planes `[num_kv_heads][num_blocks]`, each plane element one KV block
/// (K part then V part, see cpu/kv_cache.zig). `offset` in bytes from the pool's start.
pub const Cache = extern struct {
    offset: u64,
    num_kv_heads: u32,
    head_dim: u32,
    value_dim: u32,
    type_k: KvType,
    type_v: KvType,
    reserved: u32 = 0,
};

pub const Opcode = enum(u32) {
    embed = 1,
    gather_rows = 2,
    norm = 3,
    linear = 4,
    linear_glu = 5,
    rotations = 6,
    qkv_prep = 7,
    attention_paged = 8,
    sample = 9,
    route = 10,
    scale_slots = 11,
    expert_glu = 12,
    expert_linear = 13,
    unary = 14,
    add = 15,
    glu = 16,
    position_scale = 17,
    copy_columns = 18,
    slot_linear = 19,
    adapter_scale = 20,
    sum_slots = 21,
    magnitude = 22,
    _,
};

/// Which row of a table a token takes: that of its id, of its position, or always the first.
pub const EmbedRow = enum(u32) { token = 0, position = 1, first = 2 };
/// output[t] = scale * dequantised weight row of t
pub const Embed = extern struct { weight: u32, output: u32, scale: f32, row: EmbedRow };

/// output[r] = input[output_rows[r]]
pub const GatherRows = extern struct { input: u32, output: u32 };

pub const NormKind = enum(u32) { rms = 0, layer = 1, absent = none };
/// normalised(row) * weight + bias; weight and bias may be `none`.
pub const RowNorm = extern struct { kind: NormKind, weight: u32, bias: u32, epsilon: f32 };
/// output = norm(input), each `group_width` values of a row by themselves; weight and bias are as
/// wide as a group, the same for all, or as a row.
pub const Norm = extern struct { input: u32, output: u32, norm: RowNorm, group_width: u32 };

pub const Epilogue = enum(u32) { store = 0, accumulate = 1 };
pub const LinearOutput = extern struct { weight: u32, bias: u32, output: u32 };
/// outputs[i] (+)= norm(input) · weights[i]ᵀ + biases[i]; all weights share the input.
pub const Linear = extern struct {
    input: u32,
    norm: RowNorm,
    epilogue: Epilogue,
    num_outputs: u32,
    outputs: [max_linear_outputs]LinearOutput,
};

/// How a gate g meets its u: activation(g) * u; `swiglu_oai` clamps both, src/plan/ops.ts has it.
pub const Gate = enum(u32) {
    silu = 0,
    gelu_tanh = 1,
    gelu_erf = 2,
    relu = 3,
    relu_squared = 4,
    sigmoid = 5,
    swiglu_oai = 6,
};
pub const UnaryFunction = enum(u32) {
    silu = 0,
    gelu_tanh = 1,
    gelu_erf = 2,
    relu = 3,
    relu_squared = 4,
    sigmoid = 5,
    softcap = 6,
    scale = 7,
};

/// output = function(output); softcap is parameter * tanh(x / parameter), scale parameter * x.
pub const Unary = extern struct { output: u32, function: UnaryFunction, parameter: f32 };

/// output += scale * input
pub const Add = extern struct { input: u32, output: u32, scale: f32 };

/// output = gate and up combined; a gate of width 1 serves its whole row.
pub const Glu = extern struct { gate_input: u32, up_input: u32, output: u32, activation: Gate };

/// output[t] *= 1 + factor * ln(1 + floor((positions[t] + offset) / interval))
pub const PositionScale = extern struct { output: u32, interval: u32, offset: u32, factor: f32 };

/// output[r] *= gain * adapter_scales[adapter] of the row's token; a scale of 0 gives zeros.
pub const AdapterScale = extern struct { output: u32, adapter: u32, gain: f32 };

/// For i below `count`: `width` values from input_start + i * input_stride of each row of the
/// input to output_start + i * output_stride of the output.
pub const CopyColumns = extern struct {
    input: u32,
    output: u32,
    count: u32,
    width: u32,
    input_start: u32,
    input_stride: u32,
    output_start: u32,
    output_stride: u32,
};

/// output[t, s] (+)= x · weight[m]ᵀ + bias[m], m = expert of slot s or, without a routing, s itself;
/// x = input[t, s] or, where the input has no row per slot, input[t]. `weight` is the first of
/// `num_matrices`, all of one shape; biases are F32 `[num_matrices, width]` or none.
pub const SlotLinear = extern struct {
    input: u32,
    slot_routing: u32,
    weight: u32,
    bias: u32,
    output: u32,
    num_matrices: u32,
    epilogue: Epilogue,
};

/// output[t] (+)= Σ over slots s in order: weight of s * input[t, s]
pub const SumSlots = extern struct {
    input: u32,
    routing: u32,
    output: u32,
    epilogue: Epilogue,
    /// 0: every slot weighs 1.
    is_weighted: u32,
};

/// output[t, s] = (c - 1) * (input[t, s] - bias[m]) + c * output[t, s], m as in `slot_linear`, one
/// for all where there is one: c = length / √(n0 + σ n1 + σ² n2), σ = gain * the row's scale of
/// `adapter`; a scale of 0 gives zeros. `lengths` is F32 `[4 * num_matrices, width]`: of each
/// matrix the wanted lengths of its rows, n0, n1 and n2. A row of length 0 stays 0.
pub const Magnitude = extern struct {
    input: u32,
    slot_routing: u32,
    lengths: u32,
    bias: u32,
    output: u32,
    adapter: u32,
    gain: f32,
};
/// output = activation(x · gateᵀ + gate_bias) * (x · upᵀ + up_bias), x = norm(input)
pub const LinearGlu = extern struct {
    input: u32,
    norm: RowNorm,
    gate: u32,
    gate_bias: u32,
    up: u32,
    up_bias: u32,
    output: u32,
    activation: Gate,
};

pub const Scoring = enum(u32) { softmax = 0, sigmoid = 1, softmax_selected = 2 };
pub const GroupScore = enum(u32) { max = 0, top2_sum = 1 };
/// output[t] `[2 * num_slots]` = numbers of the chosen experts as floats, best first, then their
/// weights; src/plan/ops.ts defines the choice. `selection_bias` F32 `[1, num_experts]` or none.
pub const Route = extern struct {
    logits: u32,
    output: u32,
    selection_bias: u32,
    scoring: Scoring,
    num_slots: u32,
    num_groups: u32,
    num_groups_used: u32,
    group_score: GroupScore,
    is_normalised: u32,
    scale: f32,
    /// The step's counter of expert 0; the others follow.
    first_counter: u32,
};

/// output[t, s] = input[t] * weight of slot s
pub const ScaleSlots = extern struct { input: u32, routing: u32, output: u32 };

/// output[t, s] = activation(x · gate[e]ᵀ + gate_bias[e]) * (x · up[e]ᵀ + up_bias[e]), e = expert
/// of slot s, x = input[t] or, where the input has a row per slot, input[t, s]. `gate` and `up`
/// are the first of `num_experts` weights; biases are F32 `[num_experts, width]` or none.
pub const ExpertGlu = extern struct {
    input: u32,
    routing: u32,
    gate: u32,
    gate_bias: u32,
    up: u32,
    up_bias: u32,
    output: u32,
    num_experts: u32,
    activation: Gate,
};

/// output[t] (+)= Σ over slots s in order: weight of s * (input[t, s] · weight[e]ᵀ + bias[e])
pub const ExpertLinear = extern struct {
    input: u32,
    routing: u32,
    weight: u32,
    bias: u32,
    output: u32,
    num_experts: u32,
    epilogue: Epilogue,
    /// 0: every slot weighs 1.
    is_weighted: u32,
};

/// output[t] = cos and sin of positions[t] * frequencies[i], times `magnitude`:
/// `[tokens, 2 * n]` as n cosines then n sines; `frequencies` is an F32 weight `[1, n]`.
pub const Rotations = extern struct { frequencies: u32, output: u32, magnitude: f32 };

pub const RopePairing = enum(u32) { none = 0, interleaved = 1, half_split = 2 };
/// Rotates q and k in place (first `2 * n` dims of each head) and stores k, v in the cache.
/// q `[tokens, num_heads * head_dim]`, k `[tokens, num_kv_heads * head_dim]`, v alike.
pub const QkvPrep = extern struct {
    q: u32,
    k: u32,
    v: u32,
    rotations: u32,
    cache: u32,
    num_heads: u32,
    pairing: RopePairing,
};

/// output[t, h] = softmax(scale * q·k, of visible positions) · v over the sequence's cache. Visible
/// are: with `is_causal` none after the own one, of these the last `window` (0 = all), from the last
/// multiple of `chunk` on (0 = all). `softcap` 0 = none; `sinks` = F32 `[1, num_heads]` or none.
pub const AttentionPaged = extern struct {
    q: u32,
    output: u32,
    cache: u32,
    num_heads: u32,
    scale: f32,
    is_causal: u32,
    window: u32,
    chunk: u32,
    softcap: f32,
    sinks: u32,
};

/// Chooses one token per output row from `logits` `[outputs, vocab_size]` by its SamplingRow.
pub const Sample = extern struct { logits: u32 };

pub const Op = extern struct {
    opcode: Opcode,
    words: [op_words - 1]u32,

    pub fn as(op: *const Op, comptime T: type) *const T {
        comptime if (@sizeOf(T) > @sizeOf(@FieldType(Op, "words"))) @compileError("op too large");
        return @ptrCast(&op.words);
    }
};

/// Everything that changes from step to step. Offsets are bytes from the start of this header,
/// so the whole step is one contiguous block of memory. All arrays are 32-bit.
pub const StepHeader = extern struct {
    num_tokens: u32,
    num_outputs: u32,
    num_sequences: u32,
    /// Length of one sequence's row in `block_tables`.
    block_table_stride: u32,
    /// i32 [num_tokens]
    token_ids: u32,
    /// i32 [num_tokens], absolute positions; the rows of one sequence are consecutive.
    positions: u32,
    /// u32 [num_sequences + 1], first token row of each sequence.
    query_starts: u32,
    /// u32 [num_sequences], cached length after this step's tokens are appended.
    kv_lens: u32,
    /// u32 [num_sequences, block_table_stride]
    block_tables: u32,
    /// u32 [num_outputs], token rows whose logits are wanted.
    output_rows: u32,
    /// SamplingRow [num_outputs]
    sampling: u32,
    /// i32 token ids to penalise, all rows' lists one after another.
    penalty_ids: u32,
    /// LogitBias pairs, all rows' lists one after another.
    logit_biases: u32,
    /// Results: SampledRow [num_outputs].
    sampled: u32,
    /// The step stops between ops once the session's cancel word holds this id (0 = never) or
    /// `cancel_all`; the caller then ignores its results.
    cancel_id: u32,
    /// f32 [max_adapters, max_tokens]
    adapter_scales: u32,
};

pub const LogitBias = extern struct { token_id: u32, value: f32 };

/// How to choose the token of one output row. `temperature` <= 0 is greedy.
pub const SamplingRow = extern struct {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    /// 0 = all
    top_k: u32,
    seed_low: u32,
    seed_high: u32,
    /// Counter of the random stream: index of the drawn token in its sequence.
    draw_index: u32,
    penalty_start: u32,
    num_penalties: u32,
    bias_start: u32,
    num_biases: u32,
    /// How many of the best tokens to report in `SampledRow`, 0 to 20.
    num_logprobs: u32,
    reserved: u32 = 0,
};

pub const max_logprobs = 20;
/// The chosen token, its log-probability under the raw logits, and the best candidates.
pub const SampledRow = extern struct {
    token_id: i32,
    logprob: f32,
    top_ids: [max_logprobs]i32,
    top_logprobs: [max_logprobs]f32,
};

comptime {
    const expectSize = struct {
        fn f(comptime T: type, comptime bytes: usize) void {
            if (@sizeOf(T) != bytes) @compileError(@typeName(T) ++ " changed its size");
        }
    }.f;
    expectSize(Header, 64);
    expectSize(Tensor, 16);
    expectSize(Weight, 56);
    expectSize(Cache, 32);
    expectSize(Op, 256);
    expectSize(StepHeader, 64);
    expectSize(SamplingRow, 64);
    expectSize(SampledRow, 168);
}
