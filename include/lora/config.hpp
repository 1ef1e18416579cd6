// SPDX-License-Identifier: Apache-2.0
//
// Every macro that a user may set, and the few that the headers use among themselves. docs/configuration.md has one
// section for each. None of them changes the layout of a type, so translation units that set them differently link.
//
//   -DLORA_CHECKS=1                        // check each element index (default without NDEBUG)
//   -DLORA_ERROR_HANDLER=my_error_handler  // -fno-exceptions only: called instead of a throw
#ifndef LORA_CONFIG_HPP
#define LORA_CONFIG_HPP

#include <lora/version.hpp>

#include <cstdio>
#include <cstdlib>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error \
    "lora: -ffast-math and -ffinite-math-only let the compiler assume that NaN and Inf never occur; rows that use no adapter, the 16-bit conversions and the rounding bounds depend on them. Compile the file that includes lora without it (-fno-math-errno -fno-trapping-math are fine)."
#endif

/**
 * LORA_CHECKS: how much is checked beyond what is always checked (shapes, dtypes, slices, files).
 * 0 nothing (default with NDEBUG), 1 element indices and alignment (default without NDEBUG), 2 also aliasing.
 */
#ifndef LORA_CHECKS
#ifdef NDEBUG
#define LORA_CHECKS 0
#else
#define LORA_CHECKS 1
#endif
#endif

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define LORA_HAS_EXCEPTIONS 1
#else
#define LORA_HAS_EXCEPTIONS 0
#endif

/** clang warns when a view is made from a temporary owner; g++ has no such attribute (there the overload is deleted). */
#if defined(__clang__)
#define LORA_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define LORA_LIFETIMEBOUND
#endif

/** Inlined whatever the optimisation level. Used where a call would cost more than the work, or would leave a shared symbol. */
#define LORA_ALWAYS_INLINE [[gnu::always_inline]] inline

namespace lora::inline v0::detail {

// A default for both handlers. It speaks because the process is about to die, as assert() and std::terminate do; nothing else in
// the library prints.
[[noreturn, gnu::cold, gnu::noinline]] inline void die(const char* what, const char* text) noexcept {
  std::fprintf(stderr, "lora: %s: %s\n", what, text);
  std::abort();
}

}  // namespace lora::inline v0::detail

/**
 * LORA_ASSERT_HANDLER(text): called when a check of LORA_CHECKS fails; must not return. Accessors are noexcept, so it
 * must not throw either. The default writes the text to stderr and aborts.
 */
#ifndef LORA_ASSERT_HANDLER
#define LORA_ASSERT_HANDLER(text) ::lora::detail::die("assertion failed", text)
#endif

/** A programming error at element level (index, alignment): undefined when LORA_CHECKS is 0. */
#if LORA_CHECKS >= 1
#define LORA_ASSERT(condition, text) (static_cast<bool>(condition) ? void(0) : LORA_ASSERT_HANDLER(text))
#else
#define LORA_ASSERT(condition, text) void(0)
#endif

/** As LORA_ASSERT, for checks that cost more than the access they guard (aliasing). */
#if LORA_CHECKS >= 2
#define LORA_ASSERT_ALIASING(condition, text) (static_cast<bool>(condition) ? void(0) : LORA_ASSERT_HANDLER(text))
#else
#define LORA_ASSERT_ALIASING(condition, text) void(0)
#endif

/**
 * LORA_ERROR_HANDLER(text): with -fno-exceptions, called where the library would throw; must not return. The default
 * writes the text to stderr and aborts. Set it to the same function in every translation unit.
 */
#ifndef LORA_ERROR_HANDLER
#define LORA_ERROR_HANDLER(text) ::lora::detail::die("error", text)
#endif

#if LORA_HAS_EXCEPTIONS
#define LORA_THROW(exception) throw exception
#else
// The abort is for a handler that returns after all: going on would be undefined.
#define LORA_THROW(exception) (LORA_ERROR_HANDLER((exception).what()), std::abort())
#endif

#endif
