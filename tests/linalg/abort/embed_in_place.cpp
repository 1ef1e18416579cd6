// SPDX-License-Identifier: Apache-2.0
// EXPECT: embed: y overlaps table, ids or the row factor
#include <lora/linalg/embedding.hpp>

int main() {
  auto table = lora::zeros<float>(6, 8);
  const std::int32_t ids[] = {4, 5};
  lora::workspace scratch;
  lora::embed<2>(table.view()(lora::range(3, 5)), lora::ndview<const std::int32_t, 1>(ids, {2}), table, {}, scratch);
}
