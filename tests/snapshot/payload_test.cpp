// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/payload.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

using lora::make_payload;
using lora::snapshot_payload;

namespace {

struct aggregate {
  int rank;
  std::string name;
};

struct alignas(128) wide {
  char bytes[128] = {};
};

struct throws {
  explicit throws(int) { throw std::runtime_error("no"); }
};

}  // namespace

static_assert(sizeof(snapshot_payload<int>) == sizeof(void*));
static_assert(std::is_nothrow_move_constructible_v<snapshot_payload<int>> && std::is_nothrow_copy_constructible_v<snapshot_payload<int>>);
static_assert(std::is_same_v<decltype(*std::declval<snapshot_payload<int>>()), const int&>);

TEST_CASE("snapshot/payload: the object is destroyed exactly once, by the handle that goes last") {
  test::ledger book;
  {
    auto a = make_payload<test::tracked>(book, 7);
    CHECK(a->value == 7);
    {
      snapshot_payload<test::tracked> b = a;
      CHECK(b == a);
      CHECK(b.get() == a.get());
      snapshot_payload<test::tracked> c = std::move(b);
      CHECK(!b);
      CHECK(c == a);
    }
    CHECK(book.destroyed == 0);
    snapshot_payload<test::tracked> d;
    CHECK(!d);
    CHECK(d.get() == nullptr);
    d = a;
    a = {};
    CHECK(book.destroyed == 0);
    auto& self = d;
    d = self;
    d = std::move(self);
    CHECK(d->value == 7);
  }
  CHECK(book.made == 1);
  CHECK(book.destroyed == 1);
}

TEST_CASE("snapshot/payload: assignment lets go of the former object") {
  test::ledger book;
  auto a = make_payload<test::tracked>(book, 1);
  a = make_payload<test::tracked>(book, 2);
  CHECK(book.live() == 1);
  CHECK(a->value == 2);
  CHECK(!(a == make_payload<test::tracked>(book, 2)));
}

TEST_CASE("snapshot/payload: aggregates, over-aligned types and scalars can be made") {
  const auto a = make_payload<aggregate>(8, "q_proj");
  CHECK(a->rank == 8);
  CHECK((*a).name == "q_proj");
  const auto w = make_payload<wide>();
  CHECK(reinterpret_cast<std::uintptr_t>(w.get()) % 128 == 0);
  CHECK(*make_payload<int>(3) == 3);
}

TEST_CASE("snapshot/payload: a constructor that throws leaves nothing behind") {
  CHECK_THROWS_AS(static_cast<void>(make_payload<throws>(1)), std::runtime_error);  // a leak would show under ASan
}

TEST_CASE("snapshot/payload: stamps compare by their number, and zero means none") {
  CHECK(lora::stamp{} == lora::stamp{0});
  CHECK(lora::stamp{1} < lora::stamp{2});
  CHECK(lora::stamp{2} != lora::stamp{1});
}
