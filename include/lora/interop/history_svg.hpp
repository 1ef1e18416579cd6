// SPDX-License-Identifier: Apache-2.0
//
// history_svg: a history as a drawing. Versions stand from left to right in the order of their publication, each branch on a line of its
// own, the way to the current version on the first one and bold. The bar of a box is its health; a dropped payload is pale; a dashed arrow goes
// from a rollback's target to the rollback; failed loads hang below the version that stayed current; the last decision about a version (a
// canary's, an operator's) stands under its box, and all of them in its tooltip. The same picture gives the same bytes.
//
//   std::ofstream("tree.svg") << lora::history_svg(history.picture());
#ifndef LORA_INTEROP_HISTORY_SVG_HPP
#define LORA_INTEROP_HISTORY_SVG_HPP

#include <lora/interop/detail/escape.hpp>
#include <lora/snapshot/version_record.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace lora::inline v0 {

namespace detail {

class history_drawing {
 public:
  explicit history_drawing(const history_picture& p) : p_(p) {
    place();
    boxes();
  }

  [[nodiscard]] std::string finish() && {
    const int wide = std::max(left * 2 + columns_ * step_x, 700);
    const int high = top + (lines_ + (failures_ ? 1 : 0)) * step_y + 40;
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + std::to_string(wide) + "\" height=\"" + std::to_string(high) +
                      "\" viewBox=\"0 0 " + std::to_string(wide) + " " + std::to_string(high) +
                      "\" font-family=\"sans-serif\" font-size=\"12\">\n";
    out += "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
    words(out, left, 26, title(), "font-size=\"15\" font-weight=\"bold\" fill=\"#1f2328\"");
    out += links_ + boxes_;
    int x = left;
    for (const auto& [color, name] : {std::pair{good, "healthy"}, {fair, "doubtful"}, {bad, "bad or failed"}, {unknown, "not judged"}}) {
      box(out, x, high - 26, 12, 12, 3, color, color, 1);
      words(out, x + 18, high - 16, name, "fill=\"#57606a\"");
      x += 110;
    }
    words(out, x, high - 16, "bold: the way to the current version", "fill=\"#57606a\"");
    return out += "</svg>\n";
  }

 private:
  static constexpr int left = 20, top = 48, width = 146, height = 58, step_x = 172, step_y = 84;
  static constexpr const char* good = "#2da44e";
  static constexpr const char* fair = "#d4a72c";
  static constexpr const char* bad = "#cf222e";
  static constexpr const char* unknown = "#afb8c1";

  struct spot {
    int column = 0;
    int line = 0;
  };

  [[nodiscard]] static int x_of(spot s) { return left + s.column * step_x; }
  [[nodiscard]] static int y_of(spot s) { return top + s.line * step_y; }

  [[nodiscard]] std::string title() const {
    std::string t = p_.current == lora::stamp{} ? "nothing published" : "version " + std::to_string(p_.current.value) + " is current";
    t += "; " + bytes(p_.held_bytes) + (p_.budget_bytes == 0 ? " held" : " of " + bytes(p_.budget_bytes) + " held");
    if (p_.standby) t += "; on standby: " + shorter(p_.standby->source, 30);
    return t;
  }

  [[nodiscard]] static std::string bytes(std::size_t n) {
    constexpr const char* units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    std::size_t u = 0;
    auto tenths = static_cast<std::uint64_t>(n) * 10;
    for (; tenths >= 10240 && u < 4; ++u) tenths /= 1024;
    return std::to_string(tenths / 10) + (u == 0 || tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10)) + units[u];
  }

  /** The end of a long text, which tells paths apart, cut between characters. */
  [[nodiscard]] static std::string shorter(const std::string& s, std::size_t most) {
    std::size_t count = 0;
    std::size_t from = s.size();
    while (from > 0 && count < most) {
      --from;
      if ((static_cast<unsigned char>(s[from]) & 0xc0u) != 0x80u) ++count;
    }
    return from == 0 ? s : "\xe2\x80\xa6" + s.substr(from);
  }

  static void words(std::string& out, int x, int y, const std::string& what, const char* style) {
    ((((out += "<text x=\"") += std::to_string(x)) += "\" y=\"") += std::to_string(y)) += "\" ";
    (out += style) += '>';
    append_xml(out, what);
    out += "</text>\n";
  }

  static void box(std::string& out, int x, int y, int w, int h, int round, const char* fill, const char* line, int thick) {
    out += "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"" + std::to_string(w) + "\" height=\"" +
           std::to_string(h) + "\" rx=\"" + std::to_string(round) + "\" fill=\"" + fill + "\" stroke=\"" + line + "\" stroke-width=\"" +
           std::to_string(thick) + "\"/>\n";
  }

  void link(spot from, spot to, const char* style) {
    const int x0 = x_of(from) + width, y0 = y_of(from) + height / 2, x1 = x_of(to), y1 = y_of(to) + height / 2, bend = 14;
    links_ += "<path d=\"M" + std::to_string(x0) + "," + std::to_string(y0);
    if (y0 == y1)
      links_ += " H" + std::to_string(x1);
    else
      links_ += " h" + std::to_string(bend / 2) + " V" + std::to_string(y1) + " H" + std::to_string(x1);
    ((links_ += "\" fill=\"none\" ") += style) += "/>\n";
  }

  // Columns: versions by stamp, each followed by the loads that failed while it was current. Lines: a version goes on in its parent's line if
  // it is on the active path, or the parent's last child and the parent is off that path; else it opens a line.
  void place() {
    for (const version_record& v : p_.versions) by_stamp_[v.stamp] = &v;
    for (lora::stamp s = p_.current; by_stamp_.count(s) != 0 && !active_[s]; s = by_stamp_[s]->parent) active_[s] = true;
    std::map<lora::stamp, lora::stamp> heir;  // of a parent off the path: its last child
    for (const version_record& v : p_.versions) heir[v.parent] = v.stamp;
    const auto hang_failures = [&](lora::stamp after) {
      for (const history_event& e : p_.events)
        if (e.kind == history_event_kind::load_failed && e.version == after) failed_at_.push_back({&e, columns_++});
    };
    hang_failures(lora::stamp{});
    lines_ = 1;
    for (const version_record& v : p_.versions) {
      const bool goes_on = by_stamp_.count(v.parent) != 0 && !active_[v.parent] && heir[v.parent] == v.stamp;
      const int line = active_[v.stamp] ? 0 : goes_on ? spots_[v.parent].line : lines_++;
      spots_[v.stamp] = {columns_++, line};
      hang_failures(v.stamp);
    }
    failures_ = !failed_at_.empty();
  }

  void boxes() {
    for (const version_record& v : p_.versions) {
      const spot here = spots_[v.stamp];
      const bool bold = active_[v.stamp];
      if (by_stamp_.count(v.parent) != 0)
        link(spots_[v.parent], here,
             v.rolled_back_to != lora::stamp{} && !bold ? "stroke=\"#8c959f\" stroke-width=\"2\" stroke-dasharray=\"6 4\""
             : v.rolled_back_to != lora::stamp{}        ? "stroke=\"#0969da\" stroke-width=\"4\" stroke-dasharray=\"9 5\""
             : bold                                     ? "stroke=\"#0969da\" stroke-width=\"4\""
                                                        : "stroke=\"#8c959f\" stroke-width=\"2\"");
      const bool gone = v.status == version_status::dropped;
      const char* health = !v.health ? unknown : *v.health >= 0.75 ? good : *v.health >= 0.5 ? fair : bad;
      boxes_ += gone ? "<g opacity=\"0.55\">\n" : "<g>\n";
      const std::string verdict = decisions(v.stamp);
      const int x = x_of(here), y = y_of(here);
      box(boxes_, x, y, width, height, 6, v.stamp == p_.current ? "#ddf4ff" : "#f6f8fa", bold ? "#0969da" : "#8c959f", bold ? 3 : 1);
      box(boxes_, x + 5, y + 6, 6, height - 12, 3, health, health, 1);
      std::string head = "v" + std::to_string(v.stamp.value);
      if (v.rolled_back_to != lora::stamp{}) head += " = v" + std::to_string(v.rolled_back_to.value) + " again";
      words(boxes_, x + 20, y + 19, head, "font-weight=\"bold\" fill=\"#1f2328\"");
      words(boxes_, x + 20, y + 35, shorter(v.facts.source, 16), "fill=\"#1f2328\"");
      std::string foot = gone ? "dropped" : bytes(v.facts.bytes);
      if (v.keep) foot += ", keep";
      if (v.named_pins != 0) foot += ", " + std::to_string(v.named_pins) + (v.named_pins == 1 ? " pin" : " pins");
      words(boxes_, x + 20, y + 51, foot, "fill=\"#57606a\" font-size=\"11\"");
      if (!verdict.empty()) words(boxes_, x, y + height + 13, verdict, "fill=\"#57606a\" font-size=\"10\"");
      boxes_ += "</g>\n";
    }
    for (const auto& [event, column] : failed_at_) {
      const spot here{column, lines_};
      if (by_stamp_.count(event->version) != 0)
        link(spots_[event->version], here, "stroke=\"#cf222e\" stroke-width=\"1\" stroke-dasharray=\"3 3\"");
      box(boxes_, x_of(here), y_of(here) + 8, width, height - 16, 6, "#ffebe9", bad, 1);
      words(boxes_, x_of(here) + 12, y_of(here) + 26, "load failed", "font-weight=\"bold\" fill=\"#cf222e\"");
      words(boxes_, x_of(here) + 12, y_of(here) + 42, shorter(event->source, 16), "fill=\"#1f2328\"");
    }
  }

  /** Puts all decisions about a version into a tooltip of the group that is open; returns what the last one says before its first semicolon. */
  [[nodiscard]] std::string decisions(lora::stamp version) {
    std::string last;
    for (const history_event& e : p_.events) {
      if (e.kind != history_event_kind::decision || e.version != version) continue;
      boxes_ += last.empty() ? "<title>" : "\n";
      append_xml(boxes_, e.text);
      last = e.text.substr(0, e.text.find(';'));
      if (last.empty()) last = " ";
    }
    if (last.empty()) return {};
    boxes_ += "</title>\n";
    constexpr std::size_t most = 32;
    if (last.size() <= most) return last;
    std::size_t cut = most - 1;
    while (cut > 0 && (static_cast<unsigned char>(last[cut]) & 0xc0u) == 0x80u) --cut;  // between characters
    return last.substr(0, cut) + "\xe2\x80\xa6";
  }

  struct failure {
    const history_event* event;
    int column;
  };

  const history_picture& p_;
  std::map<lora::stamp, const version_record*> by_stamp_;
  std::map<lora::stamp, bool> active_;
  std::map<lora::stamp, spot> spots_;
  std::vector<failure> failed_at_;
  int columns_ = 0;
  int lines_ = 1;
  bool failures_ = false;
  std::string links_;
  std::string boxes_;
};

}  // namespace detail

/** A complete SVG 1.1 document. @par Cost  O(versions + failures * events). */
[[nodiscard]] inline std::string history_svg(const history_picture& picture) { return detail::history_drawing(picture).finish(); }

}  // namespace lora::inline v0

#endif
