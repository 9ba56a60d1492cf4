// One token from one row of logits, as engine/sampling.py defines it: edits, temperature, top-k,
// top-p, min-p, then the inverse of the cumulative distribution over the kept tokens in order of id.
// And log-probabilities of the row as the model gave it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace salver {

// What happens to one token's logit before anything is drawn, in this order.
struct Edit {
  std::int32_t token;
  double added;       // logit bias; minus infinity bans
  double repetition;  // divides what is above zero, multiplies the rest; 1 is off
  double taken;       // presence and frequency penalties
};

struct Draw {
  double temperature;  // 0 takes the largest logit
  int top_k;           // 0 is off
  double top_p, min_p;
  double uniform;               // [0, 1)
  const Edit* edits = nullptr;  // rising tokens; most rows have none
  int num_edits = 0;
  int given = -1;             // a token to score; -1 draws one
  double* logprob = nullptr;  // of the token; null where nobody asked
  int num_top = 0;            // likeliest tokens to score too, written to these
  std::int32_t* top_tokens = nullptr;
  double* top_logprobs = nullptr;

  // Whether the largest raw logit is all that is wanted.
  bool is_argmax() const { return temperature == 0 && num_edits == 0 && given < 0 && !logprob; }
};

constexpr int kNotFinite = -1, kAllBanned = -2;

class Sampler {
 public:
  explicit Sampler(int vocab) : vocab_(vocab), weights_(std::size_t(vocab) + 8) {}

  // The token, kNotFinite or kAllBanned. `logits` is readable 8 past its end.
  int sample(const Kernels& kernels, const float* logits, const Draw& draw);

 private:
  int choose(const Kernels& kernels, const float* logits, int likeliest, const Draw& draw);
  int choose_edited(const Kernels& kernels, const float* logits, const Draw& draw);
  double edited(const Edit& edit, float logit) const;
  int filter_and_invert(const Draw& draw);
  void score(const Kernels& kernels, const float* logits, int likeliest, int token, const Draw& draw);
  template <typename Value>
  void keep_likeliest(const Value* values, int count);
  void keep_nucleus(double top_p);
  void keep_only();
  void find_top(const float* logits, int count);
  int invert(double uniform) const;

  int vocab_;
  std::vector<double> weights_, edited_, values_;
  std::vector<float> row_;
  std::vector<int> kept_;
};

}  // namespace salver
