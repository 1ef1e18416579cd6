// SPDX-License-Identifier: Apache-2.0
//
// operator<< for views, arrays and any_view: the text of to_string (nd/print.hpp) with its default options. A header of its own, because
// <ostream> costs more than all views.
//
//   std::cout << lora::zeros<float>(2, 3) << '\n';     // [[0. 0. 0.]
//                                                      //  [0. 0. 0.]]
//
// The stream's precision and flags are not looked at; its width and fill are, as for any text.
#ifndef LORA_ND_OSTREAM_HPP
#define LORA_ND_OSTREAM_HPP

#include <lora/nd/print.hpp>

#include <ostream>

namespace lora::inline v0 {

inline std::ostream& operator<<(std::ostream& out, const any_view& v) { return out << to_string(v); }
template <element T, std::size_t R>
std::ostream& operator<<(std::ostream& out, const ndview<T, R>& v) {
  return out << to_string(v);
}
template <element T, std::size_t R>
std::ostream& operator<<(std::ostream& out, const ndarray<T, R>& a) {
  return out << to_string(a);
}

}  // namespace lora::inline v0

#endif
