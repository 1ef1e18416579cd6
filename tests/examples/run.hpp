// SPDX-License-Identifier: Apache-2.0
//
// Runs a program as a user would, from the source root, and keeps what it wrote.
#ifndef LORA_TESTS_EXAMPLES_RUN_HPP
#define LORA_TESTS_EXAMPLES_RUN_HPP

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include <sys/wait.h>

namespace test {

namespace fs = std::filesystem;

[[nodiscard]] inline std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write(const fs::path& file, const std::string& bytes) {
  std::ofstream out(file, std::ios::binary);
  out << bytes;
  REQUIRE_MESSAGE(out.good(), file.string());
}

/** A folder below the system's one for temporary files, gone at the end of the test. */
class temporary_folder {
 public:
  temporary_folder() : path_((fs::temp_directory_path() / "lora-test-XXXXXX").string()) { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

struct outcome {
  int code = -1;  // exit code; -1 for a signal
  std::string out;
  std::string err;
};

/** `arguments` as for the shell. */
[[nodiscard]] inline outcome run(const std::string& program, const std::string& arguments) {
  const temporary_folder folder;
  const std::string out = folder.path() + "/out";
  const std::string err = folder.path() + "/err";
  const int status =
      std::system(("cd '" LORA_SOURCE_DIR "' && '" + program + "' " + arguments + " >'" + out + "' 2>'" + err + "' </dev/null").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(out), contents(err)};
}

}  // namespace test

#endif
