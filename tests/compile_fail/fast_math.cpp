// SPDX-License-Identifier: Apache-2.0
// EXPECT: lora: -ffast-math and -ffinite-math-only let the compiler assume that NaN and Inf never occur
// FAIL_FLAGS: -ffast-math
#include <lora/config.hpp>
