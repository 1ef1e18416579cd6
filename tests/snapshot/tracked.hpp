// SPDX-License-Identifier: Apache-2.0
//
// A payload that keeps books: how many were made and destroyed, and whether a reader thread destroyed one.
#ifndef LORA_TESTS_SNAPSHOT_TRACKED_HPP
#define LORA_TESTS_SNAPSHOT_TRACKED_HPP

#include <atomic>
#include <functional>
#include <utility>

namespace test {

/** Set by threads that read only; a destruction there is counted apart. */
inline thread_local bool on_reader_thread = false;

struct ledger {
  std::atomic<int> made{0};
  std::atomic<int> destroyed{0};
  std::atomic<int> destroyed_by_readers{0};
  [[nodiscard]] int live() const { return made - destroyed; }
};

/** Neither copied nor moved, so each one made is destroyed exactly once or the ledger does not balance. */
class tracked {
 public:
  tracked(ledger& book, int v) : value(v), book_(&book) { ++book.made; }
  tracked(ledger& book, int v, std::function<void()> at_end) : value(v), book_(&book), at_end_(std::move(at_end)) { ++book.made; }
  tracked(const tracked&) = delete;
  tracked& operator=(const tracked&) = delete;
  ~tracked() {
    if (at_end_) at_end_();
    ++book_->destroyed;
    if (on_reader_thread) ++book_->destroyed_by_readers;
    poisoned = true;
  }

  const int value;
  volatile bool poisoned = false;  // volatile: the store in the destructor must survive optimisation

 private:
  ledger* book_;
  std::function<void()> at_end_;
};

}  // namespace test

#endif
