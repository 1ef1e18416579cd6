// SPDX-License-Identifier: Apache-2.0
#include <lora/core/error.hpp>

#include <doctest/doctest.h>

#include <string>
#include <type_traits>

namespace {

template <class Error>
std::string thrown() {
  try {
    lora::detail::raise<Error>(lora::detail::text() << "op: " << 7 << " is not 8");
  } catch (const lora::error& e) {
    CHECK(typeid(e) == typeid(Error));
    return e.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("core/error: each kind is thrown as itself and as lora::error, with its sentence") {
  CHECK(thrown<lora::error>() == "op: 7 is not 8");
  CHECK(thrown<lora::shape_error>() == "op: 7 is not 8");
  CHECK(thrown<lora::index_error>() == "op: 7 is not 8");
  CHECK(thrown<lora::dtype_error>() == "op: 7 is not 8");
  CHECK(thrown<lora::value_error>() == "op: 7 is not 8");
  CHECK(thrown<lora::io_error>() == "op: 7 is not 8");
  CHECK(thrown<lora::bind_error>() == "op: 7 is not 8");
}

TEST_CASE("core/error: an index error is a shape error, the other kinds are not each other") {
  CHECK(std::is_base_of_v<lora::shape_error, lora::index_error>);
  CHECK(std::is_base_of_v<std::exception, lora::error>);
  CHECK_FALSE(std::is_base_of_v<lora::shape_error, lora::dtype_error>);
  CHECK_FALSE(std::is_base_of_v<lora::shape_error, lora::io_error>);
}

TEST_CASE("core/error: copying cannot fail, because the text is inside") {
  CHECK(std::is_nothrow_copy_constructible_v<lora::io_error>);
  CHECK(std::is_nothrow_copy_assignable_v<lora::io_error>);
  lora::io_error a("first");
  const lora::io_error b("second");
  a = b;
  const lora::io_error c = a;
  CHECK(std::string(c.what()) == "second");
  CHECK(c.what() != b.what());
}
