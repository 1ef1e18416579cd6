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
  std::string tree;     // where the drawing of the gray release's versions goes, or empty
  std::string metrics;  // where its counters go, or empty; OpenMetrics for .om and .openmetrics, else Prometheus' text
  double seconds = 5;
  std::size_t threads = std::max(1u, std::thread::hardware_concurrency());
};

/** Serves, prints, and tells whether everything held. @throws lora::error when the data cannot be used. */
bool take_the_tour(const options& o);

}  // namespace hot_swap

#endif
