// SPDX-License-Identifier: Apache-2.0
//
// The tasks of bench_ops: what is done to which elements. Each peer is one file that says which tasks it takes; tasks.cpp checks its result,
// then times it. This header names no library, so that each file compiles with its own flags.
#ifndef LORA_BENCH_OPS_OPS_HPP
#define LORA_BENCH_OPS_OPS_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

using index = std::ptrdiff_t;

enum class op { scale, transpose, sum, max, argmax, convert, softmax, gelu, layer_norm, slice, pass };
enum class type { f32, f64, i32, i64, f16, bf16 };

struct task {
  op what = op::scale;
  std::string group;  // one table
  std::string name;   // one row of it
  type from_type = type::f32;
  type to_type = type::f32;
  std::size_t rank = 1;
  index shape[4] = {1, 1, 1, 1};        // of what is read; scale and convert write the same shape
  index from_stride[4] = {0, 0, 0, 0};  // in elements
  index to_stride[4] = {0, 0, 0, 0};    // scale only; whatever the others write is contiguous, transpose as [shape[1], shape[0]]
  index from_count = 0;                 // elements of a whole buffer, gaps included
  index to_count = 0;
  int axis = -1;         // that a reduction takes away; -1: all
  bool cold = false;     // buffers are used in turn, so that no cache holds the next one
  bool strided = false;  // slice: with a step and a reversal, or unit steps alone
  double bytes = 0;      // that have to be read and written; 0 where a rate says nothing
};

/** One implementation of one task. It takes buffers as `task` describes them and repeats itself `batch` times a call. */
struct peer {
  std::string name;
  std::string how;  // one line for the legend
  void (*run)(const task& t, const void* from, void* to) = nullptr;
  double batch = 1;
};

/** For what takes nanoseconds: repetitions inside one call. */
inline constexpr int nanosecond_batch = 1000;

/** What the tasks of op::slice write: where the slice starts, its extents and its strides. 0 where it has less than 4 axes. */
struct slice_record {
  std::int64_t offset;
  std::int64_t shape[4];
  std::int64_t stride[4];
};

// Each file appends what it has for the task; those of libraries that were not found have nothing.
using peer_list = std::vector<peer>;
void lora_apply(const task& t, peer_list& out);
void lora_reduce(const task& t, peer_list& out);
void lora_math(const task& t, peer_list& out);
void lora_slices(const task& t, peer_list& out);
void lora_again(const task& t, peer_list& out);  // the first of the others a second time, and apply at -O2
void native_loops(const task& t, peer_list& out);
void plain_loops(const task& t, peer_list& out);
void eigen(const task& t, peer_list& out);
void openblas(const task& t, peer_list& out);
void xtensor(const task& t, peer_list& out);
void mdspan(const task& t, peer_list& out);

/** Layer norm's: the k-th of d weights and biases, so that nobody needs more buffers. */
inline float weight(index k) { return 1.0f + 0.001f * static_cast<float>(k % 97); }
inline float bias(index k) { return 0.01f * static_cast<float>(k % 13); }
inline constexpr double epsilon = 1e-5;
const float* weights();  // 4096 of each
const float* biases();

const char* openblas_core();  // the kernels it chose, or "" without OpenBLAS

}  // namespace bench

// What ops.py and main.cpp call: plain C, so that Python can load it. Texts are JSON and live until the next call.
extern "C" {
const char* ops_context();                    // CPU, compiler, flags, tier, versions of the peers
int ops_tasks();                              // how many
const char* ops_task(int task);               // group, name, types, shape, strides, axis, peers
int ops_open(int task, double rotate_bytes);  // fills the buffers; returns how many pairs are used in turn
const void* ops_from(int set);                // of the open task
void* ops_to(int set);
void ops_soil();                        // before a check: overwrites the first result
const char* ops_check();                // "" when the first result is right, else what is wrong
void ops_run(int peer);                 // once, on the first pair
double ops_time(int peer, long calls);  // seconds a repetition
void ops_close();
}

#endif
