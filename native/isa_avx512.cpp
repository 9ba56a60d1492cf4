// AVX-512 with VNNI: integer products in one instruction, the rest in 512-bit registers.
#include "generic.h"
#include "vnni.h"
#include "vnni_groups.h"

namespace salver {
namespace {
template <Groups kind>
constexpr auto group_sums = vnni_group_sums<kind>;
constexpr auto int8_sums = [](auto&&... of) { vnni_sums(of...); };
constexpr auto bf16_sums = [](auto&&... of) { generic_bf16_sums(of...); };
constexpr auto block_scores = generic_block_scores;
constexpr auto mix_group = generic_mix_group;
constexpr auto int8_block_scores = vnni_int8_block_scores;
constexpr auto int8_mix_group = vnni_int8_mix_group;
}  // namespace
}  // namespace salver

#include "attention.h"
#include "float_mode.h"
#include "gemm.h"
#include "kv_block.h"
#include "norm_rope_act.h"
#include "weigh.h"

namespace salver {

extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels = {"avx512",   enter_float_mode, leave_float_mode, norm_row,
                                encode_row, product,          place_heads,      attend, merge, best_of, weigh_logits};

}  // namespace salver
