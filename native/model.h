// A Llama-family decoder over a paged KV pool, one call per step.
//
// A step is one flat list of tokens from many sequences. Few tokens are split by output channels:
// the members of the pool stream disjoint weights, which is what bounds such a step. Many tokens are
// split by rows: each member carries its rows through a layer while they are in its cache. Both
// orders do the same arithmetic per row, so a row's bits do not depend on which was taken (law 3).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "pack.h"
#include "sampler.h"
#include "sections.h"
#include "threads.h"

namespace salver {

// `q4` holds what its file has in 4-bit groups as it is, and everything else as `w8a16` does.
enum class Precision { w8a16, w8a8, bf16, q4 };

struct ModelShape {
  int layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  int window;  // keys visible, the current one included
  float epsilon;
};

struct Limits {
  int threads, blocks, step_tokens;
};

// Matrices [n, k] row-major. `gate_up` has gates and ups in turns of 16 rows, padded with zeros.
struct LayerTensors {
  const float *input_norm, *qkv_bias, *q_norm, *k_norm, *post_norm;
  Tensor qkv, output, gate_up, down;
};

// What a layer's matrices are held as where the precision is q4.
struct LayerGroups {
  Groups qkv = Groups::none, output = Groups::none, gate_up = Groups::none, down = Groups::none;
};

struct Sequence {
  int start, end;  // of the step's flat tokens
  int first_position;
  const std::int32_t* blocks;
};

struct Step {
  const std::int32_t* token_ids;
  int tokens;
  std::vector<Sequence> sequences;
  std::vector<std::int32_t> kept;  // rows whose hidden states are wanted, ascending
};

class Model {
 public:
  Model(const ModelShape&, const Limits&, Precision, KvFormat, const Kernels&);

  const ModelShape& shape() const { return shape_; }
  int step_tokens() const { return limits_.step_tokens; }
  int blocks() const { return limits_.blocks; }

  // Rotary tables are [positions, head_dim / 2].
  void set_rotary(const float* cosines, const float* sines, int positions);
  void set_embedding(const float* values);
  void set_head(const float* values, const float* norm);
  void add_layer(const LayerTensors&);
  // In place of the embedding, the head and the layers: room for them, for `sections` to be filled.
  // `groups` has a line for each layer, or none.
  void reserve(bool qk_norm, const std::vector<LayerGroups>& groups);
  Sections sections();
  int positions() const { return positions_; }
  int layers_given() const { return static_cast<int>(layers_.size()); }
  void fill_pool(std::uint8_t byte);

  // Computes every layer for the step's tokens, of the last one only keys and values where a row is not
  // kept. The hidden states of the kept rows stay here until the next step.
  void forward(const Step&);
  bool keeps(int row) const { return std::binary_search(kept_.begin(), kept_.end(), row); }
  const std::vector<std::int32_t>& kept() const { return kept_; }
  const float* hidden(int row) const { return hidden_at(place_of(row)); }

  // A token for each of these kept rows of the last step; -1 where a logit is not finite.
  void sample(const std::int32_t* rows, const Draw* draws, int count, std::int32_t* tokens);
  // [count, vocab] of kept rows of the last step.
  void logits(const std::int32_t* rows, int count, float* out);

 private:
  struct Layer {
    std::vector<float> input_norm, q_norm, k_norm, post_norm;
    Weights qkv, output, gate_up, down;
  };
  // What a token's KV is written by.
  struct Place {
    std::int32_t position, block, slot, clear_from;
  };
  // A tile of queries, and of its groups of keys those that one task takes.
  struct Tile {
    const Sequence* sequence;
    int kv_head, first_row, rows;
    int first_group, end_group;
    std::size_t parts;  // offset of the first group's in parts_, where tiles are split
  };

  Form form(Groups groups) const { return {precision_ != Precision::bf16, groups}; }
  Layer reserved_layer(bool qk_norm, const LayerGroups& groups);
  void reserve_head();
  void pack(Weights&, const Tensor& from, const float* bias);
  void lay_out(const Step&);
  void embed(const Step&, int row);
  void project(int layer);
  void project_by_rows(int layer);
  void project_by_channels(int layer);
  void transform(const Layer&);
  void transform_by_rows(const Layer&);
  void transform_by_channels(const Layer&);
  void leave_only(const std::vector<std::int32_t>& rows);
  template <typename Body>
  void each_row(const Body& body);
  template <typename Body>
  void each_row_block(const Body& body);

  float* hidden_at(int place) const { return hidden_.as<float>() + place * hidden_stride_; }
  int place_of(int row) const {
    return static_cast<int>(std::lower_bound(kept_.begin(), kept_.end(), row) - kept_.begin());
  }
  // A token has the same room however it is encoded: threads are at different matrices of a layer.
  std::size_t row_room(Encoding encoding) const {
    return encoded_stride_ * rows_per_token_ / rows_per_token(encoding);
  }
  // Its first row as `encoding` writes it; a multiple of 16 tokens may begin a product.
  std::uint8_t* encoded(int token, Encoding encoding) const;
  RowGroup* row_groups(int token) const { return row_groups_.as<RowGroup>() + token * row_groups_stride_; }
  EncodedRows encoded_rows(int first, int tokens, Encoding encoding) const;
  // Each writes a row in the way in which `reader` reads it.
  void encode_hidden(const float* norm, const Weights& reader, const float* hidden, int row, int member);
  void encode_normed(const float* norm, const Weights& reader, int row, int member);
  void encode_plain(const Buffer& source, std::size_t stride, int size, const Weights& reader, int row);
  void encode(const float* x, int size, const Weights& reader, int row);
  Encoding encoding_for(const Weights& reader) const {
    return reader.groups() == Groups::none ? encoding_ : Encoding::groups;
  }
  void place_heads(int layer, int row);
  void lay_out_tiles();
  void split_tiles();
  AttentionTask task_of(int layer, const Tile& tile) const;
  void attend_all(int layer);
  Destination projections() const;
  Destination residual() const;
  Destination gated() const;
  int head_tasks() const;
  std::size_t scratch_floats() const;
  void multiply(const Weights&, int first, int tokens, const Destination&, int first_panel, int end_panel);
  void multiply_all(const Weights&, const Destination&);
  void read_out(const std::int32_t* rows, const std::vector<int>& pass, int kept, std::int32_t* tokens);
  template <typename Take>
  void head_panels(const std::int32_t* rows, int count, const Take& take);

  ModelShape shape_;
  Limits limits_;
  Precision precision_;
  KvFormat kv_format_;
  const Kernels& kernels_;
  ThreadPool pool_;
  Encoding encoding_;
  int rows_per_token_;
  int padded_dim_, positions_ = 0;
  std::size_t hidden_stride_, heads_stride_, mixed_stride_, gated_stride_, encoded_stride_, row_groups_stride_;
  std::size_t head_block_bytes_, layer_block_bytes_, block_stride_;

  std::vector<float> cosines_, sines_;
  Arena arena_;  // of all weights
  Buffer embedding_;  // bf16 [vocab, hidden]
  std::vector<float> final_norm_;
  Weights head_;
  std::vector<Layer> layers_;
  std::vector<Sampler> samplers_;  // one per member
  Buffer kv_;  // [layer][block][kv head], as kv_block.h lays them out

  int tokens_ = 0;
  std::vector<std::int32_t> kept_;
  std::vector<Sequence> sequences_;
  std::vector<Place> places_;
  std::vector<Tile> tiles_, pieces_;  // pieces of tiles, where there are fewer tiles than are good
  std::vector<float> parts_;
  Buffer hidden_, projections_, mixed_, gated_, encoded_, scales_, row_groups_, queries_, scratch_, logits_;
};

}  // namespace salver
