// Kernels one at a time, for tests/native: what they are given is checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <vector>

#include "arguments.h"
#include "draw_arrays.h"
#include "isa.h"
#include "probe.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace salver {
namespace {

template <typename T>
using Array = nb::ndarray<nb::numpy, T>;

// Hands a vector to NumPy, which keeps it alive.
template <typename T>
Array<T> as_array(std::vector<T> values, std::initializer_list<std::size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Array<T>(kept->data(), shape, owner);
}

Epilogue epilogue_named(const std::string& name) {
  if (name == "store") return Epilogue::store;
  if (name == "add") return Epilogue::add;
  if (name == "swiglu") return Epilogue::swiglu;
  throw std::invalid_argument("epilogue is store, add or swiglu");
}

Array<float> product(const std::string& isa, const std::string& precision, const Floats& x, const Matrix& weights,
                     const std::optional<Floats>& bias, const std::string& epilogue,
                     const std::optional<Floats>& onto) {
  require(x.ndim() == 2 && x.shape(0) > 0 && x.shape(1) > 0, "x is [m, k], weights [n, k]");
  const auto* groups = std::get_if<GroupedArray>(&weights);
  const std::size_t m = x.shape(0), k = x.shape(1), n = groups ? groups->rows() : std::get<Floats>(weights).shape(0);
  ProductProbe probe;
  probe.encoding = encoding_named(precision);
  require((probe.encoding == Encoding::groups) == (groups != nullptr), "groups go with q4, and q4 with groups");
  probe.x = x.data();
  probe.weights = matrix(weights, n, k, "weights are [n, k]");
  probe.bias = optional_vector(bias, n, "bias is [n]");
  probe.m = int(m), probe.n = int(n), probe.k = int(k);
  probe.epilogue = epilogue_named(epilogue);
  const bool adds = probe.epilogue == Epilogue::add, gates = probe.epilogue == Epilogue::swiglu;
  require(adds == onto.has_value(), "what to add to goes with the epilogue add");
  require(!gates || n % kPanel == 0, "gates and ups alternate in whole panels");
  probe.onto = adds ? matrix(*onto, m, n, "what to add to is [m, n]") : nullptr;
  return as_array(probe_product(kernels_for(isa), probe), {m, gates ? n / 2 : n});
}

Array<float> norm(const std::string& isa, const Floats& x, const Floats& weight, float epsilon) {
  const std::size_t size = weight.size();
  const float* row = vector(x, size, "x and weight are as long");
  return as_array(probe_norm(kernels_for(isa), row, weight.data(), int(size), epsilon), {size});
}

std::pair<Array<std::uint8_t>, Array<std::uint8_t>> heads(
    const std::string& isa, const std::string& kv_cache, const Floats& projections, int kv_heads,
    const Floats& cosines, const Floats& sines, const std::optional<Floats>& q_norm,
    const std::optional<Floats>& k_norm, float epsilon, int slot, int clear_from) {
  require(projections.ndim() == 2, "projections are [heads + 2 * kv_heads, head_dim]");
  const std::size_t dim = projections.shape(1), heads = projections.shape(0) - 2 * std::size_t(kv_heads);
  require(kv_heads > 0 && projections.shape(0) > 2 * std::size_t(kv_heads) && heads % kv_heads == 0,
          "kv_heads divides heads");
  require(dim > 0 && dim % 2 == 0 && dim <= std::size_t(kMaxHeadDim), "head_dim is even, at most 256");
  require(slot >= 0 && slot < clear_from && clear_from <= kBlockTokens, "0 <= slot < clear_from <= 32");
  HeadsProbe probe;
  probe.format = kv_format_named(kv_cache);
  probe.projections = projections.data();
  probe.q_norm = optional_vector(q_norm, dim, "q_norm is [head_dim]");
  probe.k_norm = optional_vector(k_norm, dim, "k_norm is [head_dim]");
  probe.cosines = vector(cosines, dim / 2, "cosines are [head_dim / 2]");
  probe.sines = vector(sines, dim / 2, "sines are [head_dim / 2]");
  probe.heads = int(heads), probe.kv_heads = kv_heads, probe.head_dim = int(dim);
  probe.epsilon = epsilon;
  probe.slot = slot, probe.clear_from = clear_from;
  WrittenHeads written = probe_heads(kernels_for(isa), probe);
  const std::size_t query = written.queries.size() / heads, block = written.block.size() / kv_heads;
  return {as_array(std::move(written.queries), {heads, query}),
          as_array(std::move(written.block), {std::size_t(kv_heads), block})};
}

Array<float> attention(const std::string& isa, const Floats& queries, const Floats& keys, const Floats& values,
                       int window, const std::string& kv_cache, bool in_parts) {
  require(queries.ndim() == 3 && keys.ndim() == 3 && values.ndim() == 3, "arrays are [tokens, heads, head_dim]");
  const std::size_t tokens = queries.shape(0), heads = queries.shape(1), dim = queries.shape(2);
  const std::size_t context = keys.shape(0), kv_heads = keys.shape(1);
  require(keys.shape(2) == dim && values.shape(0) == context && values.shape(1) == kv_heads && values.shape(2) == dim,
          "keys and values are [context, kv_heads, head_dim]");
  require(tokens > 0 && context >= tokens && kv_heads > 0 && heads % kv_heads == 0 && window > 0 && dim > 0 &&
              dim % 2 == 0 && dim <= std::size_t(kMaxHeadDim),
          "tokens are the context's last, kv_heads divides heads, head_dim is even and at most 256");
  const AttentionProbe probe = {queries.data(), keys.data(), values.data(), int(tokens), int(context),
                                int(heads),     int(kv_heads), int(dim),    window, kv_format_named(kv_cache), in_parts};
  return as_array(probe_attention(kernels_for(isa), probe), {tokens, heads, dim});
}

int best(const std::string& isa, const Floats& x) {
  require(x.ndim() == 1, "x is one row");
  return kernels_for(isa).best(x.data(), int(x.shape(0)));
}

void draw(const std::string& isa, const FloatsOut& logits, const DrawArrays& asked) {
  const std::size_t rows = logits.shape(0), vocab = logits.shape(1);
  require(rows > 0 && vocab > 0, "logits are [rows, vocab]");
  const Kernels& kernels = kernels_for(isa);
  const CheckedDraws draws(asked, rows, static_cast<int>(vocab));
  Sampler sampler(static_cast<int>(vocab));
  std::vector<float> row(vocab + 8);
  for (std::size_t i = 0; i < rows; ++i) {
    std::copy_n(logits.data() + i * vocab, vocab, row.begin());
    draws.tokens()[i] = sampler.sample(kernels, row.data(), draws.data()[i]);
  }
}

Array<double> weigh(const std::string& isa, const Floats& logits, double maximum, double temperature) {
  require(logits.ndim() == 1, "logits are one row");
  require(temperature > 0, "temperature is positive");
  const std::size_t size = logits.size();
  return as_array(probe_weigh(kernels_for(isa), logits.data(), int(size), maximum, temperature), {size});
}

}  // namespace

void bind_probes(nb::module_& m) {
  m.def("product", &product, "isa"_a, "precision"_a, "x"_a, "weights"_a, "bias"_a.none() = nb::none(),
        "epilogue"_a = "store", "onto"_a.none() = nb::none());
  m.def("norm", &norm, "isa"_a, "x"_a, "weight"_a, "epsilon"_a);
  m.def("heads", &heads, "isa"_a, "kv_cache"_a, "projections"_a, nb::kw_only(), "kv_heads"_a, "cosines"_a, "sines"_a,
        "q_norm"_a.none() = nb::none(), "k_norm"_a.none() = nb::none(), "epsilon"_a = 0.0F, "slot"_a = 0,
        "clear_from"_a = kBlockTokens);
  m.def("attention", &attention, "isa"_a, "queries"_a, "keys"_a, "values"_a, "window"_a,
        "kv_cache"_a = "bf16", "in_parts"_a = false);
  m.def("weigh", &weigh, "isa"_a, "logits"_a, "maximum"_a, "temperature"_a);
  m.def("draw", &draw, "isa"_a, "logits"_a, "asked"_a);
  m.def("best", &best, "isa"_a, "x"_a);
}

}  // namespace salver
