// SPDX-License-Identifier: Apache-2.0
//
// The task that every peer gets: y = x W^T + s (x A^T) B^T in f32. Each peer is one file that fills a `peer`; main.cpp checks it against
// float64, then times all of them interleaved. This header names no library, so that each file compiles with its own flags.
#ifndef LORA_BENCH_FORWARD_FORWARD_HPP
#define LORA_BENCH_FORWARD_FORWARD_HPP

#include <cstddef>
#include <string>
#include <vector>

namespace bench {

struct problem {
  std::ptrdiff_t n = 0;
  std::ptrdiff_t in = 0;
  std::ptrdiff_t out = 0;
  std::ptrdiff_t rank = 0;
  float scale = 0;
  const float* x = nullptr;     // [n, in]
  const float* a = nullptr;     // [rank, in]
  const float* b = nullptr;     // [out, rank]
  std::vector<const float*> w;  // several copies of [out, in], used in turn so that W comes from memory, not from a cache
  float* y = nullptr;           // [n, out]

  [[nodiscard]] double flops() const { return 2.0 * double(n) * (double(in) * double(out) + double(rank) * double(in + out)); }
  [[nodiscard]] double bytes() const { return 4.0 * (double(in) * double(out) + double(rank) * double(in + out)); }
};

/** One implementation. prepare() is not timed and may keep state for the problem; run() computes p.y from copy `w` of W. */
struct peer {
  std::string name;
  std::string how;  // one line for the table's legend
  void* (*prepare)(const problem& p) = nullptr;
  void (*run)(void* state, const problem& p, std::size_t w) = nullptr;
  void (*discard)(void* state) = nullptr;
};

// Each file defines its own; those of libraries that were not found are absent.
std::vector<peer> lora_peers();
std::vector<peer> eigen_peers();
std::vector<peer> openblas_peers();
std::vector<peer> onednn_peers();

void openblas_at_its_best(char** argv);  // may start the program again; see openblas.cpp

// roofline.cpp: what this core can do at most.
double stream_read(const float* p, std::size_t n);  // sums n floats, as fast as they arrive
double fma_burst(std::size_t rounds);               // returns the flops it did
const char* roofline_flags();

}  // namespace bench

#endif
