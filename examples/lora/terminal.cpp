// SPDX-License-Identifier: Apache-2.0
#include "terminal.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <unistd.h>

namespace program {
namespace {

/** Bytes of the UTF-8 character that `s` begins with; 0 when it is none. */
[[nodiscard]] std::size_t character(std::string_view s) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  if (size == 0 || s.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const unsigned second = byte(1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
  return overlong || outside ? 0 : size;
}

}  // namespace

std::string escaped(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    const auto c = static_cast<unsigned char>(s[0]);
    const std::size_t size = character(s);
    const bool c1 = size == 2 && c == 0xc2 && static_cast<unsigned char>(s[1]) < 0xa0;  // U+0080 to U+009F steer terminals too
    if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
      s.remove_prefix(1);
    } else if (size == 0 || c < 0x20 || c == 0x7f || c1) {
      char text[5];
      std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned>(c));
      out += text;
      s.remove_prefix(1);
    } else {
      out += s.substr(0, size);
      s.remove_prefix(size);
    }
  }
  return out;
}

std::size_t characters(std::string_view s) noexcept {
  return static_cast<std::size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string size_text(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(units); ++unit) bytes /= 1000;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
  return text;
}

std::string bar(double value, double largest, std::size_t width) {
  if (!std::isfinite(value)) return "not finite";
  if (!(value > 0) || !(largest > 0)) return {};
  const double share = std::min(1.0, value / largest) * static_cast<double>(width) * 8;
  const auto eighths = std::max<std::size_t>(1, static_cast<std::size_t>(std::lround(share)));
  const char* const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string out;
  for (std::size_t i = 0; i < eighths / 8; ++i) out += "█";
  return out + parts[eighths % 8];
}

std::string column(std::string_view s, std::size_t width) {
  const std::size_t size = characters(s);
  if (size <= width) return std::string(s).append(width - size, ' ');
  // Names differ at both ends: layers.0 ... q_proj. Cut by characters, not bytes.
  const auto bytes_of = [&](std::size_t count) {
    std::size_t at = 0;
    for (; count != 0 && at < s.size(); --count)
      for (++at; at < s.size() && (static_cast<unsigned char>(s[at]) & 0xc0) == 0x80;) ++at;
    return at;
  };
  const std::size_t front = (width - 1) / 2;
  const std::size_t back = width - 1 - front;
  return std::string(s.substr(0, bytes_of(front))) + "…" + std::string(s.substr(bytes_of(size - back)));
}

progress::progress(std::string what, std::uint64_t total)
    : what_(std::move(what)), total_(total), terminal_(::isatty(STDERR_FILENO) == 1) {}

progress::~progress() {
  if (visible_) std::fputs("\r\x1b[K", stderr);
}

void progress::advance(std::uint64_t amount) {
  done_ = std::min(total_, done_ + amount);
  if (!terminal_) return;
  const auto now = clock::now();
  if (now - begin_ < std::chrono::seconds(1) || (visible_ && now - shown_ < std::chrono::milliseconds(100))) return;
  const double share = total_ == 0 ? 1 : static_cast<double>(done_) / static_cast<double>(total_);
  const double passed = std::chrono::duration<double>(now - begin_).count();
  std::fprintf(stderr, "\r\x1b[K%s %s %3.0f %%", what_.c_str(), column(bar(share, 1, 30), 30).c_str(), 100 * share);
  if (share > 0 && share < 1) std::fprintf(stderr, ", %.0f s left", passed / share * (1 - share));
  std::fflush(stderr);
  shown_ = now;
  visible_ = true;
}

}  // namespace program
