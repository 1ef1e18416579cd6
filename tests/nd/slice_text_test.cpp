// SPDX-License-Identifier: Apache-2.0
//
// Slices given as text at run time, against NumPy (tests/data/nd/make_text.py), and what they say when they refuse. Literals are in
// slice_literal_test.cpp.
#include "text_cases.hpp"

#include <lora/nd/any_view.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

using lora::any_view;
using lora::index_t;
using lora::slice;
using lora::slice_text;

namespace {

/** "" and the view, or the kind of error and its text. */
struct outcome {
  any_view view;
  std::string kind;
  std::string text;
};

outcome attempt(const any_view& v, const std::string& text, bool clamped) {
  outcome o;
  try {
    const slice_text parsed(text);
    o.view = slice(v, clamped ? parsed.clamp() : parsed);
  } catch (const lora::value_error& e) {
    o.kind = "value";
    o.text = e.what();
  } catch (const lora::index_error& e) {
    o.kind = "index";
    o.text = e.what();
  } catch (const lora::error& e) {
    o.kind = "other";
    o.text = e.what();
  }
  return o;
}

bool starts_with(const std::string& s, const std::string& start) { return s.compare(0, start.size(), start) == 0; }
bool contains(const std::string& s, const std::string& part) { return s.find(part) != std::string::npos; }

/** Elements in C order, read through a typed view of rank 1 for each row: the ranks of the cases without an instantiation for each. */
std::vector<index_t> elements_of(const any_view& v) {
  std::vector<index_t> out;
  if (v.size() == 0) return out;
  const auto* first = static_cast<const std::int32_t*>(v.data());
  std::array<index_t, lora::max_rank> at{};
  for (;;) {
    index_t offset = 0;
    for (std::size_t i = 0; i < v.rank(); ++i) offset += at[i] * v.stride(i);
    out.push_back(first[offset]);
    std::size_t axis = v.rank();
    while (axis > 0 && ++at[axis - 1] == v.extent(axis - 1)) at[--axis] = 0;
    if (axis == 0) return out;
  }
}

/** What is wrong with the answer to one case, or "". */
std::string wrong_with(const test::text_case& c, const outcome& have, const any_view& whole, bool clamped) {
  switch (c.kind) {
    case 'E':
      // A text with several mistakes is refused for the first.
      if (contains(have.text, "step is 0")) return "";
      return have.kind == "value" && starts_with(have.text, "slice '") ? "" : "should be refused as text: " + have.text;
    case 'L':
      return contains(have.text, "does not fit a signed 64-bit index") ? "" : "should be too large: " + have.text;
    case 'Z':
      return have.kind == "index" && contains(have.text, "step is 0") ? "" : "should be refused for its step: " + have.text;
    case 'M':
      return have.kind == "index" && contains(have.text, " indices for an array of rank ") ? "" : "should be too many: " + have.text;
    case 'I':
      // Without clamping, a bound further to the left may be found first.
      if (have.kind == "index" && !clamped && starts_with(have.text, "slice bound ")) return "";
      return have.kind == "index" && starts_with(have.text, "index " + c.index + " is out of bounds for axis " + c.axis + " of shape [")
                 ? ""
                 : "should name index and axis: " + have.text;
    default:
      break;
  }
  if (c.outside && !clamped)
    return have.kind == "index" && starts_with(have.text, "slice bound ") ? "" : "should be out of bounds: " + have.text;
  if (!have.kind.empty()) return have.text;
  if (have.view.rank() != c.shape.size()) return "rank";
  for (std::size_t i = 0; i < c.shape.size(); ++i)
    if (have.view.extent(i) != c.shape[i]) return "shape";
  if (!test::same_strides(c.shape, c.strides, have.view.strides())) return "strides";
  if (static_cast<const std::int32_t*>(have.view.data()) - static_cast<const std::int32_t*>(whole.data()) != c.offset) return "offset";
  if (c.has_values && elements_of(have.view) != c.values) return "values";
  if (have.view.type() != whole.type() || have.view.read_only() != whole.read_only()) return "dtype";
  return "";
}

}  // namespace

TEST_CASE("nd/slice_text: NumPy's answers to every text, strict and clamped") {
  std::vector<std::int32_t> memory(100000);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::int32_t>(i);
  int checked = 0;
  int with_values = 0;
  for (const auto& array : test::text_cases()) {
    const any_view v(memory.data() + array.origin, lora::dtype::i32, array.shape.data(), array.shape.size(), array.strides.data());
    for (const test::text_case& c : array.cases) {
      for (const bool clamped : {false, true}) {
        const std::string wrong = wrong_with(c, attempt(v, c.text, clamped), v, clamped);
        if (!wrong.empty()) FAIL_CHECK(c.line << (clamped ? " (clamped)" : "") << ": " << wrong);
      }
      ++checked;
      with_values += c.has_values ? 1 : 0;
    }
  }
  CHECK(checked > 6500);
  CHECK(with_values > 350);
}

TEST_CASE("nd/slice_text: typed views of every rank take the same text, and give the same elements") {
  std::vector<std::int32_t> memory(100000);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::int32_t>(i);
  int checked = 0;
  for (const auto& array : test::text_cases()) {
    const any_view v(memory.data() + array.origin, lora::dtype::i32, array.shape.data(), array.shape.size(), array.strides.data(), false);
    lora::dispatch_up_to_mutable<5, std::int32_t>(v, [&](auto typed) {
      for (const test::text_case& c : array.cases) {
        const std::string wrong = wrong_with(c, attempt(typed, c.text, true), v, true);
        if (!wrong.empty()) FAIL_CHECK(c.line << ": " << wrong);
        ++checked;
      }
    });
  }
  CHECK(checked > 6500);
}

TEST_CASE("nd/slice_text: a refusal names the text, the column and what is wrong there") {
  const auto said = [](std::string_view text) {
    try {
      (void)slice_text(text);
    } catch (const lora::error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(said("") == "slice '', column 1: the text is empty; the whole is `...` or `()`");
  CHECK(said("1:,,2") == "slice '1:,,2', column 4: nothing stands before this comma");
  CHECK(said(" , 2") == "slice ' , 2', column 2: nothing stands before this comma");
  CHECK(said("1 2") == "slice '1 2', column 3: a comma or a colon is missing before this");
  CHECK(said("1:2 ...") == "slice '1:2 ...', column 5: a comma or a colon is missing before this");
  CHECK(said("0, 1*2") ==
        "slice '0, 1*2', column 5: no slice holds this character (numbers, `:`, `...`, None, newaxis, commas and parentheses are all there "
        "is)");
  CHECK(
      said("..") ==
      "slice '..', column 1: no slice holds this character (numbers, `:`, `...`, None, newaxis, commas and parentheses are all there is)");
  CHECK(said("0, all") == "slice '0, all', column 4: the words of a slice are None, newaxis, np.newaxis and Ellipsis");
  CHECK(said("np.None") == "slice 'np.None', column 1: the words of a slice are None, newaxis, np.newaxis and Ellipsis");
  for (const char* text : {"007", "1.5", ".5", "1e3", "0x", "1__0", "1_", "0b12", "1L"})
    CHECK(said(text) ==
          "slice '" + std::string(text) +
              "', column 1: not an integer as Python writes it (no fraction, no exponent, no leading zeros, single underscores "
              "between digits)");
  CHECK(said(":, 9223372036854775808") == "slice ':, 9223372036854775808', column 4: the number does not fit a signed 64-bit index");
  CHECK(said("0:-") == "slice '0:-', column 3: a sign stands before a number only");
  CHECK(said("-...") == "slice '-...', column 2: a sign stands before a number only");
  CHECK(said("1:...") == "slice '1:...', column 3: the bounds and the step of a range are integers or None");
  CHECK(said("..., 1::00") == "slice '..., 1::00', column 9: the step is 0; it is positive or negative");
  CHECK_THROWS_AS((void)slice_text("::0"), lora::index_error);  // as range(_, _, 0)
  CHECK(said("1:2:3:4") == "slice '1:2:3:4', column 6: a third colon; a range is start:stop:step");
  CHECK(said("..., 1, ...") == "slice '..., 1, ...', column 9: a second ellipsis; only one can stand for all the axes that are left");
  CHECK(said("0, (1") == "slice '0, (1', column 4: this parenthesis is never closed");
  CHECK(said("(1)), 2") == "slice '(1)), 2', column 4: this parenthesis was never opened");
  CHECK(said(std::string(200, '(') + "1" + std::string(200, ')')).find("column 200: more than 199 parentheses") != std::string::npos);
  CHECK(said(std::string(199, '(') + "1" + std::string(199, ')')) == "accepted");
  CHECK(said("[1:2]") ==
        "slice '[1:2]', column 1: a square bracket; the text is what stands between them, and a list of indices would copy, which a slice "
        "never does");
  CHECK(said("(1:2)") == "slice '(1:2)', column 3: a range inside parentheses, which Python does not take either");
  CHECK(said("0, (1:2)") == "slice '0, (1:2)', column 6: a range inside parentheses, which Python does not take either");
  for (const char* text : {"0, (1, 2)", "((1, 2), 3)", "1, ()", "True"})
    CHECK(said(text).find("a tuple inside the tuple or a boolean; such an index copies, which a slice never does") != std::string::npos);
  CHECK(said("1\n2") == "slice '1?2', column 3: a comma or a colon is missing before this");  // a message stays one line
}

TEST_CASE("nd/slice_text: an index outside names index, axis and shape") {
  auto a = lora::zeros<float>(4, 5);
  const any_view v = a.view();
  CHECK_THROWS_WITH((void)slice(v, "4"), "index 4 is out of bounds for axis 0 of shape [4, 5]");
  CHECK_THROWS_WITH((void)slice(v, ":, None, -6"), "index -6 is out of bounds for axis 1 of shape [4, 5]");
  CHECK_THROWS_WITH((void)slice(v, ":, 2:9"),
                    "slice bound 9 is out of bounds for axis 1 of shape [4, 5] (clamp() cuts bounds to the axis)");
  CHECK_THROWS_WITH((void)slice(v, "1, 2, 3"), "slice: 3 indices for an array of rank 2, shape [4, 5]");
  CHECK_THROWS_WITH((void)slice(v, "None, None, None, None, None, None, None"),
                    "slice: a result of rank 9 from shape [4, 5]; the highest supported rank is 8");
  CHECK(slice(v, "None, None, None, None, ..., None, None").rank() == 8);
  CHECK_THROWS_AS((void)slice(v, "None, None, None, None, None, None, None"), lora::shape_error);
  std::string many = "0";
  for (int i = 0; i < 1000; ++i) many += ", 0";
  CHECK_THROWS_WITH((void)slice(v, many), "slice: 1001 indices for an array of rank 2, shape [4, 5]");
  CHECK(slice(v, slice_text("2:99, -99:1").clamp()).size() == 2);
  CHECK_THROWS_WITH((void)slice(v, slice_text("9").clamp()), "index 9 is out of bounds for axis 0 of shape [4, 5]");  // as Python
}

TEST_CASE("nd/slice_text: every dtype is carried through, and those smaller than a byte only whole") {
  alignas(8) unsigned char memory[512] = {};
  const index_t shape[] = {4, 5};
  for (std::size_t i = 0; i < lora::dtype_count; ++i) {
    const auto type = static_cast<lora::dtype>(i);
    CAPTURE(lora::name_of(type));
    for (const bool read_only : {false, true}) {
      const any_view v(memory, type, shape, 2, read_only);
      const any_view whole = slice(v, "None, :4, ..., ::1");
      CHECK((whole.type() == type && whole.data() == memory && whole.rank() == 3 && whole.read_only() == read_only));
      if (lora::size_of(type) != 0) {
        const any_view s = slice(v, "1:, -2");
        CHECK((s.type() == type && s.read_only() == read_only && s.rank() == 1 && s.extent(0) == 3 && s.stride(0) == 5));
        CHECK(s.data() == memory + 8 * lora::size_of(type));
      } else {
        const std::string start = std::string("slice: elements of dtype ") + lora::name_of(type) + " share bytes";
        for (const char* text : {"1:", "0", ":, 1", "::-1", "1:1", ":, :4", "::2"}) {
          const outcome o = attempt(v, text, false);
          CHECK_MESSAGE((o.kind == "other" && starts_with(o.text, start)), text);
        }
        const index_t row[] = {1, 6};
        CHECK(slice(any_view(memory, type, row, 2), "0").rank() == 1);  // nothing is left out
        CHECK(slice(any_view(memory, type, row, 2), "::-1").rank() == 2);
      }
    }
  }
}

TEST_CASE("nd/slice_text: text is read from pointers, strings and views of them, embedded zeros included") {
  auto a = lora::zeros<int>(4, 5);
  const any_view v = a.view();
  CHECK(slice(v, "1:").extent(0) == 3);
  CHECK(slice(v, std::string("1:")).extent(0) == 3);
  CHECK(slice(v, std::string_view("1:, 3xyz").substr(0, 2)).extent(0) == 3);
  CHECK_THROWS_AS((void)slice(v, std::string("1:\0", 3)), lora::value_error);
  CHECK_THROWS_AS((void)slice(v, std::string_view{}), lora::value_error);
  const slice_text once("::2");
  CHECK(slice(slice(v, once), once).extent(0) == 1);
}
