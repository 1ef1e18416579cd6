// SPDX-License-Identifier: Apache-2.0
#ifndef LORA_TESTS_ODR_TWO_TU_HPP
#define LORA_TESTS_ODR_TWO_TU_HPP

namespace odr_two_tu {
int one(const char* digits);
int two(const char* digits);
}  // namespace odr_two_tu

#endif
