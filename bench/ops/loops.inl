// SPDX-License-Identifier: Apache-2.0
//
// What one writes without a library: loops over raw pointers. For native_loops.cpp and plain_loops.cpp, which differ in their flags.
#include "ops.hpp"

#include <cmath>
#include <cstring>

namespace {

using bench::index;
using bench::op;
using bench::task;
using bench::type;

/** Any strides, as v(i, j, k, l) of a view does it. */
void scale_elements(const task& t, const void* from, void* to) {
  const auto* __restrict f = static_cast<const float*>(from);
  auto* __restrict g = static_cast<float*>(to);
  const index s[] = {t.from_stride[0], t.from_stride[1], t.from_stride[2], t.from_stride[3]};
  const index d[] = {t.to_stride[0], t.to_stride[1], t.to_stride[2], t.to_stride[3]};
  const index n[] = {t.shape[0], t.shape[1], t.shape[2], t.shape[3]};
  for (index i = 0; i < n[0]; ++i)
    for (index j = 0; j < n[1]; ++j)
      for (index k = 0; k < n[2]; ++k)
        for (index l = 0; l < n[3]; ++l) g[i * d[0] + j * d[1] + k * d[2] + l * d[3]] = 2 * f[i * s[0] + j * s[1] + k * s[2] + l * s[3]];
}

/** The innermost rows known to be contiguous. */
void scale_rows(const task& t, const void* from, void* to) {
  const auto* __restrict f = static_cast<const float*>(from);
  auto* __restrict g = static_cast<float*>(to);
  const index n[] = {t.shape[0], t.shape[1], t.shape[2], t.shape[3]};
  for (index i = 0; i < n[0]; ++i)
    for (index j = 0; j < n[1]; ++j)
      for (index k = 0; k < n[2]; ++k) {
        const float* __restrict p = f + i * t.from_stride[0] + j * t.from_stride[1] + k * t.from_stride[2];
        float* __restrict q = g + i * t.to_stride[0] + j * t.to_stride[1] + k * t.to_stride[2];
        for (index l = 0; l < n[3]; ++l) q[l] = 2 * p[l];
      }
}

void scale_flat(const task& t, const void* from, void* to) {
  const auto* __restrict f = static_cast<const float*>(from);
  auto* __restrict g = static_cast<float*>(to);
  const index n = t.from_count;
  for (index i = 0; i < n; ++i) g[i] = 2 * f[i];
}

/** Writes along rows; reads are far apart. The other order is slower on every machine tried. */
void transpose(const task& t, const void* from, void* to) {
  const auto* __restrict f = static_cast<const float*>(from);
  auto* __restrict g = static_cast<float*>(to);
  const index rows = t.shape[0];
  const index columns = t.shape[1];
  for (index j = 0; j < columns; ++j)
    for (index i = 0; i < rows; ++i) g[j * rows + i] = f[i * columns + j];
}

/** The axis in the middle of [outer, n, inner]: by whole rows of inner where there are any, so that memory is read in order. */
template <class T, class R, op What>
void reduce(const task& t, const void* from, void* to) {
  const auto* __restrict f = static_cast<const T*>(from);
  auto* __restrict g = static_cast<R*>(to);
  const index n = t.axis < 0 ? t.from_count : t.shape[t.axis];
  const index inner = t.axis < 0 ? 1 : t.from_stride[t.axis];
  const index outer = t.from_count / (n * inner);
  for (index o = 0; o < outer; ++o) {
    const T* __restrict x = f + o * n * inner;
    R* __restrict y = g + o * inner;
    if (inner == 1) {
      R sum = 0;
      T largest = x[0];
      index at = 0;
      for (index k = 0; k < n; ++k) {
        if constexpr (What == op::sum) {
          sum += static_cast<R>(x[k]);
        } else if constexpr (What == op::max) {
          largest = x[k] > largest ? x[k] : largest;
        } else if (x[k] > largest) {
          largest = x[k];
          at = k;
        }
      }
      y[0] = What == op::sum ? sum : What == op::max ? static_cast<R>(largest) : static_cast<R>(at);
    } else if constexpr (What != op::argmax) {
      for (index c = 0; c < inner; ++c) y[c] = static_cast<R>(x[c]);
      for (index k = 1; k < n; ++k) {
        const T* __restrict row = x + k * inner;
        for (index c = 0; c < inner; ++c) {
          const auto v = static_cast<R>(row[c]);
          if constexpr (What == op::sum)
            y[c] += v;
          else
            y[c] = v > y[c] ? v : y[c];
        }
      }
    } else {
      for (index c = 0; c < inner; ++c) y[c] = 0;
      for (index k = 1; k < n; ++k)
        for (index c = 0; c < inner; ++c)
          if (x[k * inner + c] > x[static_cast<index>(y[c]) * inner + c]) y[c] = static_cast<R>(k);
    }
  }
}

template <class T, class Sum>
auto reduction(op what) {
  return what == op::sum ? reduce<T, Sum, op::sum> : what == op::max ? reduce<T, T, op::max> : reduce<T, std::int64_t, op::argmax>;
}

void softmax(const task& t, const void* from, void* to) {
  const index d = t.shape[1];
  for (index r = 0; r < t.shape[0]; ++r) {
    const float* x = static_cast<const float*>(from) + r * d;
    float* y = static_cast<float*>(to) + r * d;
    float largest = x[0];
    for (index k = 0; k < d; ++k) largest = x[k] > largest ? x[k] : largest;
    float sum = 0;
    for (index k = 0; k < d; ++k) sum += y[k] = std::exp(x[k] - largest);
    for (index k = 0; k < d; ++k) y[k] /= sum;
  }
}

void gelu(const task& t, const void* from, void* to) {
  const auto* x = static_cast<const float*>(from);
  auto* y = static_cast<float*>(to);
  const index n = t.from_count;
  for (index k = 0; k < n; ++k) y[k] = x[k] * 0.5f * (1 + std::erf(x[k] * 0.70710678f));
}

void layer_norm(const task& t, const void* from, void* to) {
  const index d = t.shape[1];
  const float* w = bench::weights();
  const float* b = bench::biases();
  for (index r = 0; r < t.shape[0]; ++r) {
    const float* x = static_cast<const float*>(from) + r * d;
    float* __restrict y = static_cast<float*>(to) + r * d;
    float mean = 0;
    for (index k = 0; k < d; ++k) mean += x[k];
    mean /= static_cast<float>(d);
    float squares = 0;
    for (index k = 0; k < d; ++k) squares += (x[k] - mean) * (x[k] - mean);
    const float factor = 1 / std::sqrt(squares / static_cast<float>(d) + static_cast<float>(bench::epsilon));
    for (index k = 0; k < d; ++k) y[k] = (x[k] - mean) * factor * w[k] + b[k];
  }
}

void add_loops(const task& t, bench::peer_list& out, const std::string& flags) {
  const std::string name = flags.empty() ? "loop" : "loop " + flags;
  const std::string how = flags.empty() ? ", no -m flag" : ", " + flags;
  switch (t.what) {
    case op::scale:
      if (t.rank == 1) {
        out.push_back({name, "one loop" + how, scale_flat});
      } else {
        out.push_back({name, "four nested loops, rows known to be contiguous" + how, scale_rows});
        out.push_back({name + " v(i,j,k,l)", "four nested loops, any strides" + how, scale_elements});
      }
      break;
    case op::transpose:
      out.push_back({name, "two nested loops" + how, transpose});
      break;
    case op::sum:
    case op::max:
    case op::argmax:
      out.push_back({name, "nested loops in memory order" + how,
                     t.from_type == type::f32   ? reduction<float, float>(t.what)
                     : t.from_type == type::f64 ? reduction<double, double>(t.what)
                                                : reduction<std::int32_t, std::int64_t>(t.what)});
      break;
    case op::softmax:
      out.push_back({name, "expf of libm, line by line" + how, softmax});
      break;
    case op::gelu:
      out.push_back({name, "erff of libm" + how, gelu});
      break;
    case op::layer_norm:
      out.push_back({name, "three passes over a line" + how, layer_norm});
      break;
    default:
      break;
  }
}

}  // namespace
