// SPDX-License-Identifier: Apache-2.0
//
// A buffer between two pages that may not be touched: a read or write of one float too many, before or behind, ends the program. POSIX.
//
//   test::guarded memory(most_floats);
//   float* p = memory.place(count, test::where::at_the_end);
#ifndef LORA_TESTS_SUPPORT_GUARDED_HPP
#define LORA_TESTS_SUPPORT_GUARDED_HPP

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace test {

enum class where { at_the_start, at_the_end };

class guarded {
 public:
  explicit guarded(std::size_t most_floats) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    room_ = (most_floats * sizeof(float) + page - 1) / page * page;
    mapped_ = room_ + 2 * page;
    base_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) fail("mmap");
    begin_ = static_cast<char*>(base_) + page;
    if (room_ != 0 && mprotect(begin_, room_, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  }
  guarded(const guarded&) = delete;
  guarded& operator=(const guarded&) = delete;
  ~guarded() { munmap(base_, mapped_); }

  /** Room for `count` floats, ending at the last or starting at the first byte that may be touched. */
  [[nodiscard]] float* place(std::size_t count, where w) const { return place_of<float>(count, w); }
  /** The same for elements of another type, in room that is measured in floats all the same. */
  template <class T>
  [[nodiscard]] T* place_of(std::size_t count, where w) const {
    if (count * sizeof(T) > room_) fail("place");
    return reinterpret_cast<T*>(w == where::at_the_start ? begin_ : begin_ + room_ - count * sizeof(T));
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    std::perror(what);
    std::abort();
  }

  void* base_ = nullptr;
  char* begin_ = nullptr;
  std::size_t room_ = 0;
  std::size_t mapped_ = 0;
};

}  // namespace test

#endif
