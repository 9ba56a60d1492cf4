#include "roofline.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffer.h"
#include "entered.h"
#include "pack.h"
#include "threads.h"
#include "vec.h"

namespace salver {
namespace {

constexpr int kUnit = 256;                             // bytes that are read at once
constexpr std::size_t kPiece = std::size_t{1} << 20;   // bytes of a task
constexpr std::size_t kTimed = std::size_t{16} << 20;  // bytes that take far longer than a look at the clock
constexpr std::size_t kAhead = 4096;                   // bytes: the model's products fetch a panel ahead

// A product of the shape that reaches the highest rate here: operands of 200 to 400 KB.
constexpr int kTokens = 64, kChannels = 256, kInputs = 1024;
constexpr int kProducts = 8;  // or bursts of them, per thread and look at the clock

// What `work` does per second over the runs that `seconds` have room for, one at least, after one that
// may find cold caches. A run does `amount`.
template <typename Work>
double mean_rate(double amount, double seconds, const Work& work) {
  using Clock = std::chrono::steady_clock;
  work();
  const auto began = Clock::now();
  for (int runs = 1;; ++runs) {
    work();
    const std::chrono::duration<double> took = Clock::now() - began;
    if (took.count() >= seconds) return amount * runs / std::max(took.count(), 1e-9);
  }
}

// Reads [from, from + bytes), whole kUnits, and has the compiler believe that somebody looks.
template <typename Lanes>
SALVER_INLINE void read_all(const std::uint8_t* from, std::size_t bytes) {
  Lanes seen[4] = {};
  for (const std::uint8_t* end = from + bytes; from != end; from += kUnit) {
    for (int line = 0; line < kUnit; line += 64) __builtin_prefetch(from + kAhead + line, 0, 2);
    for (int i = 0; i < int(kUnit / sizeof(Lanes)); ++i) {
      Lanes read;
      std::memcpy(&read, from + i * sizeof(Lanes), sizeof read);
      seen[i % 4] ^= read;
    }
  }
  const Lanes all = seen[0] ^ seen[1] ^ seen[2] ^ seen[3];
  asm volatile("" : : "m"(all));
}

using Read = void (*)(const std::uint8_t*, std::size_t);

void read_narrow(const std::uint8_t* from, std::size_t bytes) {
  using Lanes = std::uint64_t __attribute__((vector_size(16)));
  read_all<Lanes>(from, bytes);
}

#ifdef SALVER_X86
__attribute__((target("avx512f"))) void read_wide(const std::uint8_t* from, std::size_t bytes) {
  using Lanes = std::uint64_t __attribute__((vector_size(64)));
  read_all<Lanes>(from, bytes);
}

Read reader() { return __builtin_cpu_supports("avx512f") ? read_wide : read_narrow; }
#else
Read reader() { return read_narrow; }
#endif

// One member's operands and room for its results.
struct Operands {
  Weights weights;
  Buffer rows, results;
  std::vector<float> scales;
  std::size_t stride;
  Encoding encoding;

  Operands(const Kernels& kernels, Encoding how, const std::vector<float>& values)
      : weights(Tensor{values.data(), {}}, kChannels, kInputs, nullptr, !is_bf16(how)),
        rows(std::size_t(kTokens) * rows_per_token(how) * kInputs * bytes_per_value(how)),
        results(std::size_t(kTokens) * kChannels * sizeof(float)),
        scales(kTokens),
        stride(std::size_t(kInputs) * bytes_per_value(how)),
        encoding(how) {
    for (int token = 0; token < kTokens; ++token) {
      std::uint8_t* row = rows.as<std::uint8_t>() + row_offset(token * rows_per_token(how), stride);
      scales[token] = kernels.encode(values.data(), kInputs, how, row, nullptr);
    }
  }

  void multiply(const Kernels& kernels) const {
    const EncodedRows encoded = {rows.as<std::uint8_t>(), stride, scales.data(), kTokens, encoding, nullptr, 0};
    kernels.product(weights.view(), encoded, {results.as<float>(), kChannels, Epilogue::store}, 0, weights.panels());
  }
};

}  // namespace

double read_rate(int threads, std::size_t bytes, double seconds) {
  const Buffer buffer(bytes);
  auto* data = buffer.as<std::uint8_t>();
  const int pieces = static_cast<int>(std::max<std::size_t>(threads, (bytes + kPiece - 1) / kPiece));
  const std::size_t each = bytes / pieces / kUnit * kUnit;
  const Read read = reader();
  ThreadPool pool(threads, {});
  pool.each(pieces, [&](int piece, int) { std::fill_n(data + piece * each, each, std::uint8_t{1}); });
  const int sweeps = static_cast<int>(1 + kTimed / bytes);
  return mean_rate(double(each) * pieces * sweeps, seconds, [&] {
    for (int i = 0; i < sweeps; ++i) {
      pool.each(pieces, [&](int piece, int) { read(data + piece * each, each); });
    }
  });
}

double matrix_rate(const Kernels& kernels, Encoding encoding, int threads, double seconds) {
  ThreadPool pool(threads, {kernels.enter, kernels.leave});
  const Entered entered(kernels);
  const int tasks = kProducts * threads;
  if (kernels.burst) {
    const double each = kernels.burst(encoding);
    return mean_rate(each * tasks, seconds, [&] { pool.each(tasks, [&](int, int) { kernels.burst(encoding); }); });
  }
  const std::vector<float> values(std::size_t(kChannels) * kInputs, 1.0F);
  std::vector<Operands> operands;
  operands.reserve(threads);
  for (int member = 0; member < threads; ++member) operands.emplace_back(kernels, encoding, values);
  const double operations = 2.0 * rows_per_token(encoding) * kTokens * kChannels * kInputs;
  return mean_rate(operations * tasks, seconds, [&] {
    pool.each(tasks, [&](int, int member) { operands[member].multiply(kernels); });
  });
}

}  // namespace salver
