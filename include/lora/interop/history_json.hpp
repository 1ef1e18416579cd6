// SPDX-License-Identifier: Apache-2.0
//
// history_json: a history as JSON text, for tools and for keeping beside the logs. The same picture gives the same bytes. Numbers are stamps,
// bytes and scores; times are UTC; hashes are 64 digits. What is not known is null. Needs no JSON library.
//
//   std::puts(lora::history_json(history.picture()).c_str());
#ifndef LORA_INTEROP_HISTORY_JSON_HPP
#define LORA_INTEROP_HISTORY_JSON_HPP

#include <lora/interop/detail/escape.hpp>
#include <lora/snapshot/version_record.hpp>

#include <string>

namespace lora::inline v0 {

namespace detail {

/** Members of one object after the other; keys are literals. */
class json_object {
 public:
  explicit json_object(std::string& out) : out_(out) { out_ += '{'; }
  json_object(const json_object&) = delete;
  json_object& operator=(const json_object&) = delete;
  ~json_object() { out_ += '}'; }

  std::string& key(const char* name) {
    if (!first_) out_ += ", ";
    first_ = false;
    return ((out_ += '"') += name) += "\": ";
  }
  void text(const char* name, std::string_view value) { append_json(key(name), value); }
  void number(const char* name, std::uint64_t value) { key(name) += std::to_string(value); }
  /** 0 is "none". */
  void stamp_of(const char* name, lora::stamp s) { key(name) += s == lora::stamp{} ? "null" : std::to_string(s.value); }
  void facts(const version_facts& f) {
    text("source", f.source);
    number("bytes", f.bytes);
    if (f.hash.known())
      text("hash", f.hash.hex().data());
    else
      key("hash") += "null";
    text("note", f.note);
  }

 private:
  std::string& out_;
  bool first_ = true;
};

template <class List, class Each>
void json_list(std::string& out, const List& list, Each each) {
  out += '[';
  bool first = true;
  for (const auto& item : list) {
    out += first ? "\n    " : ",\n    ";
    first = false;
    json_object o(out);
    each(o, item);
  }
  out += first ? "]" : "\n  ]";
}

}  // namespace detail

/** One object with the members current, held_bytes, budget_bytes, standby, versions, pins and events; a line for each version. */
[[nodiscard]] inline std::string history_json(const history_picture& p) {
  using detail::json_object;
  std::string out = "{\n  \"current\": " + (p.current == stamp{} ? "null" : std::to_string(p.current.value));
  out += ",\n  \"held_bytes\": " + std::to_string(p.held_bytes);
  out += ",\n  \"budget_bytes\": " + (p.budget_bytes == 0 ? "null" : std::to_string(p.budget_bytes));
  out += ",\n  \"standby\": ";
  if (p.standby)
    json_object(out).facts(*p.standby);
  else
    out += "null";
  out += ",\n  \"versions\": ";
  detail::json_list(out, p.versions, [](json_object& o, const version_record& v) {
    o.number("stamp", v.stamp.value);
    o.stamp_of("parent", v.parent);
    o.stamp_of("replaced", v.replaced);
    o.stamp_of("rolled_back_to", v.rolled_back_to);
    o.text("created", detail::iso_time(v.created));
    o.facts(v.facts);
    if (v.health)
      detail::append_number(o.key("health"), *v.health);
    else
      o.key("health") += "null";
    o.text("status", name_of(v.status));
    o.key("keep") += v.keep ? "true" : "false";
    o.number("named_pins", v.named_pins);
    o.number("holders", v.holders);
  });
  out += ",\n  \"pins\": ";
  detail::json_list(out, p.pins, [](json_object& o, const pin_record& pin) {
    o.text("who", pin.who);
    o.stamp_of("version", pin.version);
    o.text("since", detail::iso_time(pin.since));
  });
  out += ",\n  \"events\": ";
  detail::json_list(out, p.events, [](json_object& o, const history_event& e) {
    o.number("number", e.number);
    o.text("at", detail::iso_time(e.at));
    o.text("kind", name_of(e.kind));
    o.stamp_of("version", e.version);
    o.text("source", e.source);
    o.text("text", e.text);
  });
  return out += "\n}\n";
}

}  // namespace lora::inline v0

#endif
