// One token from one row of logits, as engine/sampling.py defines it: temperature, top-k, top-p,
// min-p, then the inverse of the cumulative distribution over the kept tokens in order of id.
#pragma once

#include <vector>

#include "kernels.h"

namespace salver {

struct Draw {
  double temperature;  // 0 takes the largest logit
  int top_k;           // 0 is off
  double top_p, min_p;
  double uniform;  // [0, 1)
};

class Sampler {
 public:
  explicit Sampler(int vocab) : vocab_(vocab), weights_(std::size_t(vocab) + 8) {}

  // The token, or -1 where a logit is not finite. `logits` is readable 8 past its end.
  int sample(const Kernels& kernels, const float* logits, const Draw& draw);

 private:
  void keep_likeliest(const float* logits, int count);
  void keep_nucleus(double top_p);
  void keep_only();
  int invert(double uniform) const;

  int vocab_;
  std::vector<double> weights_;
  std::vector<float> order_;
  std::vector<int> kept_;
};

}  // namespace salver
