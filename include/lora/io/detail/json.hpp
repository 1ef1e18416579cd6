// SPDX-License-Identifier: Apache-2.0
//
// JSON as a stream of events with byte positions: the only header that includes nlohmann-json, and it uses the SAX interface alone. A
// document tree would keep the last of two equal keys, sort the keys and take many times the memory of the text. Not API.
//
//   struct mine final : json_events { ... };
//   const json_failure f = parse_json(bytes, events);  if (f) refuse(f.sentence, f.position);
//
// Stricter than nlohmann's defaults: no byte-order mark, no NUL byte anywhere (its lexer takes one for the end of the text), a limit
// on nesting, and nothing but JSON whitespace after the value.
#ifndef LORA_IO_DETAIL_JSON_HPP
#define LORA_IO_DETAIL_JSON_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

namespace lora::inline v0::detail {

/** How deeply arrays and objects may be nested: as serde_json, which the reference readers use (its 128th level is an error). */
inline constexpr std::size_t json_max_depth = 127;

/** Receives the events in the order of the text. Strings are unescaped UTF-8 and may be moved from. A handler refuses by raising. */
class json_events {
 public:
  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  /** A number written without sign, point and exponent that fits 64 bits. */
  virtual void natural(std::uint64_t value) = 0;
  /** Any other number; `integer` when it was written as a negative integer. See number_text() and negative(). */
  virtual void number(double value, bool integer) = 0;
  virtual void string(std::string& value) = 0;
  virtual void key(std::string& value) = 0;
  virtual void open(bool object) = 0;
  virtual void close(bool object) = 0;

  /** How many bytes of the text are read: just behind the token of the current event. */
  [[nodiscard]] std::size_t position() const noexcept { return static_cast<std::size_t>(cursor_ - first_); }

  /**
   * In number(value, false): the digits as they were written, for who needs them rounded to something narrower than a double. The
   * decimal point may be that of the program's locale: the only character that is no digit, sign or exponent.
   */
  [[nodiscard]] const std::string& number_text() const noexcept { return *number_text_; }
  /** In number(value, true): the exact integer. */
  [[nodiscard]] std::int64_t negative() const noexcept { return negative_; }
  /** For a handler that hands events on to another one: the other one is then where this one is. */
  void follow(const json_events& leader) noexcept {
    first_ = leader.first_;
    cursor_ = leader.cursor_;
    number_text_ = leader.number_text_;
    negative_ = leader.negative_;
  }

 protected:
  json_events() = default;
  json_events(const json_events&) = delete;
  json_events& operator=(const json_events&) = delete;
  ~json_events() = default;

 private:
  friend class json_bridge;
  const char* first_ = nullptr;
  const char* cursor_ = nullptr;
  const std::string* number_text_ = nullptr;
  std::int64_t negative_ = 0;
};

/** What was wrong with the text, as the second half of a sentence, and where; false when it was right. */
struct json_failure {
  const char* sentence = nullptr;
  std::size_t position = 0;
  explicit operator bool() const noexcept { return sentence != nullptr; }
};

/** An iterator that tells the events where the lexer is. */
class json_cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  json_cursor(const char* at, const char** shared) noexcept : at_(at), shared_(shared) {}
  reference operator*() const noexcept { return *at_; }
  json_cursor& operator++() noexcept {
    *shared_ = ++at_;
    return *this;
  }
  json_cursor operator++(int) noexcept {
    json_cursor old = *this;
    ++*this;
    return old;
  }
  friend bool operator==(const json_cursor& a, const json_cursor& b) noexcept { return a.at_ == b.at_; }
  friend bool operator!=(const json_cursor& a, const json_cursor& b) noexcept { return a.at_ != b.at_; }

 private:
  const char* at_;
  const char** shared_;
};

/** From nlohmann's event names to ours; counts the depth, because its parser does not. */
class json_bridge {
 public:
  json_bridge(json_events& events, const char* text, std::size_t size) noexcept : events_(events), end_(text + size) {
    events_.first_ = text;
    events_.cursor_ = text;
  }
  [[nodiscard]] json_cursor begin() noexcept { return {events_.first_, &events_.cursor_}; }
  [[nodiscard]] json_cursor end() noexcept { return {end_, &events_.cursor_}; }
  [[nodiscard]] json_failure failure() const noexcept { return failure_; }

  bool null() { return events_.null(), true; }
  bool boolean(bool value) { return events_.boolean(value), true; }
  // Only negative numbers come here; "-0" must not pass for the natural number 0.
  bool number_integer(std::int64_t value) {
    events_.negative_ = value;
    return events_.number(static_cast<double>(value), true), true;
  }
  bool number_unsigned(std::uint64_t value) { return events_.natural(value), true; }
  bool number_float(double value, const std::string& digits) {
    events_.number_text_ = &digits;
    return events_.number(value, false), true;
  }
  bool string(std::string& value) { return events_.string(value), true; }
  bool binary(nlohmann::json::binary_t&) { return fail("is not JSON"); }  // no text makes this event
  bool key(std::string& value) { return events_.key(value), true; }
  bool start_object(std::size_t) { return open(true); }
  bool start_array(std::size_t) { return open(false); }
  bool end_object() { return --depth_, events_.close(true), true; }
  bool end_array() { return --depth_, events_.close(false), true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    // 406: a number beyond the range of a double; all else is a broken token or the wrong one.
    return fail(error.id == 406 ? "holds a number that is out of range" : "is not valid JSON");
  }

 private:
  bool open(bool object) {
    if (++depth_ > json_max_depth) return fail("nests arrays and objects deeper than 127 levels");
    events_.open(object);
    return true;
  }
  bool fail(const char* sentence) noexcept {
    failure_ = {sentence, events_.position()};
    return false;
  }

  json_events& events_;
  const char* end_;
  std::size_t depth_ = 0;
  json_failure failure_;
};

/**
 * Parses one JSON text and nothing after it. Errors of the text come back; what the events raise passes through.
 * @par Cost   One pass, no recursion; the longest string is the only memory it takes.
 */
[[nodiscard]] inline json_failure parse_json(std::span<const std::byte> bytes, json_events& events) {
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  const std::size_t size = bytes.size();
  if (size == 0) return {"is empty where JSON was expected", 0};
  if (const void* const nul = std::memchr(text, 0, size))
    return {"contains a NUL byte", static_cast<std::size_t>(static_cast<const char*>(nul) - text)};
  if (static_cast<unsigned char>(text[0]) == 0xef) return {"does not begin with JSON (a byte-order mark is not allowed)", 0};
  json_bridge bridge(events, text, size);
  const bool parsed = nlohmann::json::sax_parse(bridge.begin(), bridge.end(), &bridge);
  if (!parsed && !bridge.failure()) return {"is not valid JSON", events.position()};
  return bridge.failure();
}

}  // namespace lora::inline v0::detail

#endif
