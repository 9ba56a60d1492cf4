#include "model.h"

#include <algorithm>
#include <stdexcept>

#include "entered.h"

namespace salver {
namespace {

constexpr int kRowsFrom = 64;      // tokens from which a step is split by rows
constexpr int kRowsPerBlock = 128;  // one member's rows at once: their activations stay in its cache
constexpr int kRowsPerTask = 4;
constexpr int kSerialRows = 4;     // fewer rows cost less than telling the pool of them
constexpr int kHeadPanels = 8;     // of one task over the vocabulary
constexpr int kDrawnRows = 32;     // whole rows of logits that exist at once
constexpr int kHeadRows = 64;      // logits of a task that exist at once

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }
int ceil_div(int a, int b) { return (a + b - 1) / b; }

// With keys and values in f32 nothing but weights is rounded to bf16.
Encoding encoding_of(Precision precision, KvFormat kv_format) {
  switch (precision) {
    case Precision::w8a16:
    case Precision::q4: return Encoding::two_bytes;  // of its int8 matrices; groups need two rows too
    case Precision::w8a8: return Encoding::one_byte;
    case Precision::bf16: return kv_format == KvFormat::f32 ? Encoding::two_bf16 : Encoding::bf16;
  }
  throw std::invalid_argument("no such precision");
}

}  // namespace

Model::Model(const ModelShape& shape, const Limits& limits, Precision precision, KvFormat kv_format,
             const Kernels& kernels)
    : shape_(shape),
      limits_(limits),
      precision_(precision),
      kv_format_(kv_format),
      kernels_(kernels),
      pool_(limits.threads, {kernels.enter, kernels.leave}),
      encoding_(encoding_of(precision, kv_format)),
      rows_per_token_(rows_per_token(encoding_)),
      padded_dim_(padded_head_dim(kv_format, shape.head_dim)),
      hidden_stride_(round_up(shape.hidden, kPanel)),
      heads_stride_(round_up((shape.heads + 2 * shape.kv_heads) * shape.head_dim, kPanel)),
      mixed_stride_(round_up(shape.heads * shape.head_dim, kPanel)),
      gated_stride_(round_up(shape.intermediate, kPanel)) {
  const std::size_t widest = std::max({hidden_stride_, mixed_stride_, gated_stride_});
  encoded_stride_ = round_up(widest * bytes_per_value(encoding_), 64);
  row_groups_stride_ = widest / kGroup;
  head_block_bytes_ = kv_head_bytes(kv_format, padded_dim_);
  block_stride_ = head_block_bytes_ * shape.kv_heads;
  layer_block_bytes_ = block_stride_ * limits.blocks;

  const std::size_t tokens = round_up(limits.step_tokens, kTileRows);
  hidden_ = Buffer(tokens * hidden_stride_ * sizeof(float));
  projections_ = Buffer(tokens * heads_stride_ * sizeof(float));
  mixed_ = Buffer(tokens * mixed_stride_ * sizeof(float));
  gated_ = Buffer(tokens * gated_stride_ * sizeof(float));
  encoded_ = Buffer((tokens * rows_per_token_ + kTileRows) * encoded_stride_);
  scales_ = Buffer(tokens * sizeof(float));
  row_groups_ = Buffer(precision == Precision::q4 ? tokens * row_groups_stride_ * sizeof(RowGroup) : 0);
  queries_ = Buffer(tokens * shape.heads * query_bytes(kv_format, padded_dim_));
  scratch_ = Buffer(limits.threads * scratch_floats() * sizeof(float));
  logits_ = Buffer((std::size_t(kDrawnRows) * shape.vocab + 8) * sizeof(float));
  samplers_.assign(limits.threads, Sampler(shape.vocab));
  kv_ = Buffer(layer_block_bytes_ * shape.layers);
}

std::size_t Model::scratch_floats() const {
  return std::max(hidden_stride_, std::size_t(kHeadRows) * kHeadPanels * kPanel);
}

void Model::fill_pool(std::uint8_t byte) {
  std::fill_n(kv_.as<std::uint8_t>(), kv_.bytes(), byte);
}

void Model::forward(const Step& step) {
  const Entered entered(kernels_);
  lay_out(step);
  each_row([&](int row, int) { embed(step, row); });
  for (int layer = 0; layer < shape_.layers; ++layer) {
    project(layer);
    if (layer == shape_.layers - 1) leave_only(step.kept);
    if (tokens_ == 0) return;
    attend_all(layer);
    transform(layers_[layer]);
  }
}

void Model::embed(const Step& step, int row) {
  const auto* from = embedding_.as<std::uint16_t>() + std::size_t(step.token_ids[row]) * shape_.hidden;
  float* to = hidden_at(row);
  for (int i = 0; i < shape_.hidden; ++i) {
    to[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(from[i]) << 16);
  }
  std::fill(to + shape_.hidden, to + hidden_stride_, 0.0F);  // the row before may have been NaN
}

template <typename Body>
void Model::each_row(const Body& body) {
  if (tokens_ < kSerialRows) {
    for (int row = 0; row < tokens_; ++row) body(row, 0);
    return;
  }
  pool_.each(ceil_div(tokens_, kRowsPerTask), [&](int task, int member) {
    const int end = std::min(tokens_, (task + 1) * kRowsPerTask);
    for (int row = task * kRowsPerTask; row < end; ++row) body(row, member);
  });
}

// Queries, keys and values of all rows, put where attention reads them.
void Model::project(int layer) {
  if (tokens_ >= kRowsFrom) {
    project_by_rows(layer);
  } else {
    project_by_channels(layer);
  }
}

// What a layer does after attention.
void Model::transform(const Layer& layer) {
  if (tokens_ >= kRowsFrom) {
    transform_by_rows(layer);
  } else {
    transform_by_channels(layer);
  }
}

void Model::project_by_channels(int index) {
  const Layer& layer = layers_[index];
  each_row([&](int row, int member) { encode_normed(layer.input_norm.data(), layer.qkv, row, member); });
  multiply_all(layer.qkv, projections());
  each_row([&](int row, int) { place_heads(index, row); });
}

void Model::transform_by_channels(const Layer& layer) {
  const int mixed = shape_.heads * shape_.head_dim;
  each_row([&](int row, int) { encode_plain(mixed_, mixed_stride_, mixed, layer.output, row); });
  multiply_all(layer.output, residual());
  each_row([&](int row, int member) { encode_normed(layer.post_norm.data(), layer.gate_up, row, member); });
  multiply_all(layer.gate_up, gated());
  each_row([&](int row, int) { encode_plain(gated_, gated_stride_, shape_.intermediate, layer.down, row); });
  multiply_all(layer.down, residual());
}

// Calls body(first, rows, member) for blocks of rows.
template <typename Body>
void Model::each_row_block(const Body& body) {
  const int members = pool_.members();
  const int rounds = ceil_div(tokens_, members * kRowsPerBlock);
  const int size = static_cast<int>(round_up(ceil_div(tokens_, members * rounds), kTileRows));
  pool_.each(ceil_div(tokens_, size), [&](int block, int member) {
    body(block * size, std::min(size, tokens_ - block * size), member);
  });
}

void Model::project_by_rows(int index) {
  const Layer& layer = layers_[index];
  each_row_block([&](int first, int count, int member) {
    for (int row = first; row < first + count; ++row) encode_normed(layer.input_norm.data(), layer.qkv, row, member);
    multiply(layer.qkv, first, count, projections(), 0, layer.qkv.panels());
    for (int row = first; row < first + count; ++row) place_heads(index, row);
  });
}

void Model::transform_by_rows(const Layer& layer) {
  const int mixed = shape_.heads * shape_.head_dim;
  each_row_block([&](int first, int count, int member) {
    for (int row = first; row < first + count; ++row) encode_plain(mixed_, mixed_stride_, mixed, layer.output, row);
    multiply(layer.output, first, count, residual(), 0, layer.output.panels());
    for (int row = first; row < first + count; ++row) encode_normed(layer.post_norm.data(), layer.gate_up, row, member);
    multiply(layer.gate_up, first, count, gated(), 0, layer.gate_up.panels());
    for (int row = first; row < first + count; ++row) {
      encode_plain(gated_, gated_stride_, shape_.intermediate, layer.down, row);
    }
    multiply(layer.down, first, count, residual(), 0, layer.down.panels());
  });
}

Destination Model::projections() const {
  return {projections_.as<float>(), heads_stride_, Epilogue::store};
}

Destination Model::residual() const { return {hidden_.as<float>(), hidden_stride_, Epilogue::add}; }

Destination Model::gated() const { return {gated_.as<float>(), gated_stride_, Epilogue::swiglu}; }

std::uint8_t* Model::encoded(int token, Encoding encoding) const {
  return encoded_.as<std::uint8_t>() + row_offset(std::size_t(token) * rows_per_token(encoding), row_room(encoding));
}

EncodedRows Model::encoded_rows(int first, int tokens, Encoding encoding) const {
  return {encoded(first, encoding), row_room(encoding), scales_.as<float>() + first, tokens,
          encoding,                 row_groups(first),  row_groups_stride_};
}

void Model::encode_hidden(const float* norm, const Weights& reader, const float* hidden, int row, int member) {
  float* normed = scratch_.as<float>() + member * scratch_floats();
  kernels_.norm(hidden, norm, shape_.epsilon, shape_.hidden, normed);
  encode(normed, shape_.hidden, reader, row);
}

void Model::encode_normed(const float* norm, const Weights& reader, int row, int member) {
  encode_hidden(norm, reader, hidden_at(row), row, member);
}

void Model::encode_plain(const Buffer& source, std::size_t stride, int size, const Weights& reader, int row) {
  encode(source.as<float>() + row * stride, size, reader, row);
}

void Model::encode(const float* x, int size, const Weights& reader, int row) {
  const Encoding encoding = encoding_for(reader);
  scales_.as<float>()[row] = kernels_.encode(x, size, encoding, encoded(row, encoding), row_groups(row));
}

void Model::multiply(const Weights& weights, int first, int tokens, const Destination& to,
                     int first_panel, int end_panel) {
  const EncodedRows rows = encoded_rows(first, tokens, encoding_for(weights));
  const Destination from_first = {to.data + first * to.stride, to.stride, to.epilogue};
  kernels_.product(weights.view(), rows, from_first, first_panel, end_panel);
}

void Model::multiply_all(const Weights& weights, const Destination& to) {
  pool_.each(weights.panels(), [&](int panel, int) { multiply(weights, 0, tokens_, to, panel, panel + 1); });
}

// Calls take(task, first_row, rows, first_channel, channels, logits) for pieces of the logits of
// `count` rows; `logits` has kHeadPanels * kPanel floats per row.
template <typename Take>
void Model::head_panels(const std::int32_t* rows, int count, const Take& take) {
  const Entered entered(kernels_);
  pool_.each(count, [&](int i, int member) { encode_hidden(final_norm_.data(), head_, hidden(rows[i]), i, member); });
  constexpr int kChannels = kHeadPanels * kPanel;
  pool_.each(head_tasks(), [&](int task, int member) {
    const int first_panel = task * kHeadPanels;
    const int end_panel = std::min(head_.panels(), first_panel + kHeadPanels);
    float* logits = scratch_.as<float>() + member * scratch_floats();
    for (int first = 0; first < count; first += kHeadRows) {
      const int some = std::min(kHeadRows, count - first);
      // The product counts columns from the matrix's first; this piece begins at first_panel.
      PackedMatrix piece = head_.view();
      piece.data = piece.panel(first_panel);
      piece.scale += first_panel * kPanel;
      piece.offset += first_panel * kPanel;
      piece.bias += first_panel * kPanel;
      const EncodedRows from = encoded_rows(first, some, encoding_);
      kernels_.product(piece, from, {logits, kChannels, Epilogue::store}, 0, end_panel - first_panel);
      const int channels = std::min(kChannels, shape_.vocab - first_panel * kPanel);
      take(task, first, some, first_panel * kPanel, channels, logits);
    }
  });
}

int Model::head_tasks() const { return ceil_div(head_.panels(), kHeadPanels); }

// A greedy row keeps the best of each piece of its logits and nothing else; of the others, kDrawnRows
// at a time keep all. Both are in one pass over the head, so that one drawn row costs the greedy ones
// nothing.
void Model::sample(const std::int32_t* rows, const Draw* draws, int count, std::int32_t* tokens) {
  std::vector<int> drawn, greedy;
  for (int i = 0; i < count; ++i) (draws[i].is_argmax() ? greedy : drawn).push_back(i);
  for (std::size_t first = 0; first < drawn.size() || !greedy.empty(); first += kDrawnRows) {
    const std::size_t end = std::min(drawn.size(), first + kDrawnRows);
    std::vector<int> pass(drawn.begin() + first, drawn.begin() + end);
    pass.insert(pass.end(), greedy.begin(), greedy.end());
    read_out(rows, pass, static_cast<int>(end - first), tokens);
    const Entered entered(kernels_);
    pool_.each(static_cast<int>(end - first), [&](int i, int member) {
      const float* row = logits_.as<float>() + std::size_t(i) * shape_.vocab;
      tokens[pass[i]] = samplers_[member].sample(kernels_, row, draws[pass[i]]);
    });
    greedy.clear();
  }
}

// The head over the rows of `pass`: the first `kept` of them into logits_, of the others the likeliest
// token.
void Model::read_out(const std::int32_t* rows, const std::vector<int>& pass, int kept, std::int32_t* tokens) {
  struct Best {
    float logit;
    std::int32_t token;
  };
  const int count = static_cast<int>(pass.size()), greedy = count - kept;
  std::vector<std::int32_t> places(count);
  std::transform(pass.begin(), pass.end(), places.begin(), [&](int i) { return rows[i]; });
  std::vector<Best> found(std::size_t(head_tasks()) * greedy);
  head_panels(places.data(), count, [&](int task, int first, int some, int channel, int channels, const float* logits) {
    for (int i = first; i < first + some; ++i) {
      const float* row = logits + (i - first) * kHeadPanels * kPanel;
      if (i < kept) {
        std::copy_n(row, channels, logits_.as<float>() + std::size_t(i) * shape_.vocab + channel);
        continue;
      }
      const int best = kernels_.best(row, channels);
      found[std::size_t(task) * greedy + i - kept] = {best < 0 ? 0 : row[best], best < 0 ? -1 : channel + best};
    }
  });
  for (int i = 0; i < greedy; ++i) {
    Best best = found[i];
    for (int task = 1; task < head_tasks() && best.token >= 0; ++task) {
      const Best& other = found[std::size_t(task) * greedy + i];
      if (other.token < 0 || other.logit > best.logit) best = other;
    }
    tokens[pass[kept + i]] = best.token;
  }
}

void Model::logits(const std::int32_t* rows, int count, float* out) {
  head_panels(rows, count, [&](int, int first, int some, int channel, int channels, const float* logits) {
    for (int i = 0; i < some; ++i) {
      std::copy_n(logits + i * kHeadPanels * kPanel, channels, out + std::size_t(first + i) * shape_.vocab + channel);
    }
  });
}

}  // namespace salver
