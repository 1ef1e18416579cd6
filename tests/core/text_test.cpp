// SPDX-License-Identifier: Apache-2.0
#include <lora/core/text.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

using lora::detail::quote;
using lora::detail::shape_text;
using lora::detail::text;

TEST_CASE("core/text: integers of every size, extremes included") {
  text t;
  t << 0 << " " << -1 << " " << std::numeric_limits<std::int64_t>::min() << " " << std::numeric_limits<std::uint64_t>::max() << " "
    << std::numeric_limits<std::int32_t>::min() << " " << static_cast<signed char>(-128) << " " << static_cast<unsigned char>(255);
  CHECK(std::string(t.c_str()) == "0 -1 -9223372036854775808 18446744073709551615 -2147483648 -128 255");
  CHECK(t.size() == std::string(t.c_str()).size());
}

TEST_CASE("core/text: shapes") {
  const std::ptrdiff_t shape[] = {4, -5, 0};
  text t;
  t << shape_text{shape, 3} << shape_text{shape, 1} << shape_text{nullptr, 0};
  CHECK(std::string(t.c_str()) == "[4, -5, 0][4][]");
}

TEST_CASE("core/text: a message that is too long is cut and says so") {
  const std::string most(text::capacity - 1, 'x');
  text full;
  full << most.c_str();
  CHECK(std::string(full.c_str()) == most);
  full << "y";
  CHECK(full.size() == text::capacity - 1);
  CHECK(std::string(full.c_str()) == std::string(text::capacity - 4, 'x') + "...");
  full << 123456 << "more";
  CHECK(std::string(full.c_str()) == std::string(text::capacity - 4, 'x') + "...");
}

TEST_CASE("core/text: what comes from outside stays on one line, and long names keep their end") {
  text t;
  t << quote(std::string_view("a\nb\x7f\x01\tc"));
  CHECK(std::string(t.c_str()) == "'a?b???c'");
  const std::string path = std::string(300, 'd') + "/" + std::string(190, 'e') + "/end.bin";
  text u;
  u << quote(path);
  CHECK(std::string(u.c_str()) == "'..." + path.substr(path.size() - 200) + "'");
  text empty;
  empty << quote(std::string());
  CHECK(std::string(empty.c_str()) == "''");
  text utf8;
  utf8 << quote(std::string_view("\xc3\xa9"));
  CHECK(std::string(utf8.c_str()) == "'\xc3\xa9'");
}
