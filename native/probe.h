// Kernels one at a time, as a test wants to see them: plain arrays in, plain arrays out.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "pack.h"

namespace salver {

// x [m, k] times weights [n, k] transposed, plus bias [n] or null.
struct ProductProbe {
  Encoding encoding;
  const float* x;
  Tensor weights;
  const float* bias;
  int m, n, k;
  Epilogue epilogue;
  const float* onto;  // [m, n] that `add` adds to
};

// [m, n]; with `swiglu`, for which n is whole panels, [m, n / 2].
std::vector<float> probe_product(const Kernels&, const ProductProbe&);

std::vector<float> probe_norm(const Kernels&, const float* x, const float* weight, int size, float epsilon);

// One token, into slot `slot` of a block of bytes 0xff.
struct HeadsProbe {
  KvFormat format;
  const float* projections;  // [heads + 2 * kv_heads, head_dim]
  const float *q_norm, *k_norm, *cosines, *sines;  // as in `HeadsTask`
  int heads, kv_heads, head_dim;
  float epsilon;
  int slot, clear_from;
};

struct WrittenHeads {
  std::vector<std::uint8_t> queries, block;  // as kv_block.h has them
};

WrittenHeads probe_heads(const Kernels&, const HeadsProbe&);

std::vector<double> probe_weigh(const Kernels&, const float* logits, int size, double maximum, double temperature);

struct AttentionProbe {
  const float* queries;  // [tokens, heads, head_dim] of the sequence's last `tokens` positions
  const float *keys, *values;  // [context, kv_heads, head_dim]
  int tokens, context, heads, kv_heads, head_dim, window;
  KvFormat format;
  bool in_parts;  // a task for every key group, merged afterwards
};

// [tokens, heads, head_dim]. Blocks are laid out in falling order in a pool of bytes 0xff: NaN in
// every format.
std::vector<float> probe_attention(const Kernels&, const AttentionProbe&);

}  // namespace salver
