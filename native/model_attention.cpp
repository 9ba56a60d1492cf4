// The model's attention: where a step's tokens lie in the pool, and which tasks read it.
//
// A tile of queries is a task. Where there are few tiles and their contexts are long, each becomes
// several, which leave the parts of their key groups to be merged: the same parts in the same order as
// one task would have merged, hence the same bits.
#include <algorithm>

#include "model.h"

namespace salver {
namespace {

constexpr int kTilesPerMember = 4;  // from here on whole tiles keep everybody busy
constexpr int kGroupsPerPiece = 2;  // at least

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

void Model::lay_out(const Step& step) {
  tokens_ = step.tokens;
  sequences_ = step.sequences;
  places_.resize(tokens_);
  for (const Sequence& sequence : sequences_) {
    const int end_position = sequence.first_position + sequence.end - sequence.start;
    for (int row = sequence.start; row < sequence.end; ++row) {
      const int position = sequence.first_position + row - sequence.start;
      const int slot = position % kBlockTokens;
      // Whoever writes a block's first slot clears those that this step does not write.
      const int written = std::min(kBlockTokens, end_position - (position - slot));
      places_[row] = {position, sequence.blocks[position / kBlockTokens], slot,
                      slot == 0 ? written : kBlockTokens};
    }
  }
  lay_out_tiles();
  split_tiles();
}

// Makes the rest of the step one of these rows alone: nobody reads what the others would become.
void Model::leave_only(const std::vector<std::int32_t>& rows) {
  kept_ = rows;
  const int count = static_cast<int>(rows.size());
  if (count == tokens_) return;
  const std::size_t query = shape_.heads * query_bytes(kv_format_, padded_dim_);
  std::vector<Sequence> runs;  // neighbours of one sequence
  const Sequence* of = sequences_.data();
  for (int i = 0; i < count; ++i) {
    const int row = rows[i];
    if (row != i) {
      std::copy_n(hidden_at(row), hidden_stride_, hidden_at(i));
      std::copy_n(queries_.as<std::uint8_t>() + row * query, query, queries_.as<std::uint8_t>() + i * query);
    }
    const bool follows = i > 0 && row == rows[i - 1] + 1 && row < of->end;
    while (row >= of->end) ++of;
    if (follows) ++runs.back().end;
    else runs.push_back({i, i + 1, of->first_position + row - of->start, of->blocks});
  }
  sequences_ = std::move(runs);
  tokens_ = count;
  lay_out_tiles();
  split_tiles();
}

void Model::lay_out_tiles() {
  tiles_.clear();
  const int group = shape_.heads / shape_.kv_heads;
  for (const Sequence& sequence : sequences_) {
    const int rows = (sequence.end - sequence.start) * group;
    for (int head = 0; head < shape_.kv_heads; ++head) {
      for (int row = 0; row < rows; row += kQueryRows) {
        const int first = sequence.first_position + row / group;
        const int last = sequence.first_position + (std::min(row + kQueryRows, rows) - 1) / group;
        const int oldest = std::max(0, first + 1 - shape_.window);
        tiles_.push_back({&sequence, head, row, std::min(kQueryRows, rows - row), oldest / kKeyGroup,
                          last / kKeyGroup + 1, 0});
      }
    }
  }
}

void Model::split_tiles() {
  pieces_.clear();
  const int wanted = kTilesPerMember * pool_.members();
  const int tiles = static_cast<int>(tiles_.size());
  if (pool_.members() == 1 || tiles >= wanted) return;
  std::size_t parts = 0;
  for (Tile& tile : tiles_) {
    const int size = std::max(kGroupsPerPiece, ceil_div(tile.end_group - tile.first_group, ceil_div(wanted, tiles)));
    tile.parts = parts;
    for (int first = tile.first_group; first < tile.end_group; first += size) {
      Tile piece = tile;
      piece.first_group = first;
      piece.end_group = std::min(tile.end_group, first + size);
      piece.parts = parts;
      pieces_.push_back(piece);
      parts += std::size_t(piece.end_group - first) * tile.rows * part_floats(padded_dim_);
    }
  }
  if (pieces_.size() == tiles_.size()) pieces_.clear();
  else if (parts_.size() < parts) parts_.resize(parts);
}

void Model::place_heads(int index, int row) {
  const Layer& layer = layers_[index];
  const Place& place = places_[row];
  const std::size_t angle = std::size_t(place.position) * (shape_.head_dim / 2);
  HeadsTask task;
  task.format = kv_format_;
  task.projections = projections_.as<float>() + row * heads_stride_;
  task.q_norm = layer.q_norm.empty() ? nullptr : layer.q_norm.data();
  task.k_norm = layer.k_norm.empty() ? nullptr : layer.k_norm.data();
  task.cosines = cosines_.data() + angle;
  task.sines = sines_.data() + angle;
  task.heads = shape_.heads;
  task.kv_heads = shape_.kv_heads;
  task.head_dim = shape_.head_dim;
  task.padded_dim = padded_dim_;
  task.epsilon = shape_.epsilon;
  task.queries = queries_.as<std::uint8_t>() + std::size_t(row) * shape_.heads * query_bytes(kv_format_, padded_dim_);
  task.block = kv_.as<std::uint8_t>() + index * layer_block_bytes_ + place.block * block_stride_;
  task.slot = place.slot;
  task.clear_from = place.clear_from;
  kernels_.heads(task);
}

AttentionTask Model::task_of(int index, const Tile& tile) const {
  const Sequence& sequence = *tile.sequence;
  const int first_head = tile.kv_head * (shape_.heads / shape_.kv_heads);
  const std::size_t query = query_bytes(kv_format_, padded_dim_);
  AttentionTask task;
  task.format = kv_format_;
  task.token_stride = shape_.heads * query;
  task.queries = queries_.as<std::uint8_t>() + sequence.start * task.token_stride + first_head * query;
  task.padded_dim = padded_dim_;
  task.group = shape_.heads / shape_.kv_heads;
  task.first_row = tile.first_row;
  task.rows = tile.rows;
  task.first_position = sequence.first_position;
  task.window = shape_.window;
  task.scale = 1.0F / __builtin_sqrtf(static_cast<float>(shape_.head_dim));
  task.pool = kv_.as<std::uint8_t>() + index * layer_block_bytes_ + tile.kv_head * head_block_bytes_;
  task.block_stride = block_stride_;
  task.block_table = sequence.blocks;
  task.first_group = tile.first_group;
  task.end_group = tile.end_group;
  task.parts = nullptr;
  task.out = mixed_.as<float>() + sequence.start * mixed_stride_ + first_head * shape_.head_dim;
  task.out_stride = mixed_stride_;
  task.head_dim = shape_.head_dim;
  task.next = nullptr;
  task.fresh = true;
  return task;
}

void Model::attend_all(int index) {
  const std::vector<Tile>& tiles = pieces_.empty() ? tiles_ : pieces_;
  const int count = static_cast<int>(tiles.size());
  const auto task_at = [&](int i) {
    AttentionTask task = task_of(index, tiles[i]);
    // Nearly: a thread that begins in the middle has not read what the tile before it reads.
    const bool read_before = pieces_.empty() && i > 0 && tiles[i].same_keys(tiles[i - 1]);
    task.fresh = !read_before;
    return task;
  };
  pool_.each(count, [&](int i, int) {
    AttentionTask task = task_at(i), next;
    if (!pieces_.empty()) task.parts = parts_.data() + tiles[i].parts;
    if (i + 1 < count) {
      next = task_at(i + 1);
      task.next = &next;
    }
    kernels_.attend(task);
  });
  if (pieces_.empty()) return;
  pool_.each(static_cast<int>(tiles_.size()), [&](int i, int) {
    kernels_.merge(task_of(index, tiles_[i]), parts_.data() + tiles_[i].parts);
  });
}

}  // namespace salver
