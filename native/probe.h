// Kernels one at a time, as a test wants to see them: plain arrays in, plain arrays out.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "pack.h"

namespace salver {

// x [m, k] times weights [n, k] transposed, plus bias [n]: [m, n].
std::vector<float> probe_product(const Kernels&, Encoding, const float* x, int m, const Tensor& weights, int n, int k,
                                 const float* bias);

std::vector<float> probe_norm(const Kernels&, const float* x, const float* weight, int size, float epsilon);

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
