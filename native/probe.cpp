#include "probe.h"

#include <algorithm>

#include "buffer.h"
#include "entered.h"
#include "pack.h"

namespace salver {
namespace {

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace

std::vector<float> probe_product(const Kernels& kernels, Encoding encoding, const float* x, int m,
                                 const Tensor& weights, int n, int k, const float* bias) {
  const Entered entered(kernels);
  const Weights packed(weights, n, k, bias, encoding != Encoding::bf16);
  const int per_token = encoding == Encoding::two_bytes || encoding == Encoding::groups ? 2 : 1;
  const std::size_t width = round_up(k, kPanel), stride = round_up(width * (encoding == Encoding::bf16 ? 2 : 1), 64);
  const Buffer rows((round_up(m, kTileRows) + kTileRows) * per_token * stride);
  std::vector<float> scales(m), padded(width), wide(std::size_t(m) * packed.panels() * kPanel);
  for (int i = 0; i < m; ++i) {
    std::copy_n(x + std::size_t(i) * k, k, padded.begin());
    scales[i] = kernels.encode(padded.data(), k, encoding, rows.as<std::uint8_t>() + i * per_token * stride, stride);
  }
  const EncodedRows encoded = {rows.as<std::uint8_t>(), stride, scales.data(), m, encoding};
  const Destination to = {wide.data(), std::size_t(packed.panels()) * kPanel, Epilogue::store};
  kernels.product(packed.view(), encoded, to, 0, packed.panels());
  std::vector<float> out;
  for (int i = 0; i < m; ++i) {
    const float* row = wide.data() + i * to.stride;
    out.insert(out.end(), row, row + n);
  }
  return out;
}

std::vector<float> probe_norm(const Kernels& kernels, const float* x, const float* weight, int size, float epsilon) {
  const Entered entered(kernels);
  const std::size_t width = round_up(size, kPanel);
  std::vector<float> row(width), scale(width), out(width);
  std::copy_n(x, size, row.begin());
  std::copy_n(weight, size, scale.begin());
  kernels.norm(row.data(), scale.data(), epsilon, size, out.data());
  out.resize(size);
  return out;
}

std::vector<float> probe_attention(const Kernels& kernels, const AttentionProbe& probe) {
  const Entered entered(kernels);
  const int dim = probe.head_dim, padded = static_cast<int>(round_up(dim, 32)), group = probe.heads / probe.kv_heads;
  const std::size_t head_bytes = std::size_t(4) * kBlockTokens * padded, block_bytes = head_bytes * probe.kv_heads;
  const int blocks = (probe.context + kBlockTokens - 1) / kBlockTokens;
  const Buffer pool(blocks * block_bytes);
  std::fill_n(pool.as<std::uint8_t>(), pool.bytes(), 0xff);
  std::vector<std::int32_t> table(blocks);
  for (int i = 0; i < blocks; ++i) table[i] = blocks - 1 - i;
  const std::vector<float> cosines(dim / 2, 1.0F), sines(dim / 2, 0.0F);
  const int first = probe.context - probe.tokens;
  std::vector<std::uint16_t> queries(std::size_t(probe.tokens) * probe.heads * padded), unused(probe.heads * padded);
  for (int position = 0; position < probe.context; ++position) {
    const int q = probe.heads * dim, kv = probe.kv_heads * dim, slot = position % kBlockTokens;
    std::vector<float> row(q + 2 * kv);
    if (position >= first) std::copy_n(probe.queries + std::size_t(position - first) * q, q, row.begin());
    std::copy_n(probe.keys + std::size_t(position) * kv, kv, row.begin() + q);
    std::copy_n(probe.values + std::size_t(position) * kv, kv, row.begin() + q + kv);
    const HeadsTask task = {
        row.data(), nullptr, nullptr, cosines.data(), sines.data(), probe.heads, probe.kv_heads, dim, padded, 0.0F,
        position >= first ? queries.data() + std::size_t(position - first) * probe.heads * padded : unused.data(),
        pool.as<std::uint8_t>() + table[position / kBlockTokens] * block_bytes, slot, slot == 0 ? 1 : kBlockTokens};
    kernels.heads(task);
  }
  std::vector<float> out(std::size_t(probe.tokens) * probe.heads * dim);
  for (int head = 0; head < probe.kv_heads; ++head) {
    for (int row = 0; row < probe.tokens * group; row += kQueryRows) {
      kernels.attend({queries.data() + head * group * padded, std::size_t(probe.heads) * padded, padded, group, row,
                      std::min(kQueryRows, probe.tokens * group - row), first, probe.window,
                      1.0F / __builtin_sqrtf(static_cast<float>(dim)),
                      pool.as<std::uint8_t>() + head * head_bytes, block_bytes, table.data(),
                      out.data() + head * group * dim, std::size_t(probe.heads) * dim, dim});
    }
  }
  return out;
}

}  // namespace salver
