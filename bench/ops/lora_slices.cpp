// SPDX-License-Identifier: Apache-2.0
//
// lora: building slices as words, as literals and from text at run time, and views as arguments. A barrier before each slice keeps the compiler
// from building it once for all repetitions, one behind it has the slice in memory.
#include "ops.hpp"

#include <lora/nd/any_view.hpp>
#include <lora/nd/slice_text.hpp>
#include <lora/nd/view.hpp>

namespace bench {
namespace {

using lora::_;
using lora::all;
using lora::ellipsis;
using lora::range;
using namespace lora::literals;

using view = lora::ndview<const float, 4>;

template <class V>
void store(const V& s, const void* from, void* to) {
  auto* record = static_cast<slice_record*>(to);
  *record = {s.data() - static_cast<const float*>(from), {}, {}};
  for (std::size_t k = 0; k < V::rank(); ++k) {
    record->shape[k] = s.extent(k);
    record->stride[k] = s.stride(k);
  }
}

template <class Slice>
void repeat(const task& t, const void* from, void* to, Slice slice) {
  view v(static_cast<const float*>(from), {t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
  decltype(slice(v)) s;
  for (int k = 0; k < nanosecond_batch; ++k) {
    asm volatile("" : "+m"(v));
    s = slice(v);
    asm volatile("" : : "m"(s));
  }
  store(s, from, to);
}

void unit_words(const task& t, const void* from, void* to) {
  repeat(t, from, to, [](const view& v) { return v(range(1, 7), all, range(2, 30), 5); });
}
void unit_literal(const task& t, const void* from, void* to) {
  repeat(t, from, to, [](const view& v) { return v("1:7, :, 2:30, 5"_s); });
}
void step_words(const task& t, const void* from, void* to) {
  repeat(t, from, to, [](const view& v) { return v(range(1, 7, 2), ellipsis, range(_, _, -1), 5); });
}
void step_literal(const task& t, const void* from, void* to) {
  repeat(t, from, to, [](const view& v) { return v("1:7:2, ..., ::-1, 5"_s); });
}

void text(const task& t, const void* from, void* to) {
  const lora::any_view v(view(static_cast<const float*>(from), {t.shape[0], t.shape[1], t.shape[2], t.shape[3]}));
  const char* words = t.strided ? "1:7:2, ..., ::-1, 5" : "1:7, :, 2:30, 5";
  lora::any_view s = v;
  for (int k = 0; k < nanosecond_batch; ++k) {
    asm volatile("" : "+r"(words));
    s = lora::slice(v, words);
    asm volatile("" : : "m"(s));
  }
  store(s.as<const float, 3>(), from, to);
}

[[gnu::noinline]] std::int64_t last_extent(view v) {
  asm volatile("" : : "m"(v));
  return v.extent(3);
}
void pass(const task& t, const void* from, void* to) {
  const view v(static_cast<const float*>(from), {t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
  std::int64_t sum = 0;
  for (int k = 0; k < nanosecond_batch; ++k) sum += last_extent(v);
  *static_cast<std::int64_t*>(to) = sum;
}

}  // namespace

void lora_slices(const task& t, peer_list& out) {
  if (t.what == op::pass)
    out.push_back({"lora", "an ndview<const float, 4> by value, to a function that is not inlined", pass, nanosecond_batch});
  if (t.what != op::slice) return;
  out.push_back({"lora", "v(range(1, 7), all, ...)", t.strided ? step_words : unit_words, nanosecond_batch});
  out.push_back({"lora literal", "v(\"1:7, ...\"_s)", t.strided ? step_literal : unit_literal, nanosecond_batch});
  out.push_back({"lora text", "slice(any_view, const char*): parsed at run time", text, nanosecond_batch});
}

}  // namespace bench
