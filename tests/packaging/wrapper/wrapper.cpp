// SPDX-License-Identifier: Apache-2.0
#include "wrapper.hpp"

float wrapper_sum(lora::ndview<const float, 1> v) {
  float sum = 0;
  for (lora::index_t i = 0; i < v.size(); ++i) sum += v(i);
  return sum;
}
