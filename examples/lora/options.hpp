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

/** A base, and what its files do not say of it. */
struct base_option {
  std::string path;                ///< empty: none was given
  std::vector<std::string> tied;   ///< NAME=TO: module NAME has no tensor of its own and uses that of TO
  std::vector<std::string> fused;  ///< NAME=PART:ROWS,...: every module NAME holds these, one below the other
};

struct inspect_options {
  std::string path;
  base_option base;  ///< gives kohya's names their dots back
  bool json = false;
};
struct apply_options {
  base_option base;
  std::vector<weighted_path> adapters;
  std::string module;
  std::string input;
  std::string output;
  std::size_t threads = 1;
  float embed_scale = 1.0f;  ///< of an embedding
  std::string stride = "1";  ///< of a convolution, as the next two: H,W, or one number for both
  std::string padding = "0";
  std::string dilation = "1";
};
struct merge_options {
  base_option base;
  std::vector<weighted_path> adapters;
  std::string output;
};
struct compose_options {
  base_option base;
  std::vector<weighted_path> adapters;
  std::string output;
};
struct convert_options {
  std::string input;
  std::string to;  ///< peft, kohya, gguf or json
  std::string output;
  base_option base;
  std::string architecture;  ///< for gguf; may be empty when the input is one
};
struct diff_options {
  std::string a;
  std::string b;
  base_option base;
};

void inspect(const inspect_options& o);
void apply(const apply_options& o);
void merge(const merge_options& o);
void compose(const compose_options& o);
void convert(const convert_options& o);
void diff(const diff_options& o);

}  // namespace program

#endif
