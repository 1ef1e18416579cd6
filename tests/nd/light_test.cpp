// SPDX-License-Identifier: Apache-2.0
//
// The views-only header stays light: none of these may come in through it. Told by the include guards of libstdc++ and of the libraries.
#include <lora/nd/view.hpp>

#if defined(_GLIBCXX_STRING) || defined(_GLIBCXX_MEMORY) || defined(_GLIBCXX_OSTREAM) || defined(_GLIBCXX_SPAN) || \
    defined(_GLIBCXX_VECTOR) || defined(_GLIBCXX_FUNCTIONAL) || defined(_GLIBCXX_TUPLE) || defined(_GLIBCXX_STDEXCEPT)
#error \
    "nd/view.hpp has become heavy: it includes one of <string>, <memory>, <ostream>, <span>, <vector>, <functional>, <tuple>, <stdexcept>"
#endif
#if defined(EIGEN_CORE_MODULE_H) || defined(EIGEN_CORE_H) || defined(XSIMD_HPP)
#error "nd/view.hpp includes Eigen or xsimd"
#endif

#include <lora/nd/array.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/ops/apply.hpp>
#include <lora/ops/cast.hpp>
#include <lora/ops/copy.hpp>
#include <lora/ops/fill.hpp>

#if defined(_GLIBCXX_STRING) || defined(_GLIBCXX_MEMORY) || defined(_GLIBCXX_OSTREAM) || defined(EIGEN_CORE_MODULE_H) || defined(XSIMD_HPP)
#error "ops/ has become heavy: it includes one of <string>, <memory>, <ostream>, Eigen, xsimd"
#endif

#include <doctest/doctest.h>

TEST_CASE("nd/view: the header is light") {
  // Checked by the preprocessor above; this case is its name in the list.
  CHECK(lora::ndview<float, 2>().empty());
}
