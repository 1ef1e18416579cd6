// SPDX-License-Identifier: Apache-2.0
//
// A piece of every room, instantiated and used, without exceptions: what must compile silently at every optimisation level, twice in one
// program, and under -fno-exceptions -fno-rtti. One place, so that a new room is added once.
#ifndef LORA_TESTS_HEADERS_USE_EVERYTHING_HPP
#define LORA_TESTS_HEADERS_USE_EVERYTHING_HPP

#include <lora/lora.hpp>

#include <lora/interop/dlpack.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/npz_writer.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/safetensors.hpp>
#include <lora/linalg/embedding.hpp>

#include <memory>
#include <string>
#include <vector>

namespace use_everything {

/** Views and operations; 0, or the line of the first wrong result. */
template <class T>
int arrays() {
  std::vector<T> elements(24);
  lora::ndview<T, 2> v(elements, {4, 6});
  lora::fill(v, T(2));
  v(1, -1) = T(5);
  const lora::ndview<const T, 2> read_only = v;
  if (read_only.transpose()(5, 1) != T(5)) return __LINE__;
  if (v(lora::range(1, lora::_), lora::range(lora::_, lora::_, -2))(0, 0) != T(5)) return __LINE__;
  if (v(lora::ellipsis, lora::newaxis, -1).extent(1) != 1) return __LINE__;
  if (v.template permute<1, 0>().at(5, 1) != T(5)) return __LINE__;
  if (lora::reshape(v, 2, -1)(0, 11) != T(5)) return __LINE__;

  auto sum = lora::zeros<T>(4, 6);
  auto row = lora::contiguous(v(1));
  lora::apply(
      sum, [](T a, T b) { return a + b; }, v, lora::broadcast_to(row, v.shape()));
  if (sum(0, 5) != T(7) || sum(1, 5) != T(10)) return __LINE__;
  lora::copy(sum(lora::range(0, 2)), sum(lora::range(1, 3)));  // overlapping
  if (sum(2, 5) != T(10)) return __LINE__;
  return lora::any_view(v).template as<T, 2>()(1, 5) == T(5) ? 0 : __LINE__;
}

/** Arrays to and from the rest of the world; 0, or the line of the first wrong result. */
inline int exchange() {
  auto t = lora::from_dlpack(lora::to_dlpack(lora::full(lora::extents{2, 3}, 2.0f)));
  const auto v = t.view().as<float, 2>();
  if (v(1, 2) != 2.0f || lora::from_dlpack(lora::to_dlpack_legacy(t.view(), nullptr)).copied()) return __LINE__;
  const lora::detail::npy_layout layout(v, "v");
  if (layout.size_bytes() != 128 + 24 || lora::detail::crc32_of("123456789", 9) != 0xcbf43926u) return __LINE__;
  return 0;
}

/** The way of the data: files, contract, bound adapter, published set, pinned reader, y. `digits` is examples/data/digits. */
inline int files_to_answer(const std::string& digits) {
  const auto base = lora::io::safetensors::open(digits + "/base.safetensors");
  const lora::model_contract model = lora::io::contract_of(base);
  const auto loaded = lora::io::load_peft(digits + "/adapter_v1");
  const auto images = lora::io::npy::open(digits + "/test_images.npy");
  if (images.view().rank() == 0 || model.size() == 0) return __LINE__;

  const auto bound = std::make_shared<const lora::bound_adapter>(lora::bind(loaded.adapter, model));
  lora::snapshot_cell<lora::adapter_set> cell(lora::adapter_set{model});
  cell.publish(lora::adapter_set(model, {{bound, 1.0f}}));
  auto reader = cell.reader();
  const auto pinned = reader.pin();
  if (pinned->rank(0) < 1) return __LINE__;

  const lora::linear layer(base[model[0].name + ".weight"].as<const float, 2>());
  auto x = lora::zeros<float>(3, layer.in());
  auto y = lora::zeros<float>(3, layer.out());
  auto z = lora::zeros<float>(3, layer.out());
  lora::fill(x, 1.0f);
  lora::workspace scratch;
  layer.forward(y, x, (*pinned)[0], scratch);
  const auto whole = lora::merged(layer.weight(), (*pinned)[0]);
  lora::inline_executor here;
  lora::forward(z, x, whole, {}, {}, scratch, here);
  for (lora::index_t i = 0; i < y.extent(1); ++i)
    if (!(y(0, i) - z(0, i) < 1e-3f && z(0, i) - y(0, i) < 1e-3f)) return __LINE__;
  const std::int32_t id = 1;  // the same weight as a table of rows
  auto row = lora::zeros<float>(1, layer.in());
  lora::embed(row, lora::ndview<const std::int32_t, 1>(&id, {1}), layer.weight(), {}, scratch);
  if (row(0, 2) != layer.weight()(1, 2)) return __LINE__;
  return 0;
}

inline int all(const std::string& digits) {
  if (lora::simd::tier_name()[0] == '\0' || static_cast<float>(lora::bfloat16(1.5f)) != 1.5f) return __LINE__;
  if (lora::parameter_count(4096, 4096, 8) != 65536 || lora::scale_for(16.0, 8) != 2.0f) return __LINE__;
  const auto fresh = lora::fresh_adapter(8, 4, 2);
  if (fresh.a.extent(1) != 4 || fresh.b(7, 1) != 0.0f) return __LINE__;
  if (const int line = arrays<float>()) return line;
  if (const int line = arrays<double>()) return line;
  if (const int line = arrays<int>()) return line;
  if (const int line = exchange()) return line;
  return files_to_answer(digits);
}

}  // namespace use_everything

#endif
