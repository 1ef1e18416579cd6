// SPDX-License-Identifier: Apache-2.0
//
// The transposing copy on every tier, for every element size, at sizes around every tile, between forbidden pages, against two loops.
#include "support/guarded.hpp"

#include <lora/simd/transpose.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

std::vector<lora::simd::tier> tiers() {
  std::vector<lora::simd::tier> all;
  for (unsigned t = 0; t <= static_cast<unsigned>(lora::simd::best_tier()); ++t) all.push_back(lora::simd::tier(t));
  return all;
}

/** Number of wrong bytes; gaps of the destination must keep what they held. */
template <int Width>
int wrong_bytes(std::ptrdiff_t rows, std::ptrdiff_t columns, std::ptrdiff_t from_gap, std::ptrdiff_t to_gap, std::ptrdiff_t shift,
                bool stream, lora::simd::tier t) {
  const std::ptrdiff_t from_step = (columns + from_gap) * Width;
  const std::ptrdiff_t to_step = (rows + to_gap) * Width;
  const std::ptrdiff_t from_bytes = rows == 0 || columns == 0 ? 0 : (rows - 1) * from_step + columns * Width;
  const std::ptrdiff_t to_bytes = rows == 0 || columns == 0 ? 0 : (columns - 1) * to_step + rows * Width;
  const auto floats = [](std::ptrdiff_t bytes) { return static_cast<std::size_t>((bytes + 3) / 4); };
  const test::guarded in(floats(from_bytes) + 16);
  const test::guarded out(floats(to_bytes) + 16);
  // The end of the memory is the end of the matrices, up to what an element's alignment leaves.
  char* const from = reinterpret_cast<char*>(in.place(floats(from_bytes), test::where::at_the_end));
  char* const to = reinterpret_cast<char*>(out.place(floats(to_bytes) + static_cast<std::size_t>(shift), test::where::at_the_end));
  for (std::ptrdiff_t i = 0; i < from_bytes; ++i) from[i] = static_cast<char>(i * 31 + i / 251);
  std::memset(to, 0x5a, static_cast<std::size_t>(to_bytes));
  lora::simd::transpose<Width>(from, from_step, to, to_step, rows, columns, stream, t);
  int wrong = 0;
  for (std::ptrdiff_t at = 0; at < to_bytes; ++at) {
    const std::ptrdiff_t j = at / to_step;
    const std::ptrdiff_t i = at % to_step / Width;
    const char want = i < rows ? from[i * from_step + j * Width + at % Width] : char{0x5a};
    wrong += to[at] == want ? 0 : 1;
  }
  return wrong;
}

template <int Width>
int all_sizes(lora::simd::tier t) {
  int wrong = 0;
  constexpr std::ptrdiff_t line = 64 / Width;
  for (const std::ptrdiff_t rows : {std::ptrdiff_t{0}, std::ptrdiff_t{1}, std::ptrdiff_t{3}, std::ptrdiff_t{4}, line / 4, line / 4 + 1,
                                    line / 2, line - 1, line, line + 1, 2 * line + 3, 5 * line})
    for (const std::ptrdiff_t columns : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65})
      for (const bool gaps : {false, true}) wrong += wrong_bytes<Width>(rows, columns, gaps ? 3 : 0, gaps ? 5 : 0, 0, false, t);
  // Streamed: destination rows aligned to lines alike, and to nothing; more than one block in both directions.
  for (const std::ptrdiff_t shift : {0, 1, 5, 8}) wrong += wrong_bytes<Width>(4 * line, 37, 1, 0, shift, true, t);
  wrong += wrong_bytes<Width>(1024 + 512 + line, 256 + 128 + 64, 0, 0, 3, true, t);
  wrong += wrong_bytes<Width>(1024 + 511, 256 + 127, 0, 0, 0, true, t);
  return wrong;
}

}  // namespace

TEST_CASE("simd/transpose: elements of 1, 2, 4 and 8 bytes at every size around a tile") {
  for (const auto t : tiers()) {
    const std::string name = lora::simd::name_of(t);
    CHECK_MESSAGE(all_sizes<1>(t) == 0, name);
    CHECK_MESSAGE(all_sizes<2>(t) == 0, name);
    CHECK_MESSAGE(all_sizes<4>(t) == 0, name);
    CHECK_MESSAGE(all_sizes<8>(t) == 0, name);
  }
}

TEST_CASE("simd/transpose: steps of either sign") {
  for (const auto t : tiers()) {
    std::vector<std::int32_t> a(40 * 50);
    std::vector<std::int32_t> b(50 * 40);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::int32_t>(i);
    lora::simd::transpose<4>(reinterpret_cast<const char*>(a.data() + 39 * 50), -200, reinterpret_cast<char*>(b.data() + 49 * 40), -160, 40,
                             50, false, t);
    int wrong = 0;
    for (std::size_t i = 0; i < 40; ++i)
      for (std::size_t j = 0; j < 50; ++j) wrong += b[(49 - j) * 40 + i] == a[(39 - i) * 50 + j] ? 0 : 1;
    CHECK_MESSAGE(wrong == 0, lora::simd::name_of(t));
  }
}
