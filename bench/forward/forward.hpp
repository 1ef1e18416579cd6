// SPDX-License-Identifier: Apache-2.0
//
// The task that every peer gets: y = x W^T + sum over adapters of s (x A^T) B^T, all operands of one type. Each peer is one file that fills
// a list of `peer`; tasks.cpp owns the memory, checks each peer against float64, then times it. This header names no library, so that
// each file compiles with its own flags.
#ifndef LORA_BENCH_FORWARD_FORWARD_HPP
#define LORA_BENCH_FORWARD_FORWARD_HPP

#include "../roofline/limits.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

enum class type { f32, bf16 };
inline std::size_t size_of(type t) { return t == type::f32 ? 4 : 2; }

/** One layer of a model. Layers are used in turn, so that W, A and B come from memory, not from a cache. */
struct layer {
  const void* w = nullptr;     // [out, in] in rows, or [in, out] in rows where the problem is transposed
  std::vector<const void*> a;  // one an adapter, [rank, in]
  std::vector<const void*> b;  // [out, rank]
};

struct problem {
  type element = type::f32;
  std::ptrdiff_t n = 0;
  std::ptrdiff_t in = 0;
  std::ptrdiff_t out = 0;
  std::ptrdiff_t rank = 0;
  std::ptrdiff_t adapters = 1;
  bool transposed = false;
  bool swap = false;  // each call meets a layer that it has not seen: what a peer keeps of W is made again, inside the time
  int threads = 1;
  pages kind = pages::small;
  float scale = 0.5f;
  std::vector<layer> layers;
  std::vector<const void*> x;  // several, [n, in]
  std::vector<void*> y;        // as many, [n, out]

  [[nodiscard]] double weights() const { return double(in) * double(out) + double(rank * adapters) * double(in + out); }
  [[nodiscard]] double flops() const { return 2.0 * double(n) * weights(); }
  [[nodiscard]] double bytes() const { return double(size_of(element)) * weights(); }
};

/** What becomes of W before a call. */
enum class form { ours, plain, reordered };

/** One implementation. prepare() is not timed and may keep state for the problem; run() computes y[set] from x[set] and a layer. */
struct peer {
  std::string name;
  std::string how;  // one line for the table's legend
  form w = form::plain;
  bool rounds_between = false;  // whether it rounds intermediate results to the problem's type
  bool (*takes)(const problem& p) = nullptr;
  void* (*prepare)(const problem& p) = nullptr;
  void (*run)(void* state, const problem& p, std::size_t layer, std::size_t set) = nullptr;
  void (*discard)(void* state) = nullptr;
  void (*reorder)(void* state, const problem& p, std::size_t layer) = nullptr;  // form::reordered: makes the copy of W again
  bool base_only = false;                                                       // leaves the adapters out, on purpose
};

inline bool floats(const problem& p) { return p.element == type::f32; }
inline bool plain_floats(const problem& p) { return p.element == type::f32 && !p.transposed; }

// Each file appends its own; those of libraries that were not found append nothing.
using peer_list = std::vector<peer>;
void lora_peers(peer_list& out);
void eigen_peers(peer_list& out);
void blas_peers(peer_list& out);
void onednn_peers(peer_list& out);
void ggml_peers(peer_list& out);
void o2_peers(peer_list& out);  // o2/: lora's generic tier and Eigen, both at -O2 without an -m flag

/** Opens a library with the interface of CBLAS at run time; see blas.cpp for the kinds. An empty string, or what went wrong. */
std::string load_blas(const std::string& kind, const std::string& path);

/** One 16-bit number of bf16, rounded to nearest even; x is finite. */
inline std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float from_bf16(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float result;
  __builtin_memcpy(&result, &bits, 4);
  return result;
}

}  // namespace bench

#endif
