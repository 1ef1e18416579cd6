// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <lora/io/pattern.hpp>

#include <doctest/doctest.h>

namespace {

using lora::io::pattern;
using lora::io::peft_pattern;

std::string refused(std::string_view p) {
  return test::refusal<lora::value_error>([&] { (void)pattern(p); });
}

std::string unescape(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '\\') {
      out += s[i];
      continue;
    }
    ++i;
    out += s[i] == 'n' ? '\n' : s[i] == 't' ? '\t' : s[i];
  }
  return out;
}

std::string repeated(std::string_view s, std::size_t n) {
  std::string out;
  for (std::size_t i = 0; i < n; ++i) out += s;
  return out;
}

}  // namespace

TEST_CASE("io/pattern: Python's re gives the same answers") {
  const std::string file = test::read_file(LORA_TEST_DATA_DIR "/io/patterns.txt");
  REQUIRE(file.size() > 10000);
  std::unique_ptr<pattern> full;
  std::unique_ptr<peft_pattern> peft;
  std::size_t yes = 0;
  std::size_t no = 0;
  std::size_t errors = 0;
  for (std::size_t at = 0; at < file.size();) {
    const std::size_t end = file.find('\n', at);
    const std::string_view line(file.data() + at, end - at);
    at = end + 1;
    const std::size_t tab = line.find('\t');
    REQUIRE(tab != std::string_view::npos);
    const std::string_view kind = line.substr(0, tab);
    const std::string text = unescape(line.substr(tab + 1));
    CAPTURE(text);
    if (kind == "full") {
      full = std::make_unique<pattern>(text);
      peft.reset();
    } else if (kind == "peft") {
      peft = std::make_unique<peft_pattern>(text);
      full.reset();
    } else if (kind == "error") {
      CHECK(refused(text).starts_with("pattern '"));
      CHECK(test::refusal<lora::value_error>([&] { (void)peft_pattern(text); }).starts_with("pattern '"));
      ++errors;
    } else {
      const std::string& p = full ? full->text() : peft->text();
      CAPTURE(p);
      CHECK((full ? full->matches(text) : peft->matches(text)) == (kind == "y"));
      ++(kind == "y" ? yes : no);
    }
  }
  CHECK(yes > 1000);
  CHECK(no > 2000);
  CHECK(errors > 20);
}

TEST_CASE("io/pattern: a key of PEFT matches a module's last parts, and its dots match anything") {
  const peft_pattern p("self_attn.q_proj");
  CHECK(p.matches("self_attn.q_proj"));
  CHECK(p.matches("model.layers.0.self_attn.q_proj"));
  CHECK(p.matches("model.self_attnXq_proj"));
  CHECK_FALSE(p.matches("my_self_attn.q_proj"));
  CHECK_FALSE(p.matches("self_attn.q_proj.lora"));
  CHECK(peft_pattern("^model.fc1").matches("model.fc1"));
  CHECK_FALSE(peft_pattern("^model.fc1").matches("base.model.fc1"));
  CHECK(p.text() == "self_attn.q_proj");
}

TEST_CASE("io/pattern: what is outside the subset is refused by name, with its position") {
  CHECK(refused("a(?=b)") == "pattern 'a(?=b)': lookahead is not supported (position 1)");
  CHECK(refused("a(?!b)") == "pattern 'a(?!b)': lookahead is not supported (position 1)");
  CHECK(refused("(?<=a)b") == "pattern '(?<=a)b': lookbehind is not supported (position 0)");
  CHECK(refused("ab(?<!a)b") == "pattern 'ab(?<!a)b': lookbehind is not supported (position 2)");
  CHECK(refused("(?P<n>a)") == "pattern '(?P<n>a)': named groups and their references are not supported (position 0)");
  CHECK(refused("(a)(?P=n)") == "pattern '(a)(?P=n)': named groups and their references are not supported (position 3)");
  CHECK(refused("(a)\\1") == "pattern '(a)\\1': backreferences and octal escapes are not supported (position 3)");
  CHECK(refused("\\0") == "pattern '\\0': backreferences and octal escapes are not supported (position 0)");
  CHECK(refused("(?i)a") == "pattern '(?i)a': flags and other extensions '(?...' are not supported (position 0)");
  CHECK(refused("(?i:a)") == "pattern '(?i:a)': flags and other extensions '(?...' are not supported (position 0)");
  CHECK(refused("(?>a)") == "pattern '(?>a)': atomic groups are not supported (position 0)");
  CHECK(refused("(a)?(?(1)b)") == "pattern '(a)?(?(1)b)': conditional groups are not supported (position 4)");
  CHECK(refused("(?#c)a") == "pattern '(?#c)a': comments are not supported (position 0)");
  CHECK(refused("\\bq") == "pattern '\\bq': \\b and \\B are not supported (position 0)");
  CHECK(refused("[\\b]") == "pattern '[\\b]': \\b and \\B are not supported (position 1)");
  CHECK(refused("\\Aq") == "pattern '\\Aq': \\A and \\Z are not supported; patterns are anchored already (position 0)");
  CHECK(refused("\\n") == "pattern '\\n': an escape other than \\d \\D \\w \\W \\s \\S and punctuation is not supported (position 0)");
  CHECK(refused("\\x41") == "pattern '\\x41': an escape other than \\d \\D \\w \\W \\s \\S and punctuation is not supported (position 0)");
  CHECK(refused("a*+") == "pattern 'a*+': possessive quantifiers are not supported (position 2)");
  CHECK(refused("a{1,2}+") == "pattern 'a{1,2}+': possessive quantifiers are not supported (position 6)");
  CHECK(refused("a{1001}") == "pattern 'a{1001}': a repeat count above 1000 is not supported (position 1)");
  CHECK(refused("a{0,99999999999999999999}") ==
        "pattern 'a{0,99999999999999999999}': a repeat count above 1000 is not supported (position 1)");
  CHECK(refused("a**") == "pattern 'a**': multiple repeat (position 2)");
  CHECK(refused("*a") == "pattern '*a': nothing to repeat (position 0)");
  CHECK(refused("a^*") == "pattern 'a^*': nothing to repeat (position 2)");
  CHECK(refused("a{3,2}") == "pattern 'a{3,2}': the repeat counts run backwards (position 1)");
  CHECK(refused("a(b") == "pattern 'a(b': a '(' without ')' (position 1)");
  CHECK(refused("ab)") == "pattern 'ab)': ')' without '(' (position 2)");
  CHECK(refused("a[b") == "pattern 'a[b': a '[' without ']' (position 1)");
  CHECK(refused("[z-a]") == "pattern '[z-a]': a character range that runs backwards or has a class as its end (position 1)");
  CHECK(refused("a\\") == "pattern 'a\\': a backslash at the end (position 1)");
  CHECK(refused("a\xff") == "pattern 'a\xff': the pattern is not UTF-8 (position 1)");
  CHECK(refused("[\xc3]") == "pattern '[\xc3]': the pattern is not UTF-8 (position 1)");
}

TEST_CASE("io/pattern: long, deep and exploding patterns are refused, not run") {
  CHECK(refused(repeated("(", 65) + "a" + repeated(")", 65)).ends_with("groups are nested deeper than 64 (position 64)"));
  CHECK(pattern(repeated("(", 64) + "a" + repeated(")", 64)).matches("a"));
  CHECK(refused(repeated("(", 1000000)).ends_with("groups are nested deeper than 64 (position 64)"));
  CHECK(refused(repeated("a", 100000)).ends_with("the pattern is too long (position 20001)"));
  CHECK(refused(repeated("a|", 100000)).find("the pattern is too long") != std::string::npos);
  CHECK(refused("((a{1000}){1000}){1000}").ends_with("the pattern expands to more than 20000 states (position 0)"));
  CHECK(refused("(((){1000}){1000}){1000}").ends_with("the pattern expands to more than 20000 states (position 0)"));
  CHECK(refused("((a{0,1000}){0,1000})*").ends_with("the pattern expands to more than 20000 states (position 0)"));
  CHECK(pattern(repeated("a", 19000)).matches(repeated("a", 19000)));
  CHECK_FALSE(pattern("(" + repeated("a", 19000) + "b*)").matches(repeated("a", 18999)));
}

TEST_CASE("io/pattern: patterns that make a backtracking matcher slow are answered at once") {
  // Steps, not time, are bounded: each text costs at most its length times the number of states.
  const std::string text = repeated("a", 5000) + "!";
  for (const char* p : {"(a+)+", "(a*)*b", "(a|a)*", "(a|aa)+$", "(.*a){20}", "(.*)(.*)(.*)(.*)[^a!]", "(a?){1000}a{1000}"}) {
    CAPTURE(p);
    lora::detail::pattern_program program;
    REQUIRE_FALSE(lora::detail::pattern_compiler(p).compile(program, true));
    std::uint64_t steps = 0;
    CHECK(lora::detail::pattern_runner(program, text, true, steps).run() ==
          (std::string_view(p) == "(.*)(.*)" ? lora::detail::pattern_answer::yes : lora::detail::pattern_answer::no));
    CHECK(steps <= (text.size() + 1) * program.code.size());
  }
}

TEST_CASE("io/pattern: code points, not bytes; the ASCII classes refuse other texts") {
  CHECK(pattern("gr..e").matches("gr\u00f6\u00dfe"));
  CHECK(pattern("[\u00e0-\u00ff]").matches("\u00f6"));
  CHECK_FALSE(pattern("[^\u00e0-\u00ff]").matches("\u00f6"));
  CHECK(pattern("[\u00e0-\u00e1\u4e00-\u9fff\u00e1-\u00f0]+").matches("\u00e1\u4e2d\u00ef"));
  CHECK_FALSE(pattern("[\u00e0-\u00e1\u4e00-\u9fff]").matches("\u00e2"));
  CHECK(pattern("[\u00e0-\u00ff\u00e1-\u00e2]").matches("\u00f6"));  // the second range lies inside the first
  CHECK(pattern(".").matches("\U0001f600"));
  CHECK(pattern("..").matches("\xff\xc3"));  // not UTF-8: each byte is something of its own
  CHECK(pattern("...").matches("\xed\xa0\x80"));
  CHECK(peft_pattern("fc.").matches("\u00e9.fc\u00e9"));
  CHECK(test::refusal<lora::value_error>([] { (void)pattern("\\w+").matches("\u00e9"); }) ==
        "pattern '\\w+': \\d, \\w and \\s are supported for ASCII texts only, not for '\u00e9'");
  CHECK(test::refusal<lora::value_error>([] { (void)peft_pattern("[^\\d]").matches("\u00e9"); }) != "");
}

TEST_CASE("io/pattern: a plain sequence of characters is compared in place, with the same answers") {
  const std::vector<std::string> keys = {"", "a", "a.b", ".", "fc1", "a[bc]d", "\\.x", "é"};
  const std::vector<std::string> texts = {"",        "a",   "axb",   "x.axb", "xaxb", ".",    "..", "fc1", "m.fc1", "fc1\n",
                                          "m\n.fc1", "abd", "y.acd", "yacd",  ".x",   "a..x", "é",  "x.é", "aé"};
  for (const std::string& key : keys)
    for (const std::string& text : texts)
      for (const bool peft : {false, true}) {
        CAPTURE(key);
        CAPTURE(text);
        CAPTURE(peft);
        lora::detail::pattern_program program;
        REQUIRE_FALSE(lora::detail::pattern_compiler(key).compile(program, peft));
        REQUIRE(program.is_literal);
        std::uint64_t steps = 0;
        const auto fast = lora::detail::pattern_runner(program, text, peft, steps).run();
        program.is_literal = false;
        CHECK(lora::detail::pattern_runner(program, text, peft, steps).run() == fast);
      }
}
