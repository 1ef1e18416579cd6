// SPDX-License-Identifier: Apache-2.0
//
// What the machine can do at most: how fast memory can be read, how fast multiply-adds go, on one thread or several, on either kind of
// pages. bench_roofline prints these alone; bench/forward measures them between the peers, in the same process and on the same memory.
#ifndef LORA_BENCH_ROOFLINE_LIMITS_HPP
#define LORA_BENCH_ROOFLINE_LIMITS_HPP

#include <cstddef>
#include <span>

namespace bench {

enum class pages { small, huge };

/** Memory on one kind of pages, read and written once so that it is mapped; never in both kinds at once. Null when there is none. */
void* take(std::size_t bytes, pages kind);
void give_back(void* p, std::size_t bytes);

// One thread's part, in limits.cpp. Ways to read: with and without prefetching by hand, one row after another or four beside each other.
int ways_to_read();
const char* way_to_read(int way);
std::size_t read_once(int way, const void* p, std::size_t bytes);  // returns a sum that depends on every byte

enum class arithmetic { f32, f32_ymm, bf16_pairs };  // multiply-adds of floats, the same in 256 bits, VDPBF16PS
bool has(arithmetic kind);
double burst(arithmetic kind, std::size_t rounds);  // returns the flops it did

/** Seconds to read all of it, each thread its own part. */
double seconds_to_read(int way, const void* p, std::size_t bytes, int threads);
/** Flops a second of all threads together, over about two milliseconds. */
double flops_per_second(arithmetic kind, int threads);
/** The fastest way of reading these parts one after another, the median of three passes of each. */
int fastest_way(const void* const* parts, std::size_t count, std::size_t bytes, int threads);

// From reading W to a product, thing by thing, each loop with one more than the one before (steps.cpp); for W [steps_out, steps_in].
enum class step {
  rows,             // W into registers, as often as its kernel loads it
  multiplied,       // and by tokens that stay in registers
  tokens_in_l1,     // tokens read from the first steps_near floats
  tokens_as_packed  // tokens where the kernel finds them: all of x, from L2
};
constexpr int step_count = 4;
constexpr std::ptrdiff_t steps_in = 4096;
constexpr std::ptrdiff_t steps_out = 4096;
constexpr std::ptrdiff_t steps_near = 512;

struct form_steps {
  const char* name;
  int tokens;
  std::size_t element_bytes;
  void (*run[step_count])(const void* weights, const float* tokens, float* sums);  // tokens * steps_in floats, on a line; 512 sums
};
/** Empty without AVX-512. */
std::span<const form_steps> forms_in_steps();

const char* limits_flags();

}  // namespace bench

#endif
