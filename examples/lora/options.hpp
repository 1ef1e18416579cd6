// SPDX-License-Identifier: Apache-2.0
//
// What the command line says, one struct a command, and the commands. main.cpp fills the structs; each command lies in a file of its name.
// A command returns when all is done, or throws: usage_error for what the user typed, anything else for what the files hold.
#ifndef LORA_EXAMPLES_LORA_OPTIONS_HPP
#define LORA_EXAMPLES_LORA_OPTIONS_HPP

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace program {

/** A mistake on the command line: exit code 2. */
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** PATH or PATH=WEIGHT. */
struct weighted_path {
  std::string path;
  float weight = 1.0f;
};

/**
 * Splits PATH=WEIGHT at the last '='. A path that exists as it stands is one, whatever it contains; without a weight it is 1.
 * @throws usage_error when what follows the '=' of an existing path is not a finite number.
 */
[[nodiscard]] weighted_path parse_weighted(const std::string& text);

struct inspect_options {
  std::string path;
  std::string base;  ///< gives kohya's names their dots back; may be empty
  bool json = false;
};
struct apply_options {
  std::string base;
  std::vector<weighted_path> adapters;
  std::string module;
  std::string input;
  std::string output;
  std::size_t threads = 1;
};
struct merge_options {
  std::string base;
  std::vector<weighted_path> adapters;
  std::string output;
};
struct compose_options {
  std::string base;  ///< may be empty
  std::vector<weighted_path> adapters;
  std::string output;
};
struct convert_options {
  std::string input;
  std::string to;  ///< peft, kohya, gguf or json
  std::string output;
  std::string base;          ///< may be empty
  std::string architecture;  ///< for gguf; may be empty when the input is one
};
struct diff_options {
  std::string a;
  std::string b;
  std::string base;  ///< may be empty
};

void inspect(const inspect_options& o);
void apply(const apply_options& o);
void merge(const merge_options& o);
void compose(const compose_options& o);
void convert(const convert_options& o);
void diff(const diff_options& o);

}  // namespace program

#endif
