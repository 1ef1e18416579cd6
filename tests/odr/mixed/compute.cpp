// SPDX-License-Identifier: Apache-2.0
//
// One variant: prints the active tier, a hash of the bits of forward, copy, apply, reductions and casts for several shapes and every tier, and whether
// this file's element access is checked. VARIANT is the name of the function; the flags are the test (../CMakeLists.txt).
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

// The same in every variant: a failed check jumps back to the probe below. (It may not throw: accessors are noexcept.)
inline std::jmp_buf lora_test_back;
#define LORA_ASSERT_HANDLER(text) std::longjmp(lora_test_back, 1)
#include <lora/lora.hpp>

#define LORA_TEXT_(x) #x
#define LORA_TEXT(x) LORA_TEXT_(x)

namespace {

constexpr const char* variant = LORA_TEXT(VARIANT);

std::uint64_t hash(const lora::ndarray<float, 2>& y) {
  std::uint64_t h = 14695981039346656037u;
  for (lora::index_t i = 0; i < y.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, y.data() + i, sizeof bits);
    h = (h ^ bits) * 1099511628211u;
  }
  return h;
}

lora::ndarray<float, 2> numbers(lora::index_t rows, lora::index_t columns, std::uint32_t seed) {
  lora::ndarray<float, 2> a({rows, columns});
  for (lora::index_t i = 0; i < a.size(); ++i) {
    seed = seed * 1664525u + 1013904223u;
    a.data()[i] = static_cast<float>(seed >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return a;
}

void products(const char* name, lora::simd::tier tier) {
  for (const lora::index_t n : {1, 3, 8, 33}) {
    const auto w = numbers(41, 67, 1);
    const auto a = numbers(5, 67, 2);
    const auto b = numbers(41, 5, 3);
    const auto x = numbers(n, 67, 4);
    lora::ndarray<float, 2> y({n, 41});
    lora::workspace scratch;
    const lora::low_rank_term term{a, b, 0.5f};
    lora::forward(y, x, w, {&term, 1}, {}, scratch, {.tier = tier});
    std::printf("%s n=%d %s %016llx\n", variant, static_cast<int>(n), name, static_cast<unsigned long long>(hash(y)));
  }
}

void operations() {
  const auto from = numbers(13, 37, 5);
  lora::ndarray<float, 2> to({13, 37});
  lora::copy(from(lora::all, lora::range(lora::_, lora::_, -1)), to);
  lora::apply(
      to, [](float a, float b) { return a * b + 0.25f; }, to, lora::broadcast_to(from(0), to.shape()));
  std::printf("%s copy, apply %016llx\n", variant, static_cast<unsigned long long>(hash(to)));
}

void reductions(const char* name, lora::simd::tier tier) {
  const auto x = numbers(37, 131, 6);
  lora::ndarray<float, 2> y({1, 4 + 2 * 131});
  y(0, 0) = lora::sum(x, tier);
  y(0, 1) = lora::max(x.view().transpose(), tier);
  y(0, 2) = lora::norm_l2(x, tier);
  y(0, 3) = static_cast<float>(lora::argmax(x, tier));
  lora::sum(x, lora::axes{0}, y(0, lora::range(4, 4 + 131)), tier);
  auto halves = lora::uninit<lora::bfloat16>(131);
  lora::cast(x(5), halves, tier);
  lora::cast(halves, y(0, lora::range(4 + 131, lora::_)), tier);
  std::printf("%s reduce, cast %s %016llx\n", variant, name, static_cast<unsigned long long>(hash(y)));
}

// Kernels of element-wise operations: transposed and streamed copies, apply on long rows, the vector math.
void elements() {
  const auto from = numbers(67, 131, 6);
  lora::ndarray<float, 2> to({131, 67});
  lora::copy(from.view().transpose(), to);
  std::printf("%s transpose %016llx\n", variant, static_cast<unsigned long long>(hash(to)));
  lora::gelu(to, to);
  lora::softmax(to, to, 0);
  lora::log_softmax(to, to, 1);
  const auto weight = numbers(1, 67, 7);
  lora::layer_norm(to, weight(0), weight(0), 1e-5, to);
  lora::rms_norm(to, weight(0), 1e-5, to);
  std::printf("%s math %016llx\n", variant, static_cast<unsigned long long>(hash(to)));
  // Double goes through plain loops, in which a compiler fuses what the flags of its file let it: those must stay in that file.
  auto wide = lora::zeros<double>(131, 67);
  lora::cast(to, wide);
  const auto scale = lora::full(lora::extents{67}, 1.25);
  lora::layer_norm(wide, scale, scale, 1e-5, wide);
  lora::softmax(wide, wide, -1);
  lora::cast(wide, to);
  std::printf("%s double %016llx\n", variant, static_cast<unsigned long long>(hash(to)));
}

void probe_checks() {
  std::vector<float> four{1, 2, 3, 4};
  const lora::ndview<float, 1> two(four.data(), {2});
  volatile lora::index_t outside = 3;  // of the view, not of the vector
  if (setjmp(lora_test_back) == 0) {
    std::printf("%s checks=%d outside: read %d\n", variant, LORA_CHECKS, static_cast<int>(two(outside)));
  } else {
    std::printf("%s checks=%d outside: caught\n", variant, LORA_CHECKS);
  }
}

}  // namespace

extern "C" void VARIANT();
extern "C" void VARIANT() {
  std::printf("%s tier=%s\n", variant, lora::simd::tier_name());
  products("generic", lora::simd::tier::generic);
  products("avx2", lora::simd::tier::avx2);
  products("avx512", lora::simd::tier::avx512);
  operations();
  reductions("generic", lora::simd::tier::generic);
  reductions("avx2", lora::simd::tier::avx2);
  reductions("avx512", lora::simd::tier::avx512);
  elements();
  probe_checks();
}
