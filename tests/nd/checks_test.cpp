// SPDX-License-Identifier: Apache-2.0
//
// LORA_CHECKS differs between this file (1) and checks_off_test.cpp (0), and both end in one program: each must get what it asked for,
// whichever copy of a function the linker keeps. A failing check aborts, so it is tried in a child process.
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace test {

float unchecked_element(lora::ndview<float, 2> v, long i, long j);
float unchecked_element(const lora::ndarray<float, 2>& a, long i, long j);
float unchecked_element(lora::ndview<float, 1> v, long i);
lora::ndview<float, 1> unchecked_cut(lora::ndview<float, 2> v, long i);
lora::ndview<float, 1> unchecked_literal(lora::ndview<float, 2> v);
float unchecked_literal_element(lora::ndview<float, 2> v);
std::size_t unchecked_layout();

}  // namespace test

namespace {

// What f writes to stderr before it aborts; empty when it does not abort.
template <class F>
std::string last_words(F&& f) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // doctest's own handler would report a failed test
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    f();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? text : "";
}

volatile float sink;

}  // namespace

TEST_CASE("nd/view: LORA_CHECKS 1 stops at an index outside, with index, axis and shape") {
  std::vector<float> memory(100);
  const lora::ndview<float, 2> v(memory.data() + 40, {4, 5});
  CHECK(last_words([&] { sink = v(4, 0); }) == "lora: assertion failed: index 4 is out of bounds for axis 0 of shape [4, 5]\n");
  CHECK(last_words([&] { sink = v(0, -6); }) == "lora: assertion failed: index -6 is out of bounds for axis 1 of shape [4, 5]\n");
  CHECK(last_words([&] { sink = v(0, std::uint64_t{5}); }) ==
        "lora: assertion failed: index 5 is out of bounds for axis 1 of shape [4, 5]\n");
  // As a signed number this one would be -1 and pass.
  CHECK(last_words([&] { sink = v(~std::uint64_t{0}, 0); }) ==
        "lora: assertion failed: index 18446744073709551615 is out of bounds for axis 0 of shape [4, 5]\n");
  CHECK(last_words([&] { sink = v(0)[5]; }) == "lora: assertion failed: index 5 is out of bounds for axis 0 of shape [5]\n");
  CHECK(last_words([&] { sink = v(-4, 4); }) == "");
}

TEST_CASE("nd/array: LORA_CHECKS 1 reaches through an array") {
  auto a = lora::zeros<float>(4, 5);
  const auto& ca = a;
  CHECK(last_words([&] { sink = a(4, 0); }) == "lora: assertion failed: index 4 is out of bounds for axis 0 of shape [4, 5]\n");
  CHECK(last_words([&] { sink = ca(0, 5); }) == "lora: assertion failed: index 5 is out of bounds for axis 1 of shape [4, 5]\n");
  auto b = lora::zeros<float>(3);
  CHECK(last_words([&] { sink = b[3]; }) == "lora: assertion failed: index 3 is out of bounds for axis 0 of shape [3]\n");
}

TEST_CASE("nd/view: a file compiled with LORA_CHECKS 0 is not checked, in the same program") {
  std::vector<float> memory(100);
  memory[60] = 7;
  const lora::ndview<float, 2> v(memory.data() + 40, {4, 5});
  CHECK(test::unchecked_element(v, 4, 0) == 7);  // outside the view, inside the memory
  CHECK(test::unchecked_element(v(3), 5) == 7);
  auto a = lora::zeros<float>(4, 5);
  a(1, 0) = 8;
  CHECK(test::unchecked_element(a, 0, 5) == 8);
}

TEST_CASE("nd/slice: slices, words and text, are checked and equal at every level of LORA_CHECKS, and views laid out alike") {
  using namespace lora::literals;
  std::vector<float> memory(20);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  const lora::ndview<float, 2> v(memory, {4, 5});
  const auto same = [](const auto& a, const auto& b) { return a.data() == b.data() && a.shape() == b.shape() && a.stride() == b.stride(); };
  CHECK(same(test::unchecked_cut(v, 4), v(lora::range(lora::_, lora::_, -1), 4)));
  CHECK(same(test::unchecked_literal(v), v("::-1, 4"_s)));
  CHECK(same(test::unchecked_literal(v), test::unchecked_cut(v, 4)));
  CHECK(test::unchecked_literal_element(v) == v("3, 4"_s));
  const lora::ndview<float, 2> small(memory, {3, 4});
  CHECK_THROWS_WITH((void)test::unchecked_cut(v, 5), "index 5 is out of bounds for axis 1 of shape [4, 5]");
  CHECK_THROWS_WITH((void)test::unchecked_literal(small), "index 4 is out of bounds for axis 1 of shape [3, 4]");
  CHECK_THROWS_WITH((void)test::unchecked_literal_element(small), "index 3 is out of bounds for axis 0 of shape [3, 4]");
  CHECK_THROWS_AS((void)small("3, 4"_s), lora::index_error);
  CHECK(test::unchecked_layout() == sizeof(lora::ndview<float, 3>) * 1000 + sizeof(lora::ndarray<float, 3>));
}
