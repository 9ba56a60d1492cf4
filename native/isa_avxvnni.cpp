// AVX2 with VNNI: integer products in one instruction, the rest as in isa_avx2.cpp.
#include "avx2.h"
#include "avx2_groups.h"
#include "generic.h"

namespace salver {
namespace {
template <Groups kind>
constexpr auto group_sums = avx2_group_sums<kind>;
constexpr auto int8_sums = [](auto&&... of) { avx2_sums(of...); };
constexpr auto bf16_sums = [](auto&&... of) { generic_bf16_sums(of...); };
constexpr auto block_scores = generic_block_scores;
constexpr auto mix_group = generic_mix_group;
constexpr auto int8_group_scores = avx2_int8_group_scores;
constexpr auto int8_mix_group = avx2_int8_mix_group;
}  // namespace
}  // namespace salver

#include "attention.h"
#include "float_mode.h"
#include "gemm.h"
#include "kv_block.h"
#include "norm_rope_act.h"
#include "weigh.h"

namespace salver {

extern const Kernels kAvxVnniKernels;
const Kernels kAvxVnniKernels = {"avxvnni",  enter_float_mode, leave_float_mode, norm_row,
                                 encode_row, product,          place_heads,      attend, merge, best_of, weigh_logits};

}  // namespace salver
