// SPDX-License-Identifier: Apache-2.0
//
// Reads tests/data/nd/cases.inc, NumPy's answers. The format is described in make.py beside it.
#ifndef LORA_TESTS_ND_CASES_HPP
#define LORA_TESTS_ND_CASES_HPP

#include <lora/nd/slice.hpp>

#include <cstdlib>
#include <string>
#include <vector>

namespace test {

inline const char* const cases_text[] = {
#include "../data/nd/cases.inc"
};

struct numpy_case {
  std::string line;
  std::vector<lora::index_t> shape;
  std::vector<lora::index_t> strides;
  std::string argument;  // the third field: items of a slice, or a shape
  bool refused = false;
  std::vector<std::string> answer;
};

inline std::vector<std::string> split(const std::string& s, char at) {
  std::vector<std::string> parts(1);
  for (const char c : s) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

inline std::vector<lora::index_t> numbers(const std::string& field) {
  std::vector<lora::index_t> v;
  if (field == "-") return v;
  for (const std::string& s : split(field, ',')) v.push_back(std::strtol(s.c_str(), nullptr, 10));
  return v;
}

inline std::vector<numpy_case> numpy_cases(char kind) {
  std::vector<numpy_case> cases;
  std::string all;
  for (const char* const part : cases_text) all += part;
  for (const std::string& line : split(all, '\n')) {
    if (line.empty() || line[0] != kind) continue;
    const auto fields = split(line, ' ');
    numpy_case c;
    c.line = line;
    c.shape = numbers(fields.at(1));
    c.strides = numbers(fields.at(2));
    c.argument = fields.at(3);
    c.refused = fields.at(5) == "X";
    if (!c.refused) c.answer.assign(fields.begin() + 5, fields.end());
    cases.push_back(c);
  }
  return cases;
}

/** Equal where it matters: NumPy and this library may differ in the stride of an axis that is never walked along. */
inline bool same_strides(const std::vector<lora::index_t>& shape, const std::vector<lora::index_t>& a, const lora::index_t* b) {
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i] > 1 && a[i] != b[i]) return false;
  return true;
}

}  // namespace test

#endif
