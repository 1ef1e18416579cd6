// SPDX-License-Identifier: Apache-2.0
//
// pages: which memory pages a large block asks the system for, and detail: the one system call that asks. It stands here, and not with the
// other system calls in io/, because every array and workspace is allocated through it and none of them may pull in <sys/mman.h>, whose
// macros would be every user's.
//
//   lora::aligned_bytes weights(size, lora::pages::huge);   // the default: 2 MiB pages from 4 MiB on
//   lora::aligned_bytes buffer(size, lora::pages::system);  // nothing is asked for, nothing is rounded
//
// It is a request: the system may grant it in part, later, or not at all, and no result depends on it. Where there is no such call (not
// Linux) nothing is asked. What it costs and gives is measured in docs/memory.md.
#ifndef LORA_CORE_PAGES_HPP
#define LORA_CORE_PAGES_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <cstdint>

namespace lora::inline v0 {

/** The pages that a block of huge_pages_from bytes or more asks for; smaller blocks never ask. */
enum class pages : unsigned char {
  huge,    ///< 2 MiB: fewer misses of the address translation, and prefetchers that run 512 times as far before they must stop
  system,  ///< whatever the system's policy gives: 4 KiB where it is "madvise" or "never"
  small,   ///< 4 KiB whatever the policy: to measure what the others bring
};

/** The size and alignment of a huge page of x86-64, and of AArch64 with pages of 4 KiB. */
inline constexpr std::size_t huge_page_size = std::size_t{2} << 20;

/** Two pages: rounded up to whole ones, a block wastes less than a third of its memory, and of 32 MiB less than a sixteenth. */
inline constexpr std::size_t huge_pages_from = 2 * huge_page_size;

namespace detail {

#if defined(__linux__)
// The C library's function under a name of our own: a second declaration of `madvise` would have to repeat the exception specification of
// whichever C library the user has.
extern "C" int lora_system_madvise(void* address, std::size_t size, int advice) noexcept __asm__("madvise");
inline constexpr int advice_huge = 14;   // MADV_HUGEPAGE
inline constexpr int advice_small = 15;  // MADV_NOHUGEPAGE
#endif

/** Whether a block of this size is aligned to huge pages and rounded up to whole ones, so that it shares none with a neighbour. */
[[nodiscard]] constexpr bool whole_huge_pages(std::size_t size, pages wanted) noexcept {
  return wanted != pages::system && size >= huge_pages_from && size <= static_cast<std::size_t>(PTRDIFF_MAX) - huge_page_size;
}

[[nodiscard]] constexpr std::size_t round_up_to_huge_pages(std::size_t size) noexcept {
  return (size + (huge_page_size - 1)) / huge_page_size * huge_page_size;
}

/** Asks. A refusal (no such kernel, no such policy) leaves the memory as good as any: there is nothing to report. */
inline void advise_pages([[maybe_unused]] void* block, [[maybe_unused]] std::size_t size, [[maybe_unused]] pages wanted) noexcept {
#if defined(__linux__)
  (void)lora_system_madvise(block, size, wanted == pages::huge ? advice_huge : advice_small);
#endif
}

}  // namespace detail
}  // namespace lora::inline v0

#endif
