// What one instruction set's kernels offer, and the layouts that all of them share.
//
// Law 3 rests on this file's promises: a row of a product, an attention row and a norm are functions
// of that row and the model alone, whatever other rows a call holds. Integer sums are exact, so
// they may come from any instruction; everything in floating point has one order per row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace salver {

constexpr int kLanes = 16;        // floats per vector, on every path
constexpr int kPanel = 32;        // output channels of a weight panel: two tile columns
constexpr int kTileRows = 32;     // activation rows of one product
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kBlockTokens = 32;  // tokens of a KV block
constexpr int kKeyGroup = 128;    // keys whose softmax is one part, at absolute multiples
constexpr int kGroupBlocks = kKeyGroup / kBlockTokens;
constexpr int kQueryRows = 16;
constexpr int kGroup = 32;        // k of a 4-bit group
constexpr int kSuperGroups = 8;   // groups under one pair of outer scales
constexpr int kMaxHeadDim = 256;

// How an activation row is written for a product.
enum class Encoding {
  one_byte,   // u8 = round(x / scale) + 128: one row per token
  two_bytes,  // u16 = round(x / scale) + 32768, its high and its low bytes in two rows per token
  bf16,       // x rounded: one row per token
  two_bf16,   // and what rounding left out, rounded: two rows per token
  groups,     // s8 = round(x / scale of its group of k): one row per token, and a `RowGroup` per group
};

// What an activation row's group of kGroup numbers contributes besides its s8.
struct RowGroup {
  float scale;  // NaN where one of the numbers is not finite
  float sum;    // scale * sum of the s8
};

// How 4-bit weights are scaled: w = scale * code + minimum, with code in [0, 16).
enum class Groups {
  none,
  pair,    // an f16 scale and an f16 minimum per group
  single,  // an f16 scale per group; the minimum is -8 * scale
  nested,  // u8 of scale and of minimum per group, times an f16 of each per kSuperGroups
};

constexpr bool is_bf16(Encoding encoding) { return encoding == Encoding::bf16 || encoding == Encoding::two_bf16; }
constexpr int bytes_per_value(Encoding encoding) { return is_bf16(encoding) ? 2 : 1; }
constexpr int rows_per_token(Encoding encoding) {
  return encoding == Encoding::two_bytes || encoding == Encoding::two_bf16 ? 2 : 1;
}

// Weights [n, k] in panels of 32 channels. A panel is a run of tile pairs along k; a tile holds 16
// channels x 64 int8 (or 32 bf16) of k, four bytes of one channel side by side, which is at once an
// AMX operand and a VNNI one. Channels and k are padded with zeros.
//
// 4-bit weights: a panel is a run of groups of 32 k; a group is its scales for 32 channels (see
// `Groups`; `nested` has its outer scales before every kSuperGroups groups), then 4 lines for the first
// 16 channels and 4 for the others. Byte b of lane c of line i holds k = 4 i + b of channel c in its low
// half and k = 16 + 4 i + b in its high half.
struct PackedMatrix {
  const std::uint8_t* data = nullptr;
  const float* scale = nullptr;        // [panels * 32], int8 only
  const std::int32_t* offset = nullptr;  // [panels * 32]: -128 * sum of a channel's weights
  const float* bias = nullptr;         // [panels * 32]
  int panels = 0;
  int k_tiles = 0;
  Groups groups = Groups::none;
  int k_groups = 0;  // of 4-bit weights
  std::size_t panel_bytes = 0;

  const std::uint8_t* panel(int index) const { return data + index * panel_bytes; }
};

// Rows for a product, as tiles: 16 rows' first 64 bytes, their next 64, and so on, so that a tile is
// one run of memory. `stride` bytes are room for a row: 16 rows further it goes on 16 * stride
// further. Readable up to the next multiple of kTileRows.
struct EncodedRows {
  const std::uint8_t* data;
  std::size_t stride;
  const float* scale;  // [tokens]
  int tokens;
  Encoding encoding;
  const RowGroup* groups;  // of the first token, for `groups` alone
  std::size_t group_stride;
};

// Where row `row` of such rows begins; its next 64 bytes are kTileBytes further.
constexpr std::size_t row_offset(std::size_t row, std::size_t stride) {
  return row / 16 * 16 * stride + row % 16 * 64;
}

// Of every 2 KiB of the next panel, `lines` cache lines from `first` on.
struct Ahead {
  int first, lines;
};

// Sums of a product that are still in a matrix unit's registers: where they belong, and how many rows
// they are.
template <typename Sum>
struct Held {
  Sum* sums = nullptr;
  int rows = 0;
};

// What becomes of a product's element.
enum class Epilogue {
  store,
  add,     // to what is there: the residual stream
  swiglu,  // a panel is 16 gates and their 16 ups: silu(gate) * up, 16 columns per panel
};

struct Destination {
  float* data;
  std::size_t stride;  // floats per token
  Epilogue epilogue;
};

// How keys and values are held; kv_block.h has the layouts. Queries follow suit.
enum class KvFormat {
  bf16,
  int8,  // one scale per token and KV head, for keys and for values
  f32,   // to 16 bits: a bf16 block of rounded values, then one of what rounding left out
};

// Bytes of one KV head's part of a block, and of one head's query.
constexpr std::size_t kv_head_bytes(KvFormat format, int padded_dim) {
  if (format == KvFormat::bf16) return std::size_t(4) * kBlockTokens * padded_dim;
  if (format == KvFormat::f32) return 2 * kv_head_bytes(KvFormat::bf16, padded_dim);
  return std::size_t(2) * kBlockTokens * padded_dim + 2 * kBlockTokens * sizeof(float);
}
constexpr std::size_t query_bytes(KvFormat format, int padded_dim) {
  if (format == KvFormat::f32) return 2 * query_bytes(KvFormat::bf16, padded_dim);
  return std::size_t(2) * padded_dim + (format == KvFormat::int8 ? 64 : 0);
}
// A head's dimensions as they are stored: whole tiles along the sum of a score.
constexpr int padded_head_dim(KvFormat format, int head_dim) {
  const int unit = format == KvFormat::int8 ? 64 : 32;
  return (head_dim + unit - 1) / unit * unit;
}

// One query tile against key groups [first_group, end_group) of one sequence and KV head.
struct AttentionTask {
  KvFormat format;
  const std::uint8_t* queries;  // of the sequence's first token in this step and the head's group
  std::size_t token_stride;     // bytes between two tokens' queries
  int padded_dim;
  int group;                    // query heads per KV head
  int first_row, rows;          // of (token, head in group) pairs; rows <= kQueryRows
  int first_position;           // of the sequence's first token in this step
  int window;                   // keys visible, the current one included
  float scale;                  // of a score
  const std::uint8_t* pool;     // this layer and KV head in block 0
  std::size_t block_stride;     // bytes
  const std::int32_t* block_table;
  int first_group, end_group;
  float* parts;                 // of first_group, to be merged later; null: merged and put out
  float* out;                   // of the sequence's first token and the head's group
  std::size_t out_stride;       // floats between two tokens
  int head_dim;
  const AttentionTask* next;    // whose first blocks to fetch meanwhile; null where none is known
  bool fresh;                   // of a sequence and KV head that this thread's last task was not of

  int first_block() const { return first_group * kGroupBlocks; }
  int end_key() const {
    const int seen = first_position + (first_row + rows - 1) / group + 1;
    return seen < end_group * kKeyGroup ? seen : end_group * kKeyGroup;
  }
  int end_block() const { return (end_key() + kBlockTokens - 1) / kBlockTokens; }
};

// A row's part from one group of keys: what it mixed, then its softmax maximum and total.
constexpr std::size_t part_floats(int padded_dim) { return std::size_t(padded_dim) + kLanes; }

// One token's projections, to be turned, normed and put where attention reads them.
struct HeadsTask {
  KvFormat format;
  float* projections;  // [q | k | v], overwritten
  const float *q_norm, *k_norm;  // [head_dim] or null
  const float *cosines, *sines;  // [head_dim / 2] of the token's position
  int heads, kv_heads, head_dim, padded_dim;
  float epsilon;
  std::uint8_t* queries;  // [heads] of query_bytes
  std::uint8_t* block;    // this layer's part of the token's block
  int slot;
  int clear_from;  // bf16 value slots [clear_from, 32) hold another sequence's leavings: zero them
};

struct Kernels {
  const char* isa;
  void (*enter)();  // once per thread before any other call
  void (*leave)();
  void (*norm)(const float* x, const float* weight, float epsilon, int size, float* out);
  // Encode `x` [size, readable to a multiple of 16] into its one or two rows, the first of which
  // begins at `rows`; returns the scale. NaN and infinity make it NaN. `groups` writes `size` / 32 of
  // them instead.
  float (*encode)(const float* x, int size, Encoding encoding, std::uint8_t* rows, RowGroup* groups);
  void (*product)(const PackedMatrix&, const EncodedRows&, const Destination&, int first_panel, int end_panel);
  void (*heads)(const HeadsTask&);
  void (*attend)(const AttentionTask&);
  // The parts [groups][rows] that tasks like this one left, merged and put out.
  void (*merge)(const AttentionTask&, const float* parts);
  // Index of the largest of `x` [size], the lowest where equal; -1 where one is not finite.
  int (*best)(const float* x, int size);
  // weights[i] = exp((logits[i] - maximum) / temperature); arrays reach to the next multiple of 8.
  void (*weigh)(const float* logits, int size, double maximum, double temperature, double* weights);
  // Some microseconds of a matrix unit's products, of operands that it already has; returns how many
  // operations they are. Null where there is no such unit.
  double (*burst)(Encoding) = nullptr;
};

}  // namespace salver
