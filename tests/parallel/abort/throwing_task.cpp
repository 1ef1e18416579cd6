// SPDX-License-Identifier: Apache-2.0
// EXPECT: terminate called.*left a task
#include <lora/parallel/thread_pool.hpp>

#include <cstdio>
#include <cstdlib>

// With one task the caller runs it alone, with more it may be a worker: both end the same way.
int main() {
  std::set_terminate([] {
    std::fputs("terminate called: an exception left a task\n", stderr);
    std::_Exit(3);
  });
  lora::thread_pool pool(1);
#if LORA_HAS_EXCEPTIONS
  try {
    pool.run(1, [](std::size_t) { throw 1; });
  } catch (int) {
    std::fputs("the exception came through\n", stderr);
    return 0;
  }
#else
  std::terminate();
#endif
}
