// SPDX-License-Identifier: Apache-2.0
#include "two_tu.hpp"

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int one = odr_two_tu::one(argv[1]);
  const int two = odr_two_tu::two(argv[1]);
  if (one != 0 || two != 0) std::printf("use_everything.hpp: wrong at line %d and %d\n", one, two);
  return one != 0 || two != 0 ? 1 : 0;
}
