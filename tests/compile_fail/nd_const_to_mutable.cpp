// SPDX-License-Identifier: Apache-2.0
// EXPECT: conversion from|no viable conversion
#include <lora/nd/view.hpp>

int main() {
  const float memory[6] = {};
  lora::ndview<const float, 2> v(memory, {2, 3});
  lora::ndview<const float, 2> w = v;
#ifdef LORA_MUST_FAIL
  lora::ndview<float, 2> x = v;
  (void)x;
#endif
  (void)w;
}
