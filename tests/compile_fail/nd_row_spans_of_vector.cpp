// SPDX-License-Identifier: Apache-2.0
// EXPECT: row_spans takes a matrix, a view of two axes
#include <lora/nd/array.hpp>
#include <lora/nd/rows.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::row_spans(a.view());
#ifdef LORA_MUST_FAIL
  (void)lora::row_spans(a(0));
#endif
}
