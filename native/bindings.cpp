// salver._native: what Python sees. Everything that reaches the core is checked here, once per call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "arguments.h"
#include "draw_arrays.h"
#include "group_layout.h"
#include "isa.h"
#include "roofline.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace salver {

void bind_probes(nb::module_& m);  // probe_bindings.cpp

namespace {

// A model, and whether the step that its hidden states belong to was run.
class NativeModel {
 public:
  NativeModel(const ModelShape& shape, const Limits& limits, const std::string& precision,
              const std::string& kv_cache, const std::string& isa)
      : precision_(precision_named(precision)),
        model_(shape, limits, precision_, kv_format_named(kv_cache), kernels_for(isa)) {}

  void set_rotary(const Floats& cosines, const Floats& sines) {
    const std::size_t half = model_.shape().head_dim / 2, positions = cosines.shape(0);
    model_.set_rotary(matrix(cosines, positions, half, "cosines are [positions, head_dim / 2]"),
                      matrix(sines, positions, half, "sines are [positions, head_dim / 2]"),
                      static_cast<int>(positions));
  }

  void set_embedding(const Floats& values) {
    const ModelShape& shape = model_.shape();
    model_.set_embedding(matrix(values, shape.vocab, shape.hidden, "the embedding is [vocab, hidden]"));
  }

  void set_head(const Floats& values, const Floats& norm) {
    const ModelShape& shape = model_.shape();
    model_.set_head(matrix(values, shape.vocab, shape.hidden, "the head is [vocab, hidden]"),
                    vector(norm, shape.hidden, "the last norm is [hidden]"));
    has_head_ = true;
  }

  void add_layer(const Floats& input_norm, const Matrix& qkv, const std::optional<Floats>& qkv_bias,
                 const std::optional<Floats>& q_norm, const std::optional<Floats>& k_norm,
                 const Matrix& output, const Floats& post_norm, const Matrix& gate_up, const Matrix& down) {
    const ModelShape& s = model_.shape();
    require(model_.layers_given() < s.layers, "there are no more layers than the shape says");
    const std::size_t heads = std::size_t(s.heads) * s.head_dim;
    const std::size_t qkv_rows = heads + std::size_t(2) * s.kv_heads * s.head_dim;
    const std::size_t gate_up_rows = (std::size_t(s.intermediate) + kLanes - 1) / kLanes * kLanes * 2;
    LayerTensors layer;
    layer.input_norm = vector(input_norm, s.hidden, "input_norm is [hidden]");
    layer.qkv = matrix(qkv, qkv_rows, s.hidden, "qkv is [q + k + v, hidden]");
    layer.qkv_bias = optional_vector(qkv_bias, qkv_rows, "qkv_bias is [q + k + v]");
    layer.q_norm = optional_vector(q_norm, s.head_dim, "q_norm is [head_dim]");
    layer.k_norm = optional_vector(k_norm, s.head_dim, "k_norm is [head_dim]");
    layer.output = matrix(output, s.hidden, heads, "output is [hidden, heads * head_dim]");
    layer.post_norm = vector(post_norm, s.hidden, "post_norm is [hidden]");
    layer.gate_up = matrix(gate_up, gate_up_rows, s.hidden, "gate_up is [2 * padded intermediate, hidden]");
    layer.down = matrix(down, s.hidden, s.intermediate, "down is [hidden, intermediate]");
    for (const Tensor* each : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
      require(each->values || precision_ == Precision::q4, "groups are for precision q4");
    }
    const nb::gil_scoped_release released;
    model_.add_layer(layer);
  }

  void reserve(bool qk_norm, const std::vector<std::array<std::string, 4>>& groups) {
    const ModelShape& s = model_.shape();
    require(groups.empty() || (precision_ == Precision::q4 && groups.size() == std::size_t(s.layers)),
            "groups have a line per layer, in precision q4 alone");
    std::vector<LayerGroups> layers;
    for (const auto& [qkv, output, gate_up, down] : groups) {
      layers.push_back({fitting(qkv, s.hidden), fitting(output, s.heads * s.head_dim), fitting(gate_up, s.hidden),
                        fitting(down, s.intermediate)});
    }
    model_.reserve(qk_norm, layers);
    has_head_ = true;
  }

  Sections sections() { return model_.sections(); }

  // The step's tokens through the layers, then what each of `rows` asks for. Those rows alone are kept, or all.
  void step(const Ints& token_ids, const Ints& starts, const Ints& first_positions, const Ints& table_starts,
            const Ints& block_tables, const Ints& rows, const DrawArrays& asked, bool keep_all) {
    Step step = checked_step(token_ids, starts, first_positions, table_starts, block_tables);
    step.kept = checked_kept(rows, step.tokens, keep_all);
    const CheckedDraws draws(asked, rows.shape(0), model_.shape().vocab);
    const nb::gil_scoped_release released;
    model_.forward(step);
    if (draws.size() > 0) model_.sample(rows.data(), draws.data(), draws.size(), draws.tokens());
  }

  void logits(const Ints& rows, const FloatsOut& out) {
    for (std::size_t i = 0; i < rows.shape(0); ++i) {
      require(model_.keeps(rows.data()[i]), "a row is one that the last step kept");
    }
    require(rows.shape(0) <= model_.kept().size(), "no more rows than the last step kept");
    require(out.shape(0) == rows.shape(0) && out.shape(1) == std::size_t(model_.shape().vocab),
            "logits are [rows, vocab]");
    const nb::gil_scoped_release released;
    if (rows.shape(0) > 0) model_.logits(rows.data(), static_cast<int>(rows.shape(0)), out.data());
  }

  void hidden(const FloatsOut& out) const {
    const std::vector<std::int32_t>& rows = model_.kept();
    require(out.shape(0) == rows.size() && out.shape(1) == std::size_t(model_.shape().hidden),
            "hidden states are [rows that the last step kept, hidden]");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(model_.hidden(rows[i]), model_.shape().hidden, out.data() + i * out.shape(1));
    }
  }

  void fill_pool(int byte) { model_.fill_pool(static_cast<std::uint8_t>(byte)); }

 private:
  static Groups fitting(const std::string& groups, int k) {
    const Groups kind = groups_named(groups);
    require(kind == Groups::none || k % scaled_run(kind) == 0, "groups divide the inputs of their matrix");
    return kind;
  }

  Step checked_step(const Ints& token_ids, const Ints& starts, const Ints& first_positions,
                    const Ints& table_starts, const Ints& block_tables) const {
    const std::size_t sequences = first_positions.shape(0), tokens = token_ids.shape(0);
    require(has_head_ && model_.positions() > 0 && model_.layers_given() == model_.shape().layers,
            "every weight is set before the first step");
    require(tokens >= 1 && tokens <= std::size_t(model_.step_tokens()), "a step has 1 to step_tokens tokens");
    require(starts.shape(0) == sequences + 1 && table_starts.shape(0) == sequences + 1,
            "starts and table_starts have one more entry than there are sequences");
    for (std::size_t i = 0; i < tokens; ++i) {
      require(token_ids.data()[i] >= 0 && token_ids.data()[i] < model_.shape().vocab, "a token id is in [0, vocab)");
    }
    for (std::size_t i = 0; i < block_tables.shape(0); ++i) {
      require(block_tables.data()[i] >= 0 && block_tables.data()[i] < model_.blocks(), "a block id is in [0, blocks)");
    }
    Step step{token_ids.data(), static_cast<int>(tokens), {}, {}};
    std::int64_t next = 0;
    for (std::size_t i = 0; i < sequences; ++i) {
      const std::int64_t start = starts.data()[i], end = starts.data()[i + 1];
      const std::int64_t table = table_starts.data()[i], table_end = table_starts.data()[i + 1];
      const std::int64_t first = first_positions.data()[i], length = first + end - start;
      require(start == next && end > start, "sequences lie end to end and have tokens");
      require(first >= 0 && length <= model_.positions(), "positions are in the rotary table");
      require(table >= 0 && table_end <= std::int64_t(block_tables.shape(0)) &&
                  (table_end - table) * kBlockTokens >= length,
              "a block table covers its sequence");
      step.sequences.push_back({static_cast<int>(start), static_cast<int>(end), static_cast<int>(first),
                                block_tables.data() + table});
      next = end;
    }
    require(next == std::int64_t(tokens), "sequences cover all tokens");
    return step;
  }

  static std::vector<std::int32_t> checked_kept(const Ints& rows, int tokens, bool all) {
    require(rows.shape(0) <= std::size_t(tokens), "no more rows than the step has tokens");
    std::vector<std::int32_t> kept(rows.data(), rows.data() + rows.shape(0));
    for (const std::int32_t row : kept) require(row >= 0 && row < tokens, "a row is one of the step's");
    if (all) {
      kept.resize(tokens);
      std::iota(kept.begin(), kept.end(), 0);
      return kept;
    }
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    return kept;
  }

  Precision precision_;
  Model model_;
  bool has_head_ = false;
};

void check_measuring(int threads, double seconds) {
  require(threads > 0 && threads <= 1024, "threads are 1 to 1024");
  require(seconds >= 0 && seconds <= 60, "seconds are 0 to 60");
}

double measured_reading(int threads, std::size_t bytes, double seconds) {
  check_measuring(threads, seconds);
  require(bytes >= std::size_t(threads) * 256, "bytes are at least 256 per thread");
  const nb::gil_scoped_release released;
  return read_rate(threads, bytes, seconds);
}

double measured_products(const std::string& isa, const std::string& precision, int threads, double seconds) {
  check_measuring(threads, seconds);
  const Kernels& kernels = kernels_for(isa);
  const Encoding encoding = encoding_named(precision);
  require(encoding != Encoding::groups, "q4 has no rate of its own: its products are int8");
  const nb::gil_scoped_release released;
  return matrix_rate(kernels, encoding, threads, seconds);
}

// (name, type of the elements, bytes) of every section; the arrays write through, and keep the model.
nb::list sections_of(nb::handle self) {
  nb::list listed;
  for (const Section& each : nb::cast<NativeModel&>(self).sections()) {
    const nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> bytes(each.data, {each.bytes}, self);
    listed.append(nb::make_tuple(each.name, each.type, bytes));
  }
  return listed;
}

void check_shape(const ModelShape& s, const Limits& limits) {
  require(s.layers > 0 && s.hidden > 0 && s.intermediate > 0 && s.vocab > 0, "sizes are positive");
  require(s.kv_heads > 0 && s.heads > 0 && s.heads % s.kv_heads == 0, "kv_heads divides heads");
  require(s.head_dim > 0 && s.head_dim % 2 == 0 && s.head_dim <= kMaxHeadDim, "head_dim is even, at most 256");
  require(s.hidden <= 65536 && s.intermediate <= 65536 && s.heads * s.head_dim <= 65536,
          "a product sums at most 65536 terms");
  require(s.window > 0 && limits.threads > 0 && limits.blocks > 0 && limits.step_tokens > 0,
          "window, threads, blocks and step_tokens are positive");
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The native core: a Llama-family decoder, one call per step.";
  m.attr("BLOCK_TOKENS") = kBlockTokens;
  m.attr("GATE_LANES") = kLanes;
  m.attr("PACKED_LAYOUT") = kPackedLayout;
  m.def(
      "kv_head_bytes",
      [](const std::string& kv_cache, int head_dim) {
        require(head_dim > 0 && head_dim <= kMaxHeadDim, "head_dim is at most 256");
        const KvFormat format = kv_format_named(kv_cache);
        return kv_head_bytes(format, padded_head_dim(format, head_dim));
      },
      "kv_cache"_a, "head_dim"_a);
  m.def("available_isas", &available_isas, "Names of the kernel paths that run here, slowest first.");
  m.def(
      "group_panel_bytes",
      [](const std::string& kind, int k) {
        const Groups groups = groups_named(kind);
        require(groups != Groups::none && k > 0 && k % scaled_run(groups) == 0, "groups divide k");
        return group_panel_bytes(groups, k / kGroup);
      },
      "kind"_a, "k"_a);
  nb::class_<DrawArrays>(m, "DrawArrays")
      .def(nb::init<Doubles, Ints, Doubles, Ints, Ints, IntsOut, DoublesOut, IntsOut, DoublesOut>(), nb::kw_only(),
           "draws"_a, "edit_starts"_a, "edits"_a, "given"_a, "tops"_a, "tokens"_a, "logprobs"_a, "top_tokens"_a,
           "top_logprobs"_a);
  m.def("read_rate", &measured_reading, nb::kw_only(), "threads"_a, "bytes"_a, "seconds"_a);
  m.def("matrix_rate", &measured_products, "isa"_a, "precision"_a, nb::kw_only(), "threads"_a, "seconds"_a);
  nb::class_<GroupedArray>(m, "GroupedArray")
      .def(nb::init<const std::string&, GroupedArray::Bytes, GroupedArray::Halves, std::optional<GroupedArray::Halves>,
                    std::optional<GroupedArray::Bytes>, std::optional<GroupedArray::Bytes>>(),
           "kind"_a, nb::kw_only(), "codes"_a, "scales"_a, "minimums"_a.none(), "inner_scales"_a.none(),
           "inner_minimums"_a.none());
  nb::class_<NativeModel>(m, "Model")
      .def(
          "__init__",
          [](NativeModel* self, int layers, int hidden, int heads, int kv_heads, int head_dim, int intermediate,
             int vocab, int window, float epsilon, int threads, int blocks, int step_tokens,
             const std::string& precision, const std::string& kv_cache, const std::string& isa) {
            const ModelShape shape = {layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, window, epsilon};
            const Limits limits = {threads, blocks, step_tokens};
            check_shape(shape, limits);
            new (self) NativeModel(shape, limits, precision, kv_cache, isa);
          },
          nb::kw_only(), "layers"_a, "hidden"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "intermediate"_a, "vocab"_a,
          "window"_a, "epsilon"_a, "threads"_a, "blocks"_a, "step_tokens"_a, "precision"_a, "kv_cache"_a = "bf16", "isa"_a)
      .def("set_rotary", &NativeModel::set_rotary, "cosines"_a, "sines"_a)
      .def("set_embedding", &NativeModel::set_embedding, "values"_a)
      .def("set_head", &NativeModel::set_head, "values"_a, "norm"_a)
      .def("add_layer", &NativeModel::add_layer, nb::kw_only(), "input_norm"_a, "qkv"_a, "qkv_bias"_a.none(),
           "q_norm"_a.none(), "k_norm"_a.none(), "output"_a, "post_norm"_a, "gate_up"_a, "down"_a)
      .def("reserve", &NativeModel::reserve, nb::kw_only(), "qk_norm"_a, "groups"_a)
      .def("sections", &sections_of)
      .def("step", &NativeModel::step, "token_ids"_a, "starts"_a, "first_positions"_a, "table_starts"_a,
           "block_tables"_a, "rows"_a, "asked"_a, nb::kw_only(), "keep_all"_a = false)
      .def("logits", &NativeModel::logits, "rows"_a, "out"_a)
      .def("hidden", &NativeModel::hidden, "out"_a)
      .def("fill_pool", &NativeModel::fill_pool, "byte"_a);
  bind_probes(m);
}

}  // namespace salver
