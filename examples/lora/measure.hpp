// SPDX-License-Identifier: Apache-2.0
//
// How far apart two updates of one weight are, over that weight: what inspect and diff show where a row factor makes the factors alone say too
// little. Without one, lora::low_rank_norm says it from the factors.
#ifndef LORA_EXAMPLES_LORA_MEASURE_HPP
#define LORA_EXAMPLES_LORA_MEASURE_HPP

#include <lora/linalg/forward.hpp>
#include <lora/nd/any_view.hpp>

namespace program {

/**
 * || f_a (W + sum s B A of a) - f_b (W + sum s B A of b) ||_F in double, f being the row factors; biases are not looked at. With an empty b: how
 * far a moves W.
 * @param w  [out, in], f32, f16 or bf16, however it lies
 * @pre The updates fit w.
 * @par Cost  2 (R_a + R_b) in out multiply-adds in double; 8 (R_a + R_b) KiB of memory.
 */
[[nodiscard]] double update_distance(const lora::any_view& w, const lora::low_rank_update& a, const lora::low_rank_update& b);

}  // namespace program

#endif
