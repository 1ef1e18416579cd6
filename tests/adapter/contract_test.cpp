// SPDX-License-Identifier: Apache-2.0
#include <lora/adapter/contract.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("adapter/contract: modules are found by name and known by index") {
  lora::model_contract model;
  CHECK(model.size() == 0);
  CHECK(model.find("fc1") == lora::model_contract::not_found);
  CHECK(model.add("fc1", 256, 64) == 0);
  CHECK(model.add("fc2", 10, 256) == 1);
  CHECK(model.add("", 0, 0) == 2);
  CHECK(model.size() == 3);
  CHECK(model.find("fc2") == 1);
  CHECK(model.find("") == 2);
  CHECK(model.find("fc") == lora::model_contract::not_found);
  CHECK(model[1].name == "fc2");
  CHECK(model[1].out == 10);
  CHECK(model[1].in == 256);
}

TEST_CASE("adapter/contract: many modules keep their indices") {
  lora::model_contract model;
  for (int i = 0; i < 1000; ++i) CHECK(model.add("layers." + std::to_string(i), i, 2 * i) == static_cast<std::size_t>(i));
  for (int i = 0; i < 1000; ++i) {
    const std::size_t at = model.find("layers." + std::to_string(i));
    REQUIRE(at == static_cast<std::size_t>(i));
    REQUIRE(model[at].in == 2 * i);
  }
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("adapter/contract: a name twice and negative extents are refused, and change nothing") {
  lora::model_contract model;
  model.add("fc1", 256, 64);
  CHECK_THROWS_WITH_AS(model.add("fc1", 1, 1), "module 'fc1' is already in the contract", lora::value_error);
  CHECK_THROWS_WITH_AS(model.add("fc2", -1, 1), "module 'fc2': extents must not be negative", lora::shape_error);
  CHECK_THROWS_AS(model.add("fc2", 1, -1), lora::shape_error);
  lora::module_contract part{"fc2", 4, 1};
  part.tensor = "fc.weight";
  part.first_row = -1;
  CHECK_THROWS_WITH_AS(model.add(part), "module 'fc2': 4 rows from row -1 of matrix 0 on are no part of a tensor", lora::shape_error);
  part.first_row = PTRDIFF_MAX - 3;  // its end would not fit
  CHECK_THROWS_AS(model.add(part), lora::shape_error);
  part.first_row = 0;
  part.matrix = -1;
  CHECK_THROWS_AS(model.add(part), lora::shape_error);
  CHECK(model.size() == 1);
  CHECK(model.find("fc2") == lora::model_contract::not_found);
  CHECK(model[0].out == 256);
}

#endif
