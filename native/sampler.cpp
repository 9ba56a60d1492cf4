#include "sampler.h"

#include <algorithm>
#include <functional>

namespace salver {

int Sampler::sample(const Kernels& kernels, const float* logits, const Draw& draw) {
  const int likeliest = kernels.best(logits, vocab_);
  if (likeliest < 0 || draw.temperature == 0) return likeliest;
  kernels.weigh(logits, vocab_, logits[likeliest], draw.temperature, weights_.data());
  if (draw.top_k > 0 && draw.top_k < vocab_) keep_likeliest(logits, draw.top_k);
  if (draw.top_p < 1) keep_nucleus(draw.top_p);
  if (draw.min_p > 0) {
    for (double& weight : weights_) weight = weight < draw.min_p ? 0 : weight;
  }
  return invert(draw.uniform);
}

// The `count` largest logits, the lower id first where equal.
void Sampler::keep_likeliest(const float* logits, int count) {
  order_.assign(logits, logits + vocab_);
  std::nth_element(order_.begin(), order_.begin() + (count - 1), order_.end(), std::greater<>());
  const float bound = order_[count - 1];
  kept_.clear();
  for (int i = 0; i < vocab_; ++i) {
    if (logits[i] > bound) kept_.push_back(i);
  }
  for (int i = 0; i < vocab_ && kept_.size() < std::size_t(count); ++i) {
    if (logits[i] == bound) kept_.push_back(i);
  }
  keep_only();
}

// The fewest tokens, likeliest first, that hold at least `top_p` of the weight. Those below
// (1 - top_p) / vocab of it cannot be among them, even all together.
void Sampler::keep_nucleus(double top_p) {
  double total = 0;
  for (int i = 0; i < vocab_; ++i) total += weights_[i];
  const double least = (1 - top_p) / vocab_ * total;
  kept_.clear();
  for (int i = 0; i < vocab_; ++i) {
    if (weights_[i] >= least) kept_.push_back(i);
  }
  std::sort(kept_.begin(), kept_.end(), [&](int a, int b) {
    return weights_[a] != weights_[b] ? weights_[a] > weights_[b] : a < b;
  });
  double held = 0;
  std::size_t count = 0;
  while (count < kept_.size() && held < top_p * total) held += weights_[kept_[count++]];
  kept_.resize(std::max<std::size_t>(count, 1));
  keep_only();
}

// Every weight but those of `kept_` becomes 0.
void Sampler::keep_only() {
  std::sort(kept_.begin(), kept_.end());
  std::size_t next = 0;
  for (int i = 0; i < vocab_; ++i) {
    if (next < kept_.size() && kept_[next] == i) {
      ++next;
    } else {
      weights_[i] = 0;
    }
  }
}

// The first token whose cumulative weight exceeds uniform * total; the last that has a weight,
// should the product round up to the total.
int Sampler::invert(double uniform) const {
  double total = 0;
  for (int i = 0; i < vocab_; ++i) total += weights_[i];
  const double target = uniform * total;
  double reached = 0;
  int last = 0;
  for (int i = 0; i < vocab_; ++i) {
    if (weights_[i] > 0) last = i;
    reached += weights_[i];
    if (reached > target) return i;
  }
  return last;
}

}  // namespace salver
