// SPDX-License-Identifier: Apache-2.0
//
// The test set, and the comparison of a version's logits with those that PEFT computed, within a bound that is derived at run time.
#ifndef HOT_SWAP_DIGITS_HPP
#define HOT_SWAP_DIGITS_HPP

#include "model.hpp"

#include <lora/io/npy.hpp>

#include <cmath>
#include <cstdint>

namespace hot_swap {

/** Test images turned by 90 degrees, as the net reads them, and their digits. */
struct test_set {
  explicit test_set(const std::string& directory) : labels_file(lora::io::npy::open(directory + "/test_labels.npy")) {
    const auto file = lora::io::npy::open(directory + "/test_images.npy");
    const auto upright = file.view().as<const std::uint8_t, 3>();
    labels = labels_file.view().as<const std::uint8_t, 1>();
    if (labels.extent(0) != upright.extent(0)) throw lora::shape_error("test_images.npy and test_labels.npy differ in length");
    // Turned by a view: turned(i, r, c) is upright(i, c, 7 - r). The pixels are read once, on their way into the net's input.
    const auto turned = upright.permute<0, 2, 1>()(lora::all, lora::range(lora::_, lora::_, -1), lora::all);
    x = lora::uninit<float>(turned.extent(0), turned.extent(1) * turned.extent(2));
    const auto to_input = [](std::uint8_t pixel) { return static_cast<float>(pixel) / 16; };
    lora::apply(lora::reshape(x, turned.shape()), to_input, turned);
  }

  [[nodiscard]] lora::index_t size() const noexcept { return x.extent(0); }

  lora::io::npy labels_file;
  lora::ndview<const std::uint8_t, 1> labels;  // [images]
  lora::ndarray<float, 2> x;                   // [images, pixels]
};

/** How a version's logits compare with a file of PEFT's. */
struct agreement {
  double worst_difference = 0;
  double worst_ratio = 0;         // difference over bound; above 1, or NaN, one of the two is wrong
  std::size_t other_answers = 0;  // images whose largest logit is another one
};

namespace detail {

/**
 * A layer in double, for the bound.
 *
 * With u = 2^-24 and gamma(k) = k u / (1 - k u), a sum of k products in f32, in any order, fused or not, is off by at most
 * gamma(k) times the sum of the products' magnitudes, because each product passes through at most k roundings (Higham, Accuracy
 * and Stability of Numerical Algorithms, 3.1). Let R be the sum of the ranks. An element of y = W x + b + sum of s B (A x) is
 * such a sum of in + R + 1 terms, hence
 *   - the terms of W x and b pass through at most in + R + 1 roundings;
 *   - those of s B (A x) also through `in` for A x and 2 for s (rounded to f32, then multiplied): 2 in + R + 3.
 * One more is allowed for the order in which PEFT adds up its parts. This holds for our kernels and for PyTorch's alike.
 *
 * If the layer's input is off by e already, then |error of y| <= that, taken at |x| + e, plus |W + sum of s B A| e. A relu
 * enlarges no error. Both programs start from the same exact input and both obey the bound at the end, so they differ by at most
 * twice it.
 */
class bounded_layer {
 public:
  bounded_layer(const lora::linear& linear, const lora::low_rank_update& update) : linear_(linear), terms_(update.terms) {
    const lora::index_t in = linear.in();
    const lora::index_t out = linear.out();
    lora::index_t ranks = 0;
    effective_ = lora::uninit<double>(out, in);
    const auto widened = [](float w) { return static_cast<double>(w); };
    lora::apply(effective_, widened, linear.weight());
    for (const auto& [a, b, scale] : terms_) {
      ranks += a.extent(0);
      for (lora::index_t o = 0; o < out; ++o)
        for (lora::index_t r = 0; r < a.extent(0); ++r)
          for (lora::index_t i = 0; i < in; ++i) effective_(o, i) += double{scale} * double{b(o, r)} * double{a(r, i)};
    }
    weight_gamma_ = gamma(in + ranks + 2);
    adapter_gamma_ = gamma(2 * in + ranks + 4);
  }

  /** y and its error from x and its error. */
  void run(const std::vector<double>& x, const std::vector<double>& x_error, std::vector<double>& y, std::vector<double>& y_error) const {
    const auto in = static_cast<std::size_t>(linear_.in());
    const auto out = static_cast<std::size_t>(linear_.out());
    y.assign(out, 0);
    y_error.assign(out, 0);
    std::vector<double> size(in);  // of what either program can have in place of x
    for (std::size_t i = 0; i < in; ++i) size[i] = std::abs(x[i]) + x_error[i];
    for (std::size_t o = 0; o < out; ++o) {
      const double bias = linear_.bias().empty() ? 0.0 : double{linear_.bias()(o)};
      double sum = std::abs(bias);
      y[o] = bias;
      for (std::size_t i = 0; i < in; ++i) {
        y[o] += effective_(o, i) * x[i];
        y_error[o] += std::abs(effective_(o, i)) * x_error[i];
        sum += std::abs(double{linear_.weight()(o, i)}) * size[i];
      }
      y_error[o] += weight_gamma_ * sum;
    }
    for (const auto& [a, b, scale] : terms_)
      for (lora::index_t r = 0; r < a.extent(0); ++r) {
        double sum = 0;
        for (std::size_t i = 0; i < in; ++i) sum += std::abs(double{a(r, i)}) * size[i];
        for (std::size_t o = 0; o < out; ++o) y_error[o] += adapter_gamma_ * std::abs(double{scale} * double{b(o, r)}) * sum;
      }
    // What is left out is far below this: the rounding of these sums themselves (2^-53), and f32 results below 2^-126.
    for (double& e : y_error) e = e * (1 + 0x1p-20) + 1e-30;
  }

 private:
  [[nodiscard]] static double gamma(lora::index_t k) noexcept {
    const double ku = static_cast<double>(k) * 0x1p-24;
    return ku / (1 - ku);
  }

  lora::linear linear_;
  std::span<const lora::low_rank_term> terms_;
  lora::ndarray<double, 2> effective_;  // W + sum of s B A
  double weight_gamma_ = 0;
  double adapter_gamma_ = 0;
};

}  // namespace detail

/** Compares what the version answers, at every request size, with PEFT's logits in a .npy file. @throws lora::error for a bad file. */
[[nodiscard]] inline agreement compare_with_peft(const digit_net& net, const digit_model& model, const test_set& test,
                                                 const std::string& npy) {
  const auto file = lora::io::npy::open(npy);
  const auto theirs = file.view().as<const float, 2>();
  if (!(theirs.shape() == model.expected[0].shape())) throw lora::shape_error((npy + ": is not one row of logits an image").c_str());

  std::vector<detail::bounded_layer> layers;
  for (const digit_net::layer& l : net.layers()) layers.emplace_back(l.linear, model.adapters[l.module]);

  agreement result;
  std::vector<double> x, x_error, y, y_error;
  for (lora::index_t image = 0; image < test.size(); ++image) {
    x.assign(static_cast<std::size_t>(net.in()), 0);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = double{test.x(image, i)};
    x_error.assign(x.size(), 0);  // pixels are multiples of 1/16: exact
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i].run(x, x_error, y, y_error);
      if (i + 1 < layers.size())
        for (double& v : y) v = std::max(v, 0.0);
      x.swap(y);
      x_error.swap(y_error);
    }
    for (const auto& ours : model.expected) {
      for (std::size_t c = 0; c < x.size(); ++c) {
        const double difference = std::abs(double{ours(image, c)} - double{theirs(image, c)});
        const double ratio = difference / (2 * x_error[c]);
        if (!(difference <= result.worst_difference)) result.worst_difference = difference;  // written so that a NaN stays
        if (!(ratio <= result.worst_ratio)) result.worst_ratio = ratio;
      }
      if (argmax(ours(image, lora::all)) != argmax(theirs(image, lora::all))) ++result.other_answers;
    }
  }
  return result;
}

}  // namespace hot_swap

#endif
