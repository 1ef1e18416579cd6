// SPDX-License-Identifier: Apache-2.0
//
// Reads tests/data/nd/text_cases.inc, NumPy's answers to slices given as text. The format is described in make_text.py beside it.
#ifndef LORA_TESTS_ND_TEXT_CASES_HPP
#define LORA_TESTS_ND_TEXT_CASES_HPP

#include "cases.hpp"

namespace test {

inline const char* const text_cases_text[] = {
#include "../data/nd/text_cases.inc"
};

struct text_case {
  std::string text;
  std::string line;                  // as it stands in the file, for messages
  char kind = ' ';                   // of the answer: E Z I M L, or a blank for a slice
  bool outside = false;              // a bound is outside its axis: only the clamped slice is taken
  std::string axis, index;           // of I
  std::vector<lora::index_t> shape;  // of a slice
  std::vector<lora::index_t> strides;
  lora::index_t offset = 0;
  bool has_values = false;
  std::vector<lora::index_t> values;
};

struct text_cases_of_array {
  std::vector<lora::index_t> shape;
  std::vector<lora::index_t> strides;
  lora::index_t origin = 0;
  std::vector<text_case> cases;
};

inline std::string unescaped(const std::string& s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '\\') {
      out += s[i];
      continue;
    }
    const char c = s.at(++i);
    if (c == 'x') {
      out += static_cast<char>(std::strtol(s.substr(i + 1, 2).c_str(), nullptr, 16));
      i += 2;
    } else {
      out += c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
    }
  }
  return out;
}

inline std::vector<text_cases_of_array> text_cases() {
  std::vector<text_cases_of_array> arrays;
  std::string all;
  for (const char* const part : text_cases_text) all += part;
  for (const std::string& line : split(all, '\n')) {
    const auto fields = split(line, '\t');
    if (fields.size() == 1) {
      if (line.empty()) continue;
      const auto parts = split(line, ' ');
      arrays.push_back({numbers(parts.at(1)), numbers(parts.at(2)), std::strtol(parts.at(3).c_str(), nullptr, 10), {}});
      continue;
    }
    text_case c;
    c.line = line;
    c.text = unescaped(fields[0]);
    std::string answer = fields[1];
    if (fields.size() < 4 && (answer == "E" || answer == "Z" || answer == "M" || answer == "L")) {
      c.kind = answer[0];
    } else if (answer == "I") {
      c.kind = 'I';
      c.axis = fields.at(2);
      c.index = fields.at(3);
    } else {
      c.outside = answer[0] == '!';
      c.shape = numbers(c.outside ? answer.substr(1) : answer);
      c.strides = numbers(fields.at(2));
      c.offset = std::strtol(fields.at(3).c_str(), nullptr, 10);
      c.has_values = fields.size() == 5;
      if (c.has_values) c.values = numbers(fields[4].substr(1));
    }
    arrays.back().cases.push_back(c);
  }
  return arrays;
}

}  // namespace test

#endif
