// SPDX-License-Identifier: Apache-2.0
//
// What the command line chooses, and the one function that main() calls.
#ifndef HOT_SWAP_OPTIONS_HPP
#define HOT_SWAP_OPTIONS_HPP

#include <algorithm>
#include <cstddef>
#include <string>
#include <thread>

namespace hot_swap {

struct options {
  std::string data = "examples/data/digits";
  std::string adapter;  // a PEFT adapter of the user's own, or empty
  double seconds = 5;
  std::size_t threads = std::max(1u, std::thread::hardware_concurrency());
};

/** Serves, prints, and tells whether everything held. @throws lora::error when the data cannot be used. */
bool take_the_tour(const options& o);

}  // namespace hot_swap

#endif
