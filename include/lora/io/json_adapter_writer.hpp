// SPDX-License-Identifier: Apache-2.0
//
// save_json: an adapter of one module as the JSON that load_json reads (io/json_adapter.hpp).
//
//   lora::io::save_json("adapter.json", loaded.adapter);
//
// f16 and bf16 become f32, which is exact. Each number is written in the fewest digits that read back as the same float, "alpha" so that
// alpha / rank is the same scale. Equal adapters give equal bytes. The file appears whole or not at all.
#ifndef LORA_IO_JSON_ADAPTER_WRITER_HPP
#define LORA_IO_JSON_ADAPTER_WRITER_HPP

#include <lora/io/detail/atomic_file.hpp>
#include <lora/io/detail/factors.hpp>
#include <lora/io/detail/json_writer.hpp>

namespace lora::inline v0::io {

/**
 * Writes the adapter's only module; its name goes under "module".
 *
 * @throws value_error before anything is written, when the adapter has not exactly one module, the name is not UTF-8, or A, B or the
 *         scale holds a NaN or an infinity, which JSON has no words for; io_error when the file cannot be written: the old one is then
 *         still there.
 * @par Cost   One pass over A and B; 64 KiB of memory.
 */
inline void save_json(const std::string& path, const adapter& source) {
  using detail::text;
  if (source.modules.size() != 1)
    detail::raise<value_error>(text() << "save_json: the adapter has " << source.modules.size()
                                      << " modules; the JSON protocol holds exactly one");
  const adapted_module& m = source.modules.front();
  detail::require_writable("save_json", m);
  detail::require_no_convolution("save_json", m);
  if (m.weights.a.extent(1) == 0 || m.weights.b.extent(0) == 0)
    detail::raise<value_error>(text() << "save_json: module " << detail::quote(m.name)
                                      << " has an extent of 0, which the protocol does not allow");
  if (!detail::is_utf8(m.name)) detail::raise<value_error>(text() << "save_json: the module's name is not UTF-8");

  const auto each = [&](const any_view& v, auto&& use) {
    dispatch<2, float, float16, bfloat16>(v, [&](auto typed) {
      for (index_t i = 0; i < typed.extent(0); ++i)
        for (index_t j = 0; j < typed.extent(1); ++j) use(static_cast<float>(typed(i, j)), i, j);
    });
  };
  for (const any_view* v : {&m.weights.a, &m.weights.b})
    each(*v, [&](float x, index_t i, index_t j) {
      if (!std::isfinite(x))
        detail::raise<value_error>(text() << "save_json: module " << detail::quote(m.name) << ": " << (v == &m.weights.a ? "A" : "B")
                                          << " holds a NaN or an infinity at [" << i << ", " << j << "]");
    });

  detail::atomic_file file(path);
  std::string out = "{\"module\": ";
  detail::append_string(out, m.name);
  out += ", \"rank\": ";
  detail::append_number(out, m.weights.a.extent(0));
  out += ", \"in_dim\": ";
  detail::append_number(out, m.weights.a.extent(1));
  out += ", \"out_dim\": ";
  detail::append_number(out, m.weights.b.extent(0));
  out += ", \"alpha\": ";
  detail::append_number(out, detail::alpha_of(m.weights));
  for (const any_view* v : {&m.weights.a, &m.weights.b}) {
    out += v == &m.weights.a ? ", \"a\": [" : ", \"b\": [";
    bool first = true;
    each(*v, [&](float x, index_t, index_t) {
      if (!first) out += ", ";
      first = false;
      detail::append_number(out, x);
      if (out.size() >= std::size_t{1} << 16) {
        file.write(out.data(), out.size());
        out.clear();
      }
    });
    out += ']';
  }
  out += "}\n";
  file.write(out.data(), out.size());
  file.commit();
}

}  // namespace lora::inline v0::io

#endif
