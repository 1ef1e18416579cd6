// SPDX-License-Identifier: Apache-2.0
//
// What views cost, told by the assembly: codegen.py compiles this file with -O2 and reads what the functions call. A comment
// "calls: ..." above a function is the claim: the names it may call or jump to, as regular expressions.
#include <lora/nd/slice_text.hpp>
#include <lora/nd/view.hpp>

using lora::index_t;
using lora::ndview;
using namespace lora::literals;

[[gnu::noinline]] float consumer(ndview<const float, 3> v);
float outside();

// calls: nothing
float get(ndview<const float, 2> v, index_t i, index_t j) { return v(i, j); }

// calls: nothing
float get_fixed(ndview<const float, 3> v) { return v(1, -1, 2); }

// calls: nothing
float sum_of_elements(ndview<const float, 2> v) {
  float sum = 0;
  for (index_t i = 0; i < v.extent(0); ++i)
    for (index_t j = 0; j < v.extent(1); ++j) sum += v(i, j);
  return sum;
}

// calls: nothing
void add_one(ndview<float, 1> v) {
  for (index_t i = 0; i < v.extent(0); ++i) v[i] += 1;
}

// calls: nothing
ndview<const float, 3> handed_on(ndview<const float, 3> v) { return v.transpose(); }

// Passing by value: one call, and no memory but the stack's.
// calls: consumer
float passed(const ndview<float, 3>& v) { return consumer(v); }

// A literal with unit steps leaves nothing but its own arithmetic and the errors.
// calls: raise_bound|raise_index
ndview<float, 3> cut_by_literal(const ndview<float, 4>& v) { return v("1:, :, 2, 0:30"_s); }

// calls: nothing
ndview<float, 3> whole_by_literal(const ndview<float, 3>& v) { return v("..., :"_s); }

// calls: apply_slice|raise_
ndview<float, 3> cut_by_words(const ndview<float, 4>& v) { return v(lora::range(1, lora::_), lora::all, 2, lora::range(0, 30)); }

// The proof that calls are seen at all.
// calls: MUST outside
float calls_out() { return outside() + 1; }
