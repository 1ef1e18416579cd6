// SPDX-License-Identifier: Apache-2.0
//
// save_gguf: an adapter as the GGUF file that llama.cpp, and load_gguf, read (io/gguf_adapter.hpp): version 3, aligned to 32 bytes.
//
//   lora::io::save_gguf("adapter.gguf", loaded.adapter, {.architecture = "llama"});
//
// The format holds one alpha for the file. Modules of different ranks are fine; scales that are not one alpha over each rank are refused,
// not folded into B, which would round it. So is a scale of 0: an alpha of 0 means 1 to llama.cpp.
#ifndef LORA_IO_GGUF_ADAPTER_WRITER_HPP
#define LORA_IO_GGUF_ADAPTER_WRITER_HPP

#include <lora/io/detail/atomic_file.hpp>
#include <lora/io/detail/elements.hpp>
#include <lora/io/detail/json_writer.hpp>
#include <lora/io/gguf_adapter.hpp>

namespace lora::inline v0::io {

struct gguf_save_options {
  std::string architecture;  ///< of the base, as llama.cpp calls it; required
  std::string name;          ///< general.name; left out when empty
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/** The front of a GGUF file, put together. */
class gguf_text_writer {
 public:
  template <class T>
  void put(T value) {
    const std::size_t at = out_.size();
    out_.resize(at + sizeof(T));
    std::memcpy(out_.data() + at, &value, sizeof(T));
  }
  void string(std::string_view s) {
    put(static_cast<std::uint64_t>(s.size()));
    out_ += s;
  }
  void pair(std::string_view key, std::string_view value) {
    string(key);
    put(static_cast<std::uint32_t>(io::gguf_type::string));
    string(value);
  }
  void pair(std::string_view key, float value) {
    string(key);
    put(static_cast<std::uint32_t>(io::gguf_type::f32));
    put(value);
  }
  void pad(std::size_t step) { out_.append((step - out_.size() % step) % step, '\0'); }
  [[nodiscard]] const std::string& text() const noexcept { return out_; }

 private:
  std::string out_;
};

/** The one alpha that gives every module its scale. */
[[nodiscard]] inline float common_alpha(const adapter& source) {
  const auto fits = [&](float alpha) -> const adapted_module* {
    for (const adapted_module& m : source.modules)
      if (static_cast<float>(static_cast<double>(alpha) / static_cast<double>(m.weights.a.extent(0))) != m.weights.scale) return &m;
    return nullptr;
  };
  // Each module bounds alpha to about a float's step around scale x rank: the candidates are the neighbours of the first one's.
  const low_rank& w = source.modules.front().weights;
  const auto nearest = static_cast<float>(static_cast<double>(w.scale) * static_cast<double>(w.a.extent(0)));
  const adapted_module* misfit = nullptr;
  for (const float candidate : {nearest, std::nextafter(nearest, -INFINITY), std::nextafter(nearest, INFINITY)}) {
    const adapted_module* const m = fits(candidate);
    if (m == nullptr && candidate != 0.0f && std::isfinite(candidate)) return candidate;
    if (misfit == nullptr) misfit = m;
  }
  if (misfit == nullptr) misfit = &source.modules.front();
  raise<value_error>(
      text() << "save_gguf: module " << quote(misfit->name)
             << ": its scale cannot be written: the format has one alpha for all modules, it divides it by their ranks, and it "
                "takes 0 for 1");
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * @throws value_error before anything is written: no modules or no architecture, a name that occurs twice, is no UTF-8 or is too long for
 *         ggml (NAME.weight.lora_a in 63 bytes), A and B that do not fit together or are not f32, f16 or bf16, scales that no common alpha
 *         gives; io_error naming the path and the system's words.
 * @par Cost   One write of the elements, and two fsync.
 */
inline void save_gguf(const std::string& path, const adapter& source, const gguf_save_options& options) {
  using detail::text;
  constexpr std::size_t alignment = 32;  // the format's own default
  detail::require_modules("save_gguf", source);
  if (options.architecture.empty()) detail::raise<value_error>(text() << "save_gguf: the architecture of the base must be given");
  for (const std::string* s : {&options.architecture, &options.name})
    if (!detail::is_utf8(*s) || s->find('\0') != std::string::npos)
      detail::raise<value_error>(text() << "save_gguf: " << detail::quote(*s) << " is not UTF-8 or contains a NUL");
  std::vector<std::string_view> names;
  for (const adapted_module& m : source.modules) {
    detail::require_writable("save_gguf", m);
    detail::require_no_convolution("save_gguf", m);
    if (!detail::is_utf8(m.name) || m.name.find('\0') != std::string::npos || m.name.size() + detail::gguf_a.size() > 63 ||
        m.name == "token_embd")
      detail::raise<value_error>(text() << "save_gguf: module " << detail::quote(m.name)
                                        << ": its name is not UTF-8, is longer than ggml takes, or is that of an embedding");
    names.push_back(m.name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    detail::raise<value_error>(text() << "save_gguf: the module " << detail::quote(*twice) << " occurs twice");
  const float alpha = detail::common_alpha(source);

  detail::gguf_text_writer head;
  head.put(std::uint32_t{0x46554747u});  // "GGUF"
  head.put(std::uint32_t{3});
  head.put(std::uint64_t{2 * source.modules.size()});
  head.put(std::uint64_t{options.name.empty() ? 4u : 5u});
  head.pair("general.architecture", options.architecture);
  head.pair("general.type", std::string_view("adapter"));
  head.pair("adapter.type", std::string_view("lora"));
  head.pair("adapter.lora.alpha", alpha);
  if (!options.name.empty()) head.pair("general.name", options.name);
  std::uint64_t offset = 0;
  const auto each = [&](auto&& use) {
    for (const adapted_module& m : source.modules) {
      use(m, m.weights.a, detail::gguf_a);
      use(m, m.weights.b, detail::gguf_b);
    }
  };
  each([&](const adapted_module& m, const any_view& v, std::string_view suffix) {
    head.string(std::string(m.name).append(suffix));
    head.put(std::uint32_t{2});
    head.put(static_cast<std::uint64_t>(v.extent(1)));
    head.put(static_cast<std::uint64_t>(v.extent(0)));
    for (const detail::ggml_plain_type& t : detail::ggml_plain_types)
      if (t.type == v.type()) head.put(t.number);
    head.put(offset);
    offset += (v.size_bytes() + (alignment - 1)) / alignment * alignment;
  });
  head.pad(alignment);

  detail::atomic_file file(path);
  file.write(head.text().data(), head.text().size());
  each([&](const adapted_module&, const any_view& v, std::string_view) {
    detail::write_elements(v, [&](const void* data, std::size_t size) { file.write(data, size); });
    const char zeros[alignment] = {};
    file.write(zeros, (alignment - file.size() % alignment) % alignment);
  });
  file.commit();
}

}  // namespace lora::inline v0::io

#endif
