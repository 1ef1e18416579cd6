// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

TEST_CASE("examples/quickstart: prints exactly the expected text") {
  const auto r = test::run(LORA_QUICKSTART, "");
  CHECK(r.code == 0);
  CHECK(r.err == "");
  CHECK(r.out == test::contents(LORA_SOURCE_DIR "/tests/examples/quickstart.txt"));
}

TEST_CASE("examples/quickstart: takes the folder of the digits as argument") {
  const auto r = test::run(LORA_QUICKSTART, "'" LORA_SOURCE_DIR "/examples/data/digits'");
  CHECK(r.code == 0);
  CHECK(r.out == test::contents(LORA_SOURCE_DIR "/tests/examples/quickstart.txt"));
}

TEST_CASE("examples/quickstart: names what is missing, and says what to do") {
  const auto r = test::run(LORA_QUICKSTART, "nowhere");
  CHECK(r.code == 1);
  CHECK(r.out == "");
  CHECK(r.err.find("'nowhere/base.safetensors': cannot open") != std::string::npos);
  CHECK(r.err.find("quickstart DIR") != std::string::npos);
}

// The programs in the documents are compiled and run by tools/check_docs.py; this keeps the shown one and the built one the same.
TEST_CASE("examples/quickstart: docs/quickstart.md shows this program and this output") {
  const std::string page = test::contents(LORA_SOURCE_DIR "/docs/quickstart.md");
  std::string program = test::contents(LORA_SOURCE_DIR "/examples/quickstart/main.cpp");
  program.erase(0, program.find("#include"));  // without the licence line and the head comment
  CHECK(page.find("```cpp\n" + program + "```\n") != std::string::npos);
  CHECK(page.find("```text\n" + test::contents(LORA_SOURCE_DIR "/tests/examples/quickstart.txt") + "```\n") != std::string::npos);
}
