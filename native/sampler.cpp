#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace salver {

namespace {
constexpr double kLargest = 1e300;  // keeps a logit divided by a tiny penalty finite
}

int Sampler::sample(const Kernels& kernels, const float* logits, const Draw& draw) {
  const int likeliest = kernels.best(logits, vocab_);
  if (likeliest < 0) return kNotFinite;
  int token = draw.given;
  if (token < 0) token = draw.num_edits ? choose_edited(kernels, logits, draw) : choose(kernels, logits, likeliest, draw);
  if (token >= 0 && draw.logprob) score(kernels, logits, likeliest, token, draw);
  return token;
}

int Sampler::choose(const Kernels& kernels, const float* logits, int likeliest, const Draw& draw) {
  if (draw.temperature == 0) return likeliest;
  kernels.weigh(logits, vocab_, logits[likeliest], draw.temperature, weights_.data());
  if (draw.top_k > 0 && draw.top_k < vocab_) keep_likeliest(logits, draw.top_k);
  return filter_and_invert(draw);
}

// Tokens with edits are taken out of the row, which then goes the usual way, and put back in double
// precision: few of them, as a rule.
int Sampler::choose_edited(const Kernels& kernels, const float* logits, const Draw& draw) {
  row_.assign(logits, logits + vocab_);
  row_.resize(std::size_t(vocab_) + 8);
  edited_.resize(draw.num_edits);
  for (int i = 0; i < draw.num_edits; ++i) {
    const Edit& edit = draw.edits[i];
    edited_[i] = edited(edit, logits[edit.token]);
    row_[edit.token] = std::numeric_limits<float>::lowest();
  }
  int likeliest = draw.num_edits < vocab_ ? kernels.best(row_.data(), vocab_) : vocab_;
  double maximum = likeliest < vocab_ ? row_[likeliest] : -std::numeric_limits<double>::infinity();
  for (int i = 0; i < draw.num_edits; ++i) {
    const int token = draw.edits[i].token;
    if (edited_[i] > maximum || (edited_[i] == maximum && token < likeliest)) {
      maximum = edited_[i];
      likeliest = token;
    }
  }
  if (maximum == -std::numeric_limits<double>::infinity()) return kAllBanned;
  if (draw.temperature == 0) return likeliest;
  kernels.weigh(row_.data(), vocab_, maximum, draw.temperature, weights_.data());
  for (int i = 0; i < draw.num_edits; ++i) {
    weights_[draw.edits[i].token] = std::exp((edited_[i] - maximum) / draw.temperature);
  }
  if (draw.top_k > 0 && draw.top_k < vocab_) {
    values_.assign(logits, logits + vocab_);
    for (int i = 0; i < draw.num_edits; ++i) values_[draw.edits[i].token] = edited_[i];
    keep_likeliest(values_.data(), draw.top_k);
  }
  return filter_and_invert(draw);
}

double Sampler::edited(const Edit& edit, float logit) const {
  double value = logit + edit.added;
  if (edit.repetition != 1) {
    value = std::min(value > 0 ? value / edit.repetition : value * edit.repetition, kLargest);
  }
  return value - edit.taken;
}

int Sampler::filter_and_invert(const Draw& draw) {
  if (draw.top_p < 1) keep_nucleus(draw.top_p);
  if (draw.min_p > 0) {
    for (double& weight : weights_) weight = weight < draw.min_p ? 0 : weight;
  }
  return invert(draw.uniform);
}

void Sampler::score(const Kernels& kernels, const float* logits, int likeliest, int token, const Draw& draw) {
  const double maximum = logits[likeliest];
  kernels.weigh(logits, vocab_, maximum, 1.0, weights_.data());
  double total = 0;
  for (int i = 0; i < vocab_; ++i) total += weights_[i];
  const double normalizer = std::log(total);
  *draw.logprob = logits[token] - maximum - normalizer;
  find_top(logits, draw.num_top);
  for (int i = 0; i < draw.num_top; ++i) {
    draw.top_tokens[i] = kept_[i];
    draw.top_logprobs[i] = logits[kept_[i]] - maximum - normalizer;
  }
}

// The `count` largest logits into kept_, largest first, the lower id first where equal.
void Sampler::find_top(const float* logits, int count) {
  kept_.clear();
  if (count == 0) return;
  for (int i = 0; i < vocab_; ++i) {
    const bool full = static_cast<int>(kept_.size()) == count;
    if (full && !(logits[i] > logits[kept_.back()])) continue;
    if (full) kept_.pop_back();
    const auto place = std::upper_bound(kept_.begin(), kept_.end(), i, [&](int a, int b) { return logits[a] > logits[b]; });
    kept_.insert(place, i);
  }
}

// The `count` largest values, the lower id first where equal.
template <typename Value>
void Sampler::keep_likeliest(const Value* values, int count) {
  std::vector<Value> order(values, values + vocab_);
  std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), std::greater<>());
  const Value bound = order[count - 1];
  kept_.clear();
  for (int i = 0; i < vocab_; ++i) {
    if (values[i] > bound) kept_.push_back(i);
  }
  for (int i = 0; i < vocab_ && kept_.size() < std::size_t(count); ++i) {
    if (values[i] == bound) kept_.push_back(i);
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
