// SPDX-License-Identifier: Apache-2.0
#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace program {
namespace {

constexpr lora::index_t block = 1024;  // columns at once: 8 KiB a rank

/** Terms of an update, `columns` of A at a time, as doubles. */
class summand {
 public:
  explicit summand(const lora::low_rank_update& u) : update_(u) {
    for (const auto& t : u.terms) ranks_ += t.scale == 0.0f ? 0 : t.a.extent(0);
    panel_.resize(static_cast<std::size_t>(ranks_ * block));
  }

  void take_columns(lora::index_t first, lora::index_t columns) {
    double* to = panel_.data();
    for (const auto& t : update_.terms) {
      if (t.scale == 0.0f) continue;
      t.a.visit([&](const auto& a) {
        for (lora::index_t r = 0; r < a.extent(0); ++r, to += block)
          for (lora::index_t k = 0; k < columns; ++k) to[k] = static_cast<double>(static_cast<float>(a(r, first + k)));
      });
    }
  }

  /** row += f (w + s B A) of one row, times `sign`. */
  void add_row(lora::index_t row, const double* w, lora::index_t columns, double sign, double* sums) const {
    double line[block];
    std::copy_n(w, columns, line);
    const double* from = panel_.data();
    for (const auto& t : update_.terms) {
      if (t.scale == 0.0f) continue;
      t.b.visit([&](const auto& b) {
        for (lora::index_t r = 0; r < b.extent(1); ++r, from += block) {
          const double factor = static_cast<double>(t.scale) * static_cast<double>(static_cast<float>(b(row, r)));
          for (lora::index_t k = 0; k < columns; ++k) line[k] += factor * from[k];
        }
      });
    }
    const double factor =
        sign * (update_.row_factor.empty() ? 1.0 : static_cast<double>(update_.row_factor[static_cast<std::size_t>(row)]));
    for (lora::index_t k = 0; k < columns; ++k) sums[k] += factor * line[k];
  }

 private:
  const lora::low_rank_update& update_;
  lora::index_t ranks_ = 0;
  std::vector<double> panel_;
};

}  // namespace

double update_distance(const lora::any_view& weight, const lora::low_rank_update& a, const lora::low_rank_update& b) {
  return lora::dispatch<2, float, lora::float16, lora::bfloat16>(weight, [&](auto w) {
    summand first(a);
    summand second(b);
    double squares = 0;
    for (lora::index_t k = 0; k < w.extent(1); k += block) {
      const lora::index_t columns = std::min(block, w.extent(1) - k);
      first.take_columns(k, columns);
      second.take_columns(k, columns);
      for (lora::index_t n = 0; n < w.extent(0); ++n) {
        double row[block];
        double difference[block] = {};
        for (lora::index_t j = 0; j < columns; ++j) row[j] = static_cast<double>(static_cast<float>(w(n, k + j)));
        first.add_row(n, row, columns, 1, difference);
        second.add_row(n, row, columns, -1, difference);
        for (lora::index_t j = 0; j < columns; ++j) squares += difference[j] * difference[j];
      }
    }
    return std::sqrt(squares);
  });
}

}  // namespace program
