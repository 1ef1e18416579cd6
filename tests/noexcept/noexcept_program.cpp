// SPDX-License-Identifier: Apache-2.0
//
// Built with -fno-exceptions -fno-rtti: a piece of every room works, and an error reaches LORA_ERROR_HANDLER as one sentence.
#include <cstdio>
#include <cstdlib>

[[noreturn]] void report(const char* text);
#define LORA_ERROR_HANDLER(text) ::report(text)

#include "../headers/use_everything.hpp"

#if LORA_HAS_EXCEPTIONS
#error "this program is meant to be compiled with -fno-exceptions"
#endif

static bool error_expected = false;

// Called where the library would throw; must not return. The test asks for the text (PASS_REGULAR_EXPRESSION in CMakeLists.txt).
void report(const char* text) {
  std::printf("%s: %s\n", error_expected ? "expected" : "unexpected", text);
  std::exit(error_expected ? 0 : 1);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  if (const int line = use_everything::all(argv[1])) {
    std::printf("use_everything.hpp: wrong at line %d\n", line);
    return 1;
  }
  auto w = lora::zeros<float>(2, 2);
  auto x = lora::zeros<float>(1, 3);
  auto y = lora::zeros<float>(1, 2);
  lora::workspace scratch;
  error_expected = true;
  lora::forward(y, x, w, {}, {}, scratch);
  std::puts("a wrong shape was not reported");
  return 1;
}
