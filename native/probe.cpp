#include "probe.h"

#include <algorithm>

#include "buffer.h"
#include "entered.h"
#include "pack.h"

namespace salver {
namespace {

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace

std::vector<float> probe_product(const Kernels& kernels, const ProductProbe& probe) {
  const Entered entered(kernels);
  const int m = probe.m, n = probe.n, k = probe.k;
  const Encoding encoding = probe.encoding;
  const Weights packed(probe.weights, n, k, probe.bias, !is_bf16(encoding));
  const int per_token = rows_per_token(encoding);
  const std::size_t width = round_up(k, kPanel), stride = round_up(width * bytes_per_value(encoding), 64);
  const std::size_t groups = width / kGroup, out_stride = std::size_t(packed.panels()) * kPanel;
  std::vector<RowGroup> row_groups(m * groups);
  const Buffer rows((round_up(m, kTileRows) + kTileRows) * per_token * stride);
  std::vector<float> scales(m), padded(width), wide(m * out_stride);
  for (int i = 0; i < m; ++i) {
    std::copy_n(probe.x + std::size_t(i) * k, k, padded.begin());
    scales[i] = kernels.encode(padded.data(), k, encoding, rows.as<std::uint8_t>() + row_offset(i * per_token, stride),
                               row_groups.data() + i * groups);
    if (probe.onto) std::copy_n(probe.onto + std::size_t(i) * n, n, wide.begin() + i * out_stride);
  }
  const EncodedRows encoded = {rows.as<std::uint8_t>(), stride, scales.data(), m, encoding, row_groups.data(), groups};
  kernels.product(packed.view(), encoded, {wide.data(), out_stride, probe.epilogue}, 0, packed.panels());
  const int columns = probe.epilogue == Epilogue::swiglu ? n / 2 : n;
  std::vector<float> out;
  for (int i = 0; i < m; ++i) {
    const float* row = wide.data() + i * out_stride;
    out.insert(out.end(), row, row + columns);
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

WrittenHeads probe_heads(const Kernels& kernels, const HeadsProbe& probe) {
  const Entered entered(kernels);
  const int padded = padded_head_dim(probe.format, probe.head_dim);
  std::vector<float> row(probe.projections, probe.projections + (probe.heads + 2 * probe.kv_heads) * probe.head_dim);
  const Buffer queries(probe.heads * query_bytes(probe.format, padded));
  const Buffer block(probe.kv_heads * kv_head_bytes(probe.format, padded));
  std::fill_n(block.as<std::uint8_t>(), block.bytes(), 0xff);
  kernels.heads({probe.format, row.data(), probe.q_norm, probe.k_norm, probe.cosines, probe.sines, probe.heads,
                 probe.kv_heads, probe.head_dim, padded, probe.epsilon, queries.as<std::uint8_t>(),
                 block.as<std::uint8_t>(), probe.slot, probe.clear_from});
  const auto bytes = [](const Buffer& of) {
    return std::vector<std::uint8_t>(of.as<std::uint8_t>(), of.as<std::uint8_t>() + of.bytes());
  };
  return {bytes(queries), bytes(block)};
}

std::vector<double> probe_weigh(const Kernels& kernels, const float* logits, int size, double maximum,
                                double temperature) {
  const Entered entered(kernels);
  std::vector<float> row(round_up(size, 8));
  std::vector<double> weights(row.size());
  std::copy_n(logits, size, row.begin());
  kernels.weigh(row.data(), size, maximum, temperature, weights.data());
  weights.resize(size);
  return weights;
}

namespace {

// A pool that holds one sequence's keys and values, and the queries of its last tokens.
struct ProbedPool {
  const AttentionProbe& probe;
  int padded, group, first;
  std::size_t head_bytes, query;
  std::vector<std::int32_t> table;
  Buffer pool, queries;

  explicit ProbedPool(const AttentionProbe& from)
      : probe(from),
        padded(padded_head_dim(from.format, from.head_dim)),
        group(from.heads / from.kv_heads),
        first(from.context - from.tokens),
        head_bytes(kv_head_bytes(from.format, padded)),
        query(query_bytes(from.format, padded)),
        table((from.context + kBlockTokens - 1) / kBlockTokens),
        pool(table.size() * head_bytes * from.kv_heads),
        queries(std::size_t(from.tokens + 1) * from.heads * query) {
    std::fill_n(pool.as<std::uint8_t>(), pool.bytes(), 0xff);
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(table.size() - 1 - i);
  }

  // Tokens before the queried ones leave their queries in a row of their own.
  void write(const Kernels& kernels, int position) {
    const int dim = probe.head_dim, q = probe.heads * dim, kv = probe.kv_heads * dim, slot = position % kBlockTokens;
    const int queried = position >= first ? position - first : probe.tokens;
    const std::vector<float> cosines(dim / 2, 1.0F), sines(dim / 2, 0.0F);
    std::vector<float> row(q + 2 * kv);
    if (position >= first) std::copy_n(probe.queries + std::size_t(queried) * q, q, row.begin());
    std::copy_n(probe.keys + std::size_t(position) * kv, kv, row.begin() + q);
    std::copy_n(probe.values + std::size_t(position) * kv, kv, row.begin() + q + kv);
    kernels.heads({probe.format, row.data(), nullptr, nullptr, cosines.data(), sines.data(), probe.heads,
                   probe.kv_heads, dim, padded, 0.0F,
                   queries.as<std::uint8_t>() + std::size_t(queried) * probe.heads * query,
                   pool.as<std::uint8_t>() + table[position / kBlockTokens] * head_bytes * probe.kv_heads, slot,
                   slot == 0 ? 1 : kBlockTokens});
  }

  AttentionTask task(int head, int row, float* out) const {
    const int rows = std::min(kQueryRows, probe.tokens * group - row), dim = probe.head_dim;
    const int oldest = std::max(0, first + row / group + 1 - probe.window);
    const int last = first + (row + rows - 1) / group;
    return {probe.format,
            queries.as<std::uint8_t>() + head * group * query,
            std::size_t(probe.heads) * query,
            padded, group, row, rows, first, probe.window,
            1.0F / __builtin_sqrtf(static_cast<float>(dim)),
            pool.as<std::uint8_t>() + head * head_bytes,
            head_bytes * probe.kv_heads,
            table.data(),
            oldest / kKeyGroup, last / kKeyGroup + 1, nullptr,
            out + head * group * dim,
            std::size_t(probe.heads) * dim,
            dim, nullptr, true};
  }
};

void attend_in_parts(const Kernels& kernels, const AttentionTask& whole) {
  const std::size_t size = whole.rows * part_floats(whole.padded_dim);
  std::vector<float> parts((whole.end_group - whole.first_group) * size);
  AttentionTask piece = whole;
  for (int group = whole.end_group - 1; group >= whole.first_group; --group) {  // in any order
    piece.first_group = group;
    piece.end_group = group + 1;
    piece.parts = parts.data() + (group - whole.first_group) * size;
    kernels.attend(piece);
  }
  kernels.merge(whole, parts.data());
}

}  // namespace

std::vector<float> probe_attention(const Kernels& kernels, const AttentionProbe& probe) {
  const Entered entered(kernels);
  ProbedPool pool(probe);
  for (int position = 0; position < probe.context; ++position) pool.write(kernels, position);
  std::vector<float> out(std::size_t(probe.tokens) * probe.heads * probe.head_dim);
  for (int head = 0; head < probe.kv_heads; ++head) {
    for (int row = 0; row < probe.tokens * pool.group; row += kQueryRows) {
      const AttentionTask task = pool.task(head, row, out.data());
      if (probe.in_parts) attend_in_parts(kernels, task);
      else kernels.attend(task);
    }
  }
  return out;
}

}  // namespace salver
