// SPDX-License-Identifier: Apache-2.0
//
// digit_net: the frozen base model, three linear layers with a relu between them, run with whatever adapters a request brings.
// digit_model: what is published, one version of "which adapters apply". Nothing here knows threads, snapshots or the terminal.
//
//   digit_net net("base.safetensors");
//   forward_buffers buffers(net, 64);                          // one a thread
//   auto logits = net.logits(x, model.adapters, buffers);      // [n, 10], valid until the next call with these buffers
#ifndef HOT_SWAP_MODEL_HPP
#define HOT_SWAP_MODEL_HPP

#include "measure.hpp"

#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>
#include <lora/lora.hpp>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hot_swap {

using matrix_view = lora::ndview<const float, 2>;

class forward_buffers;

class digit_net {
 public:
  struct layer {
    std::string name;
    std::size_t module;  // its index in the contract, looked up once
    lora::linear linear;
  };

  /** @throws lora::error when the file is not readable or its layers do not follow each other. */
  explicit digit_net(const std::string& path) : file_(lora::io::safetensors::open(path)), contract_(lora::io::contract_of(file_)) {
    for (const std::string name : {"fc1", "fc2", "fc3"}) {
      lora::linear linear(file_[name + ".weight"].as<const float, 2>(), file_[name + ".bias"].as<const float, 1>());
      if (!layers_.empty() && layers_.back().linear.out() != linear.in())
        throw lora::shape_error("the layers of the base model do not follow each other");
      layers_.push_back({name, contract_.find(name), linear});
    }
  }

  [[nodiscard]] const lora::model_contract& contract() const noexcept { return contract_; }
  [[nodiscard]] const std::vector<layer>& layers() const noexcept { return layers_; }
  [[nodiscard]] lora::index_t in() const noexcept { return layers_.front().linear.in(); }
  [[nodiscard]] lora::index_t classes() const noexcept { return layers_.back().linear.out(); }
  [[nodiscard]] std::size_t bytes_copied() const noexcept { return file_.bytes_copied(); }

  /** x [n, in] through all layers; the weights are read where the file is mapped. Allocates nothing if the buffers fit. */
  [[nodiscard]] matrix_view logits(matrix_view x, const lora::adapter_set& adapters, forward_buffers& buffers) const;

 private:
  lora::io::safetensors file_;  // keeps the mapping that the layers look into
  lora::model_contract contract_;
  std::vector<layer> layers_;
};

/** What one thread needs to run the net, allocated once. */
class forward_buffers {
 public:
  /** Room for batches of up to `n` and adapters of up to `rank`, by default more than is of use here. Beyond it the workspace grows once. */
  forward_buffers(const digit_net& net, lora::index_t n, lora::index_t rank = 256) {
    for (const digit_net::layer& l : net.layers()) {
      outputs_.push_back(lora::uninit<float>(n, l.linear.out()));
      // Only the extents count here, and no adapter is loaded yet.
      const lora::low_rank_term widest{matrix_view(nullptr, {rank, l.linear.in()}), matrix_view(nullptr, {l.linear.out(), rank})};
      for (const lora::index_t size : batch_sizes) scratch_.reserve(lora::forward_workspace_bytes(size, l.linear.weight(), {&widest, 1}));
      scratch_.reserve(lora::forward_workspace_bytes(n, l.linear.weight(), {&widest, 1}));
    }
  }

 private:
  friend class digit_net;
  std::vector<lora::ndarray<float, 2>> outputs_;  // of each layer
  lora::workspace scratch_;
};

inline matrix_view digit_net::logits(matrix_view x, const lora::adapter_set& adapters, forward_buffers& buffers) const {
  const auto relu = [](float v) { return v > 0 ? v : 0.0f; };
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto y = buffers.outputs_[i](lora::range(0, x.extent(0)), lora::all);
    layers_[i].linear.forward(y, x, adapters[layers_[i].module], buffers.scratch_);
    if (i + 1 < layers_.size()) lora::apply(y, relu, y);
    x = y;
  }
  return x;
}

/** Position of the largest value, the first one if there are several. */
[[nodiscard]] inline lora::index_t argmax(lora::ndview<const float, 1> row) noexcept {
  lora::index_t best = 0;
  for (lora::index_t i = 1; i < row.extent(0); ++i)
    if (row[i] > row[best]) best = i;
  return best;
}

/** Counts how often each payload was built and destroyed, so that the end of the program can tell. */
class life_ledger {
 public:
  class entry {  // built and destroyed with the payload that holds it
   public:
    explicit entry(life_ledger& ledger) : ledger_(&ledger), id_(ledger.built_.fetch_add(1)) {}
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;
    ~entry() {
      if (id_ < capacity) ledger_->destroyed_[id_].fetch_add(1);
    }

   private:
    life_ledger* ledger_;
    std::size_t id_;
  };

  [[nodiscard]] std::size_t built() const noexcept { return built_.load(); }
  [[nodiscard]] std::size_t destroyed() const noexcept {
    std::size_t sum = 0;
    for (const auto& d : destroyed_) sum += d.load();
    return sum;
  }
  /** Whether everything built was destroyed, and nothing twice. */
  [[nodiscard]] bool each_exactly_once() const noexcept {
    for (std::size_t i = 0; i < capacity; ++i)
      if (destroyed_[i].load() != (i < built() ? 1u : 0u)) return false;
    return built() <= capacity;
  }

 private:
  static constexpr std::size_t capacity = 64;
  std::atomic<std::size_t> built_{0};
  std::array<std::atomic<unsigned>, capacity> destroyed_{};
};

/** An adapter on disk, loaded and checked against the base. */
struct loaded_adapter {
  std::shared_ptr<const lora::bound_adapter> bound;
  std::size_t bytes_copied = 0;              // tensor bytes: 0 when the mapped file is used as it lies
  std::vector<std::string> unused_patterns;  // of its configuration: they match no module, perhaps by mistake
};

/** @throws lora::io_error, lora::bind_error: the sentence names the file or module and what is wrong. */
[[nodiscard]] inline loaded_adapter load(const std::string& directory, const digit_net& net) {
  lora::io::peft_adapter file = lora::io::load_peft(directory);
  auto bound = std::make_shared<const lora::bound_adapter>(lora::bind(file.adapter, net.contract(), {.require_finite = true}));
  const std::size_t copied = file.bytes_copied;
  return {std::move(bound), copied, std::move(file.report.unused_patterns)};
}

/**
 * One version: the adapters of all modules, which keep their files alive, and what the net answers with them for the whole test set, in
 * batches of each request size. A request that saw anything but this version in each of its layers cannot reproduce these bits.
 */
struct digit_model {
  digit_model(const digit_net& net, matrix_view x, std::vector<lora::weighted_adapter> list, life_ledger& ledger)
      : adapters(net.contract(), std::move(list)), life(ledger) {
    forward_buffers buffers(net, largest_batch);
    for (std::size_t s = 0; s < batch_sizes.size(); ++s) {
      expected[s] = lora::uninit<float>(x.extent(0), net.classes());
      for (lora::index_t first = 0; first < x.extent(0); first += batch_sizes[s]) {
        const auto slice = lora::range(first, first + batch_sizes[s]).clamp();
        lora::copy(net.logits(x(slice, lora::all), adapters, buffers), expected[s](slice, lora::all));
      }
    }
  }

  lora::adapter_set adapters;
  std::array<lora::ndarray<float, 2>, batch_sizes.size()> expected;  // [images, classes] each
  life_ledger::entry life;
};

/** "8/12/8": the rank in each layer, "-" for a layer, or a version, that leaves the base as it is. */
[[nodiscard]] inline std::string ranks(const digit_net& net, const digit_model& model) {
  std::string text;
  bool any = false;
  for (const digit_net::layer& l : net.layers()) {
    const lora::index_t rank = model.adapters.rank(l.module);
    any = any || rank != 0;
    if (!text.empty()) text += '/';
    text += rank == 0 ? "-" : std::to_string(rank);
  }
  return any ? text : "-";
}

}  // namespace hot_swap

#endif
