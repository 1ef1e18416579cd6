// SPDX-License-Identifier: Apache-2.0
//
// With {fmt} when it is installed (Debian: libfmt-dev; its headers suffice), and with std::format where the standard library has it.
// Neither: the tests say so and pass.
#if __has_include(<fmt/format.h>)
#define FMT_HEADER_ONLY 1
#include <fmt/format.h>
#endif

#include <lora/nd/format.hpp>

#include <doctest/doctest.h>

namespace {

[[maybe_unused]] const std::string want = "[[0.    0.333]\n [0.    0.   ]]";

[[maybe_unused]] lora::ndarray<float, 2> thirds() {
  auto a = lora::zeros<float>(2, 2);
  a(0, 1) = 1.0f / 3;
  return a;
}

}  // namespace

TEST_CASE("nd/format: the grammar of a format") {
  const auto parsed = [](const std::string& text, bool good_as_wanted, std::size_t length) {
    lora::print_options o;
    bool good = false;
    const auto at = lora::detail::parse_print_format(text.begin(), text.end(), o, good);
    CAPTURE(text);
    CHECK(good == good_as_wanted);
    if (good) CHECK(static_cast<std::size_t>(at - text.begin()) == length);
    return o;
  };
  CHECK(parsed("}", true, 0).precision == 8);
  CHECK(parsed("", true, 0).style == lora::print_style::str);
  CHECK(parsed("+.3r}", true, 4).style == lora::print_style::repr);
  CHECK(parsed(" .12f}", true, 5).floatmode == lora::float_mode::fixed);
  CHECK(parsed(" .12f}", true, 5).sign == ' ');
  for (const char* text : {"8}", ".}", ".r}", "x}", "rr}", ".3 }", "{}"}) (void)parsed(text, false, 0);
}

TEST_CASE("nd/format: {fmt} prints views, arrays and erased views") {
#if defined(FMT_VERSION)
  auto a = thirds();
  CHECK(fmt::format("{:.3}", a) == want);
  CHECK(fmt::format("{:.3}", a.view()) == want);
  CHECK(fmt::format("<{:.3}> {}", lora::any_view(a.view()), 7) == "<" + want + "> 7");
  CHECK(fmt::format("{:.2r}", a(0)) == "array([0.  , 0.33], dtype=float32)");
  CHECK(fmt::format("{:+.1f}", a(0)) == "[+0.0 +0.3]");
  CHECK_THROWS_AS((void)fmt::format(fmt::runtime("{:8}"), a), fmt::format_error);
#else
  MESSAGE("skipped: {fmt} is not installed (Debian: libfmt-dev)");
#endif
}

TEST_CASE("nd/format: std::format prints views, arrays and erased views") {
#if defined(__cpp_lib_format)
  auto a = thirds();
  CHECK(std::format("{:.3}", a) == want);
  CHECK(std::format("{:.3}", a.view()) == want);
  CHECK(std::format("<{:.3}> {}", lora::any_view(a.view()), 7) == "<" + want + "> 7");
  CHECK(std::format("{:+.1f}", a(0)) == "[+0.0 +0.3]");
  const auto view = a.view();
  CHECK_THROWS_AS((void)std::vformat("{:8}", std::make_format_args(view)), std::format_error);
#else
  MESSAGE("skipped: this standard library has no std::format");
#endif
}
