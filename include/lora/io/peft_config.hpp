// SPDX-License-Identifier: Apache-2.0
//
// peft_config: adapter_config.json of Hugging Face PEFT, read strictly. Every field of PEFT's LoraConfig is in one table
// (detail/peft_fields.hpp): used here, harmless at inference, or refused when it is set, because it changes what is computed.
// io/peft.hpp loads whole adapters.
//
//   auto c = lora::io::peft_config::parse(bytes, "adapter/adapter_config.json");
//   c.rank;  c.alpha;  c.rank_pattern[0].key;     // patterns stay in the order of the file: the first match wins
//
// The table is that of PEFT 0.21.2. A field outside it is accepted, and listed in unknown_fields, when it is null, false, empty or a
// string; any other value is refused: a newer PEFT may mean something by it. Keys must be unique.
#ifndef LORA_IO_PEFT_CONFIG_HPP
#define LORA_IO_PEFT_CONFIG_HPP

#include <lora/core/error.hpp>
#include <lora/io/detail/json.hpp>
#include <lora/io/detail/peft_fields.hpp>
#include <lora/io/detail/peft_tokens.hpp>
#include <lora/nd/shape.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace lora::inline v0::io {

struct peft_config {
  template <class Value>
  struct pattern_value {
    std::string key;  ///< a regular expression: see peft_pattern
    Value value;
  };

  index_t rank = 0;  ///< "r"
  double alpha = 0;  ///< "lora_alpha"
  bool use_rslora = false;
  bool use_dora = false;
  bool lora_bias = false;                            ///< B has a bias, which is scaled
  bool fan_in_fan_out = false;                       ///< W lies as [in, out] in some modules: see io::contract_of
  bool trains_bias = false;                          ///< "bias" is "all" or "lora_only": biases in the file replace the base's
  std::vector<pattern_value<index_t>> rank_pattern;  ///< in the order of the file
  std::vector<pattern_value<double>> alpha_pattern;  ///< in the order of the file
  std::vector<peft_token_list> trainable_tokens;     ///< "trainable_token_indices": rows in the file replace the table's
  std::vector<std::string> modules_to_save;          ///< ends of names of modules that the file replaces whole; empty when null or absent
  std::string base_model_name_or_path;               ///< empty when null or absent, like the next three
  std::string task_type;
  std::string revision;
  std::string peft_version;
  std::vector<std::string> target_parameters;  ///< parameters that are adapted themselves: experts
  std::vector<std::string> unknown_fields;     ///< outside PEFT 0.21.2, accepted as meaningless

  /**
   * @param bytes  the JSON text, at most 16 MiB
   * @param name   stands for the path in messages
   * @throws io_error with one sentence naming the file, the field and the byte.
   */
  [[nodiscard]] static peft_config parse(std::span<const std::byte> bytes, const std::string& name);
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

inline constexpr std::size_t peft_config_max_bytes = std::size_t{16} << 20;

class peft_config_reader final : public json_events {
 public:
  peft_config_reader(const std::string& file, io::peft_config& out) : file_(file), out_(out), tokens_(out.trainable_tokens) {}

  void null() override { scalar({kind::null}); }
  void boolean(bool v) override { scalar({v ? kind::yes : kind::no}); }
  void natural(std::uint64_t v) override { scalar({kind::natural, static_cast<double>(v), v}); }
  void number(double v, bool) override { scalar({kind::number, v}); }
  void string(std::string& v) override {
    string_ = &v;
    if (depth_ == 2 && name_ == "modules_to_save") {
      out_.modules_to_save.push_back(std::move(v));
      empty_ = false;
      return;
    }
    scalar({kind::string});
  }

  void key(std::string& name) override {
    if (depth_ == 1)
      begin_field(name);
    else if (depth_ == 2 && is_pattern())
      pattern_key_ = std::move(name);
    else if (is_tokens())
      tokens_.key(name);
  }

  void open(bool object) override {
    if (depth_ == 0 && !object) refuse("the configuration is a JSON array, not an object");
    if (depth_ >= 1 && is_tokens()) {
      if (const char* wrong = tokens_.open(depth_, object)) refuse_field(wrong);
    }
    if (depth_ == 1) {
      empty_ = true;
      if (is_pattern() && !object) refuse_field("is an array, not an object of patterns");
      if (name_ == "target_parameters" && object) refuse_field("is an object, not an array of strings");
      if (name_ == "modules_to_save" && object) refuse_field("is an object, not an array of names");
    } else {
      empty_ = false;
      if (depth_ == 2 && name_ == "modules_to_save") refuse_field("holds something that is not a name");
      if (depth_ == 2 && is_pattern()) refuse_pattern("is not a number");
      if (name_ == "target_parameters") refuse_field("holds more than strings");
    }
    ++depth_;
  }

  void close(bool) override {
    if (--depth_ == 1 && !is_pattern()) field_value({empty_ ? kind::empty : kind::filled});
  }

  /** What can only be said at the end: missing fields, and keys that occur twice. */
  void finish() {
    if (unknown_.has_value()) raise<io_error>(*unknown_);
    if (!has("peft_type")) refuse("the field 'peft_type' is missing");
    if (!has("r")) refuse("the field 'r' is missing");
    if (!has("lora_alpha")) refuse("the field 'lora_alpha' is missing");
    if (out_.use_dora && out_.lora_bias) refuse("use_dora and lora_bias are both true, which PEFT does not define");
    refuse_duplicates(out_.rank_pattern, "rank_pattern");
    refuse_duplicates(out_.alpha_pattern, "alpha_pattern");
    std::vector<std::string_view> unknown(out_.unknown_fields.begin(), out_.unknown_fields.end());
    std::sort(unknown.begin(), unknown.end());
    for (std::size_t i = 1; i < unknown.size(); ++i)
      if (unknown[i - 1] == unknown[i]) raise<io_error>(text() << quote(file_) << ": the field " << quote(unknown[i]) << " occurs twice");
  }

 private:
  enum class kind : std::uint8_t { null, no, yes, natural, number, string, empty, filled };
  struct value {
    kind what;
    double number = 0;
    std::uint64_t natural = 0;
  };

  [[noreturn]] void refuse(const char* sentence) const {
    raise<io_error>(text() << quote(file_) << ": " << sentence << " (byte " << position() << ")");
  }
  [[nodiscard]] text about_field(const char* sentence, const char* why) const {
    return text() << quote(file_) << ": the field " << quote(name_) << " " << sentence << (*why != '\0' ? ": " : "") << why << " (byte "
                  << position() << ")";
  }
  [[noreturn]] void refuse_field(const char* sentence, const char* why = "") const { raise<io_error>(about_field(sentence, why)); }
  [[noreturn]] void refuse_pattern(const char* sentence) const {
    raise<io_error>(text() << quote(file_) << ": " << quote(name_) << ": the value of " << quote(pattern_key_) << " " << sentence
                           << " (byte " << position() << ")");
  }

  [[nodiscard]] static std::size_t index_of(std::string_view name) noexcept {
    for (std::size_t i = 0; i < peft_field_count; ++i)
      if (peft_fields[i].name == name) return i;
    return peft_field_count;
  }
  [[nodiscard]] bool has(std::string_view name) const noexcept { return seen_[index_of(name)]; }
  [[nodiscard]] bool is_pattern() const noexcept { return name_ == "rank_pattern" || name_ == "alpha_pattern"; }

  [[nodiscard]] bool is_tokens() const noexcept { return name_ == "trainable_token_indices"; }

  void begin_field(std::string& name) {
    name_ = std::move(name);
    index_ = index_of(name_);
    if (index_ == peft_field_count) return;
    if (seen_[index_]) refuse_field("occurs twice");
    seen_[index_] = true;
  }

  void scalar(const value& v) {
    if (depth_ == 0) refuse("the configuration is not a JSON object");
    if (depth_ == 1)
      field_value(v);
    else
      empty_ = false;
    if (depth_ == 2 && name_ == "modules_to_save") refuse_field("holds something that is not a name");
    if (depth_ == 2 && is_pattern()) pattern_value(v);
    if (depth_ > 1 && is_tokens()) {
      if (const char* wrong = tokens_.scalar(depth_, v.what == kind::natural, v.natural)) refuse_field(wrong);
    }
    if (depth_ == 2 && name_ == "target_parameters") {
      if (v.what != kind::string) refuse_field("holds more than strings");
      out_.target_parameters.push_back(std::move(*string_));
    }
  }

  void pattern_value(const value& v) {
    if (v.what != kind::natural && v.what != kind::number) refuse_pattern("is not a number");
    if (name_ == "alpha_pattern")
      out_.alpha_pattern.push_back({std::move(pattern_key_), v.number});
    else if (v.what != kind::natural || !is_rank(v))
      refuse_pattern("is not a rank, an integer of at least 1");
    else
      out_.rank_pattern.push_back({std::move(pattern_key_), static_cast<index_t>(v.natural)});
  }

  [[nodiscard]] static bool is_plain_init(std::string_view name) noexcept {
    return std::find(std::begin(peft_plain_inits), std::end(peft_plain_inits), name) != std::end(peft_plain_inits);
  }

  [[nodiscard]] static bool is_rank(const value& v) noexcept {
    return v.what == kind::natural && v.natural >= 1 && v.natural <= static_cast<std::uint64_t>(PTRDIFF_MAX);
  }

  void field_value(const value& v) {
    const bool off = v.what == kind::null || v.what == kind::no;
    if (index_ == peft_field_count) {
      if (!off && v.what != kind::empty && v.what != kind::string)
        unknown_ = unknown_.has_value()
                       ? unknown_
                       : about_field("is none that PEFT 0.21.2 has, and it is set", "it may change what the adapter computes");
      out_.unknown_fields.push_back(name_);
      return;
    }
    const peft_field& f = peft_fields[index_];
    switch (f.rule) {
      case peft_rule::used:
        use(v);
        return;
      case peft_rule::harmless:
        return;
      case peft_rule::flag:
        if (off) return;
        break;
      case peft_rule::list:
        if (v.what == kind::null || v.what == kind::empty) return;
        break;
      case peft_rule::absent:
        if (v.what == kind::null) return;
        break;
      case peft_rule::init:
        if (off || v.what == kind::yes || (v.what == kind::string && is_plain_init(*string_))) return;
        break;
    }
    if (v.what == kind::string)
      raise<io_error>(text() << quote(file_) << ": the field " << quote(name_) << " is " << quote(*string_) << ": " << f.why << " (byte "
                             << position() << ")");
    refuse_field(v.what == kind::yes ? "is true" : "is set", f.why);
  }

  void use(const value& v) {
    if (name_ == "r") {
      if (!is_rank(v)) refuse_field("is not an integer of at least 1");
      out_.rank = static_cast<index_t>(v.natural);
    } else if (name_ == "lora_alpha") {
      if (v.what != kind::natural && v.what != kind::number) refuse_field("is not a number");
      out_.alpha = v.number;
    } else if (bool* const to = flag()) {
      if (v.what != kind::yes && v.what != kind::no && v.what != kind::null) refuse_field("is not a boolean");
      *to = v.what == kind::yes;
    } else if (name_ == "bias") {
      out_.trains_bias = v.what == kind::string && (*string_ == "all" || *string_ == "lora_only");
      if (!out_.trains_bias && v.what != kind::null && !(v.what == kind::string && *string_ == "none"))
        refuse_field("is none of null, \"none\", \"all\" and \"lora_only\"");
    } else if (name_ == "peft_type") {
      if (v.what == kind::string && *string_ != "LORA")
        raise<io_error>(text() << quote(file_) << ": the field 'peft_type' is " << quote(*string_)
                               << ", not \"LORA\", the only type that is supported (byte " << position() << ")");
      if (v.what != kind::string) refuse_field("is not \"LORA\", the only type that is supported");
    } else if (name_ == "modules_to_save") {
      if (v.what != kind::null && v.what != kind::empty && v.what != kind::filled) refuse_field("is not an array of names");
    } else if (name_ == "target_parameters") {
      if (v.what != kind::null && v.what != kind::empty && v.what != kind::filled) refuse_field("is not an array of strings");
    } else if (is_pattern()) {
      if (v.what != kind::null) refuse_field("is not an object of patterns");
    } else if (is_tokens()) {
      if (v.what != kind::null && v.what != kind::empty && v.what != kind::filled)
        refuse_field("is neither a list of token indices nor an object of lists");
      if (const char* wrong = tokens_.finish()) refuse_field(wrong);
    } else {
      if (v.what != kind::string && v.what != kind::null) refuse_field("is neither a string nor null");
      if (v.what == kind::string) keep_string();
    }
  }

  [[nodiscard]] bool* flag() noexcept {
    return name_ == "use_rslora"       ? &out_.use_rslora
           : name_ == "use_dora"       ? &out_.use_dora
           : name_ == "lora_bias"      ? &out_.lora_bias
           : name_ == "fan_in_fan_out" ? &out_.fan_in_fan_out
                                       : nullptr;
  }

  void keep_string() {
    std::string& to = name_ == "task_type"      ? out_.task_type
                      : name_ == "revision"     ? out_.revision
                      : name_ == "peft_version" ? out_.peft_version
                                                : out_.base_model_name_or_path;
    to = std::move(*string_);
  }

  template <class Value>
  void refuse_duplicates(const std::vector<io::peft_config::pattern_value<Value>>& patterns, const char* field) const {
    std::vector<std::string_view> keys;
    keys.reserve(patterns.size());
    for (const auto& p : patterns) keys.push_back(p.key);
    std::sort(keys.begin(), keys.end());
    for (std::size_t i = 1; i < keys.size(); ++i)
      if (keys[i - 1] == keys[i]) raise<io_error>(text() << quote(file_) << ": the key " << quote(keys[i]) << " occurs twice in " << field);
  }

  const std::string& file_;
  io::peft_config& out_;
  std::string name_;  // of the current field
  std::string pattern_key_;
  std::string* string_ = nullptr;  // of the current event
  peft_token_reader tokens_;
  std::size_t index_ = 0;
  std::size_t depth_ = 0;
  bool empty_ = true;
  bool seen_[peft_field_count + 1] = {};
  std::optional<text> unknown_;  // the first unknown field that is set: said at the end, as the type of another tuner says more
};

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

inline peft_config peft_config::parse(std::span<const std::byte> bytes, const std::string& name) {
  if (bytes.size() > detail::peft_config_max_bytes)
    detail::raise<io_error>(detail::text() << detail::quote(name) << ": has " << bytes.size()
                                           << " bytes; a configuration of more than 16 MiB is not read");
  peft_config out;
  detail::peft_config_reader reader(name, out);
  if (const detail::json_failure f = detail::parse_json(bytes, reader))
    detail::raise<io_error>(detail::text() << detail::quote(name) << ": the configuration " << f.sentence << " (byte " << f.position
                                           << ")");
  reader.finish();
  return out;
}

}  // namespace lora::inline v0::io

#endif
