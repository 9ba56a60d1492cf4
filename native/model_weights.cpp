// How a model gets its weights: packed from float32 on all threads, or filled with what was packed.
#include <algorithm>

#include "entered.h"
#include "model.h"

namespace salver {
namespace {

constexpr int kPanelsPerTask = 4;
constexpr int kRowsPerTask = 512;  // of the embedding

int round_up(int size, int unit) { return (size + unit - 1) / unit * unit; }
int ceil_div(int a, int b) { return (a + b - 1) / b; }

std::vector<float> padded(int size) { return std::vector<float>(round_up(size, kPanel)); }

}  // namespace

void Model::set_rotary(const float* cosines, const float* sines, int positions) {
  const std::size_t count = std::size_t(positions) * (shape_.head_dim / 2);
  cosines_.assign(cosines, cosines + count);
  sines_.assign(sines, sines + count);
  positions_ = positions;
}

void Model::set_embedding(const float* values) {
  embedding_ = arena_.take(std::size_t(shape_.vocab) * shape_.hidden * sizeof(std::uint16_t));
  pool_.each(ceil_div(shape_.vocab, kRowsPerTask), [&](int task, int) {
    const std::size_t first = std::size_t(task) * kRowsPerTask * shape_.hidden;
    const int rows = std::min(kRowsPerTask, shape_.vocab - task * kRowsPerTask);
    round_to_bf16(values + first, std::size_t(rows) * shape_.hidden, embedding_.as<std::uint16_t>() + first);
  });
}

void Model::set_head(const float* values, const float* norm) {
  reserve_head();
  std::copy_n(norm, shape_.hidden, final_norm_.begin());
  pack(head_, {values, {}}, nullptr);
}

void Model::reserve_head() {
  final_norm_ = padded(shape_.hidden);
  head_ = Weights(shape_.vocab, shape_.hidden, form(Groups::none), arena_);
}

Model::Layer Model::reserved_layer(bool qk_norm, const LayerGroups& groups) {
  const int hidden = shape_.hidden, mixed = shape_.heads * shape_.head_dim;
  Layer layer;
  layer.input_norm = padded(hidden);
  layer.post_norm = padded(hidden);
  if (qk_norm) {
    layer.q_norm.resize(shape_.head_dim);
    layer.k_norm.resize(shape_.head_dim);
  }
  layer.qkv = Weights(mixed + 2 * shape_.kv_heads * shape_.head_dim, hidden, form(groups.qkv), arena_);
  layer.output = Weights(hidden, mixed, form(groups.output), arena_);
  layer.gate_up = Weights(2 * round_up(shape_.intermediate, kLanes), hidden, form(groups.gate_up), arena_);
  layer.down = Weights(hidden, shape_.intermediate, form(groups.down), arena_);
  return layer;
}

void Model::add_layer(const LayerTensors& from) {
  const LayerGroups groups = {from.qkv.groups.kind, from.output.groups.kind, from.gate_up.groups.kind,
                              from.down.groups.kind};
  Layer layer = reserved_layer(from.q_norm != nullptr, groups);
  std::copy_n(from.input_norm, shape_.hidden, layer.input_norm.begin());
  std::copy_n(from.post_norm, shape_.hidden, layer.post_norm.begin());
  if (from.q_norm) {
    std::copy_n(from.q_norm, shape_.head_dim, layer.q_norm.begin());
    std::copy_n(from.k_norm, shape_.head_dim, layer.k_norm.begin());
  }
  pack(layer.qkv, from.qkv, from.qkv_bias);
  pack(layer.output, from.output, nullptr);
  pack(layer.gate_up, from.gate_up, nullptr);
  pack(layer.down, from.down, nullptr);
  layers_.push_back(std::move(layer));
}

void Model::pack(Weights& weights, const Tensor& from, const float* bias) {
  const Entered entered(kernels_);  // as the pool's threads: a channel's bits do not depend on who packs it
  pool_.each(ceil_div(weights.panels(), kPanelsPerTask), [&](int task, int) {
    const int first = task * kPanelsPerTask;
    weights.pack(from, bias, first, std::min(first + kPanelsPerTask, weights.panels()));
  });
}

void Model::reserve(bool qk_norm, const std::vector<LayerGroups>& groups) {
  embedding_ = arena_.take(std::size_t(shape_.vocab) * shape_.hidden * sizeof(std::uint16_t));
  reserve_head();
  layers_.clear();
  for (int layer = 0; layer < shape_.layers; ++layer) {
    layers_.push_back(reserved_layer(qk_norm, groups.empty() ? LayerGroups{} : groups[layer]));
  }
}

Sections Model::sections() {
  Sections sections = {{"embedding", "bfloat16", embedding_.as<void>(), embedding_.bytes()},
                       section("norm", "float32", final_norm_)};
  head_.list("head", sections);
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    Layer& layer = layers_[index];
    const std::string name = "layers." + std::to_string(index) + ".";
    sections.push_back(section(name + "input_norm", "float32", layer.input_norm));
    sections.push_back(section(name + "post_norm", "float32", layer.post_norm));
    sections.push_back(section(name + "q_norm", "float32", layer.q_norm));
    sections.push_back(section(name + "k_norm", "float32", layer.k_norm));
    layer.qkv.list(name + "qkv", sections);
    layer.output.list(name + "output", sections);
    layer.gate_up.list(name + "gate_up", sections);
    layer.down.list(name + "down", sections);
  }
  return sections;
}

}  // namespace salver
