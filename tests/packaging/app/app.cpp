// SPDX-License-Identifier: Apache-2.0
#include <wrapper.hpp>

#include <cstdio>

int main() {
  const float three[] = {1, 2, 3};
  if (wrapper_sum(lora::ndview<const float, 1>(three, {3})) != 6) return 1;
  std::puts("packaged");
}
