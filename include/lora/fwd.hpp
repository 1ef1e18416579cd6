// SPDX-License-Identifier: Apache-2.0
//
// Names of the library's types, for headers that only pass pointers and references to them. Costs next to nothing to include.
// Not here: definitions, functions, and what is an alias or has a default template argument (name the argument instead).
//
//   #include <lora/fwd.hpp>
//   void serve(const lora::adapter_set& adapters, lora::ndview<const float, 2>* x);
#ifndef LORA_FWD_HPP
#define LORA_FWD_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <cstdint>

namespace lora::inline v0 {

// core
class error;
class shape_error;
class index_error;
class dtype_error;
class value_error;
class io_error;
class bind_error;
enum class dtype : std::uint8_t;
struct bfloat16;
struct float16;
class aligned_bytes;

// nd
template <std::size_t R>
class extents;
template <std::size_t R>
class strides;
template <class T, std::size_t R>
class ndview;
template <class T, std::size_t R>
class ndarray;
class any_view;
template <std::size_t N>
class axes;
class slice_text;
template <class Recipe>
class view_sequence;
struct print_options;
template <std::size_t R>
class float_view;

// parallel
struct inline_executor;

// linalg
class workspace;
struct low_rank_term;
struct forward_options;

// adapter
struct low_rank;
struct adapter;
class model_contract;
class adapter_set;

// snapshot: the second argument is std_snapshot_traits unless a program brings its own.
struct std_snapshot_traits;
template <class T, class Traits>
class snapshot_cell;
template <class T, class Traits>
class snapshot_reader;
template <class T, class Traits>
class snapshot_payload;

}  // namespace lora::inline v0

#endif
