// SPDX-License-Identifier: Apache-2.0
//
// Loops over raw pointers with lora's own flags; memcpy, whose bytes/s are the limit of what only moves; and slices by hand.
#include "loops.inl"

namespace {

// As many bytes as the task reads and writes together, half of them read.
void copy_bytes(const task& t, const void* from, void* to) {
  std::memcpy(to, from, static_cast<std::size_t>(t.bytes / 2));
  asm volatile("" : : "r"(to) : "memory");
}

// What a slice comes to when nothing is checked: the numbers of tasks.cpp, applied to strides that are known at run time only.
struct plain_view {
  const float* data;
  index shape[4];
  index stride[4];
};

void slice_by_hand(const task& t, const void* from, void* to) {
  plain_view v{static_cast<const float*>(from), {}, {}};
  for (std::size_t k = 0; k < 4; ++k) {
    v.shape[k] = t.shape[k];
    v.stride[k] = t.from_stride[k];
  }
  plain_view s{};
  const bool strided = t.strided;
  for (int k = 0; k < bench::nanosecond_batch; ++k) {
    asm volatile("" : "+m"(v));
    if (strided)
      s = {v.data + v.stride[0] + (v.shape[2] - 1) * v.stride[2] + 5 * v.stride[3],
           {3, v.shape[1], v.shape[2], 0},
           {2 * v.stride[0], v.stride[1], -v.stride[2], 0}};
    else
      s = {v.data + v.stride[0] + 2 * v.stride[2] + 5 * v.stride[3], {6, v.shape[1], 28, 0}, {v.stride[0], v.stride[1], v.stride[2], 0}};
    asm volatile("" : : "m"(s));
  }
  auto* record = static_cast<bench::slice_record*>(to);
  *record = {s.data - static_cast<const float*>(from), {}, {}};
  for (std::size_t k = 0; k < 4; ++k) {
    record->shape[k] = s.shape[k];
    record->stride[k] = s.stride[k];
  }
}

[[gnu::noinline]] std::int64_t last_extent(const plain_view& v) {
  asm volatile("" : : "m"(v));
  return v.shape[3];
}
void pass_by_reference(const task& t, const void* from, void* to) {
  plain_view v{static_cast<const float*>(from), {}, {}};
  for (std::size_t k = 0; k < 4; ++k) v.shape[k] = t.shape[k];
  std::int64_t sum = 0;
  for (int k = 0; k < bench::nanosecond_batch; ++k) sum += last_extent(v);
  *static_cast<std::int64_t*>(to) = sum;
}

}  // namespace

void bench::plain_loops(const task& t, peer_list& out) {
  add_loops(t, out, "");
  if (t.what == op::convert || (t.what == op::scale && t.rank == 1) || t.what == op::transpose)
    out.push_back({"memcpy", "bytes/s of a copy that moves as many", copy_bytes});
  if (t.what == op::slice) out.push_back({"by hand", "pointer and strides, nothing checked", slice_by_hand, nanosecond_batch});
  if (t.what == op::pass)
    out.push_back({"by reference", "the address of a struct, to a function that is not inlined", pass_by_reference, nanosecond_batch});
}
