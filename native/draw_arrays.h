// What rows ask of the sampler, as it comes from Python: checked once, then plain pointers.
#pragma once

#include <cmath>
#include <vector>

#include "arrays.h"
#include "sampler.h"

namespace salver {
namespace {

// Arrays of one call. Of row i: `draws` [rows, 5] has temperature, top-k, top-p, min-p and the uniform
// number; edits [edit_starts[i], edit_starts[i + 1]) of `edits` [all, 4] are (token, added, repetition,
// taken); `given` is the token to score, or -1 to draw one; `tops` is how many of the likeliest to
// score, or -1 to score nothing. Results: `tokens` and `logprobs` [rows], and the likeliest of all
// rows end to end in `top_tokens` and `top_logprobs`.
struct DrawArrays {
  Doubles draws;
  Ints edit_starts;
  Doubles edits;
  Ints given, tops;
  IntsOut tokens;
  DoublesOut logprobs;
  IntsOut top_tokens;
  DoublesOut top_logprobs;
};

class CheckedDraws {
 public:
  CheckedDraws(const DrawArrays& arrays, std::size_t rows, int vocab) : arrays_(arrays), vocab_(vocab) {
    require(arrays.draws.shape(0) == rows && arrays.draws.shape(1) == 5, "draws are [rows, 5]");
    require(arrays.edit_starts.shape(0) == rows + 1 && arrays.edits.shape(1) == 4, "edits are [all, 4], with rows + 1 starts");
    require(arrays.given.shape(0) == rows && arrays.tops.shape(0) == rows, "given and tops are [rows]");
    require(arrays.tokens.shape(0) == rows && arrays.logprobs.shape(0) == rows, "tokens and logprobs are [rows]");
    require(arrays.top_logprobs.shape(0) == arrays.top_tokens.shape(0), "top tokens and their logprobs are as many");
    read_edits(rows);
    std::size_t top = 0;
    for (std::size_t row = 0; row < rows; ++row) each_.push_back(read_draw(row, top));
    require(top == arrays.top_tokens.shape(0), "top tokens are as many as tops say");
  }

  const Draw* data() const { return each_.data(); }
  int size() const { return static_cast<int>(each_.size()); }
  std::int32_t* tokens() const { return arrays_.tokens.data(); }

 private:
  void read_edits(std::size_t rows) {
    const std::int32_t* starts = arrays_.edit_starts.data();
    require(starts[0] == 0 && starts[rows] == std::int64_t(arrays_.edits.shape(0)), "edit_starts cover all edits");
    for (std::size_t row = 0; row < rows; ++row) {
      require(starts[row] <= starts[row + 1], "edit_starts rise");
      double before = -1;
      for (std::int32_t i = starts[row]; i < starts[row + 1]; ++i) {
        const double* line = arrays_.edits.data() + std::size_t(i) * 4;
        require(line[0] > before && line[0] < vocab_, "a row's edits are of rising tokens in [0, vocab)");
        require(line[1] < HUGE_VAL && line[2] > 0 && std::isfinite(line[3]), "an edit adds no infinity; repetition > 0");
        before = line[0];
        edits_.push_back({static_cast<std::int32_t>(line[0]), line[1], line[2], line[3]});
      }
    }
  }

  Draw read_draw(std::size_t row, std::size_t& top) const {
    const double* line = arrays_.draws.data() + row * 5;
    const bool sound = line[0] >= 0 && line[1] >= 0 && line[1] < 2147483648.0 && line[2] > 0 && line[2] <= 1 &&
                       line[3] >= 0 && line[3] <= 1 && line[4] >= 0 && line[4] < 1;
    require(sound, "temperature >= 0, top_k >= 0, top_p in (0, 1], min_p in [0, 1], uniform in [0, 1)");
    Draw draw = {line[0], static_cast<int>(line[1]), line[2], line[3], line[4]};
    const std::int32_t* starts = arrays_.edit_starts.data();
    draw.edits = edits_.data() + starts[row];
    draw.num_edits = starts[row + 1] - starts[row];
    draw.given = arrays_.given.data()[row];
    const int tops = arrays_.tops.data()[row];
    require(draw.given >= -1 && draw.given < vocab_ && tops >= -1 && tops <= vocab_, "given and tops are in the vocabulary");
    if (tops < 0) return draw;
    require(top + tops <= arrays_.top_tokens.shape(0), "top tokens are as many as tops say");
    draw.logprob = arrays_.logprobs.data() + row;
    draw.num_top = tops;
    draw.top_tokens = arrays_.top_tokens.data() + top;
    draw.top_logprobs = arrays_.top_logprobs.data() + top;
    top += tops;
    return draw;
  }

  DrawArrays arrays_;
  int vocab_;
  std::vector<Edit> edits_;
  std::vector<Draw> each_;
};

}  // namespace
}  // namespace salver
