// SPDX-License-Identifier: Apache-2.0
//
// What the demo prints. On a terminal the row of the version that is being served is rewritten in place; into a file or a pipe each row
// is printed once, when it is complete. Colours only on a terminal, and not when NO_COLOR is set. No line is longer than 79 characters.
#ifndef HOT_SWAP_REPORT_HPP
#define HOT_SWAP_REPORT_HPP

#include "measure.hpp"

#include <string>
#include <vector>

namespace hot_swap {

/** One row of the table of versions. */
struct version_row {
  std::string stamps;  // "3", or "6-505"
  std::string what;
  std::string ranks;
  served answers;
  nanoseconds first_answer = -1;  // after the publication; -1 while there is none
};

/** One line of the closing list. */
struct guarantee {
  bool held;
  std::string what;
  std::string evidence;
};

class screen {
 public:
  screen();

  void text(const std::string& paragraph);  // wrapped
  void blank();
  void heading(const std::string& line);     // of a table
  void aside(const std::string& paragraph);  // wrapped, indented

  // The table of versions. A row is shown from begin_row() on, updated, given notes, and stays as it is after end_row().
  void table_head();
  void update_row(const version_row& row);
  void note(const std::string& paragraph);  // below the current row
  void end_row();

  void latencies(const totals& sum);
  void guarantees(const std::vector<guarantee>& list, const std::string& summary, bool good);

 private:
  void redraw();
  void put(const std::string& line);
  [[nodiscard]] std::string coloured(const std::string& text, const char* code) const;

  bool live_ = false;
  bool colour_ = false;
  version_row row_;
  std::vector<std::string> notes_;  // wrapped lines
  std::size_t drawn_ = 0;           // lines of the current row on the screen
};

/** printf into a string. */
[[nodiscard, gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);
/** 1234567 as "1,234,567". */
[[nodiscard]] std::string grouped(std::uint64_t n);
/** "8.4 us", "1.23 ms". */
[[nodiscard]] std::string duration(nanoseconds t);

}  // namespace hot_swap

#endif
