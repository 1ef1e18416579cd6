// SPDX-License-Identifier: Apache-2.0
//
// What the tests of io/ share: a folder that goes away, files of given bytes, a builder of safetensors files that checks nothing (so that
// wrong files can be made), and the sentence that an action refuses with.
#ifndef LORA_TESTS_IO_FILES_HPP
#define LORA_TESTS_IO_FILES_HPP

#include <lora/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <stdlib.h>

namespace test {

class temporary_folder {
 public:
  temporary_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "lora-io-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

  /** Writes a file, makes the folders above it, and gives its path. */
  std::string write(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path.string();
  }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::span<const std::byte> bytes_of(std::string_view s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }

/** Bytes in heap memory of exactly their size, so that a sanitizer sees the first byte beyond; `shift` moves them off the alignment. */
class exact_bytes {
 public:
  explicit exact_bytes(std::string_view s, std::size_t shift = 0)
      : memory_(new std::byte[s.size() + shift]), shift_(shift), size_(s.size()) {
    if (!s.empty()) std::memcpy(memory_.get() + shift, s.data(), s.size());
  }
  [[nodiscard]] std::span<const std::byte> span() const { return {memory_.get() + shift_, size_}; }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::size_t shift_;
  std::size_t size_;
};

/** A safetensors file of this JSON and these data, whatever they are. */
inline std::string safetensors_bytes(std::string_view json, std::string_view data = {}) {
  const std::uint64_t n = json.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out.append(json).append(data);
}

/** Adds tensors one behind the other; no rule is checked. */
class safetensors_builder {
 public:
  safetensors_builder& add(std::string_view name, std::string_view dtype, const std::vector<std::size_t>& shape, std::string_view data) {
    if (!json_.empty()) json_ += ',';
    json_ += '"' + std::string(name) + "\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":[";
    for (std::size_t i = 0; i < shape.size(); ++i) json_ += (i == 0 ? "" : ",") + std::to_string(shape[i]);
    json_ += "],\"data_offsets\":[" + std::to_string(data_.size()) + ',' + std::to_string(data_.size() + data.size()) + "]}";
    data_.append(data);
    return *this;
  }
  /** Zeros of the right length for f32 (or another element size). */
  safetensors_builder& zeros(std::string_view name, const std::vector<std::size_t>& shape, std::string_view dtype = "F32",
                             std::size_t size = 4) {
    for (const std::size_t e : shape) size *= e;
    return add(name, dtype, shape, std::string(size, '\0'));
  }
  safetensors_builder& raw(std::string_view entry) {
    if (!json_.empty()) json_ += ',';
    json_ += entry;
    return *this;
  }
  /** Padded so that the data begin at a multiple of 8, as the reference's writer does; `spaces` more shift them. */
  [[nodiscard]] std::string bytes(std::size_t spaces = 0) const {
    std::string json = '{' + json_ + '}';
    json.append((8 - json.size() % 8) % 8 + spaces, ' ');
    return safetensors_bytes(json, data_);
  }

 private:
  std::string json_;
  std::string data_;
};

template <class T>
std::string bytes_from(const std::vector<T>& values) {
  std::string out(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

/** The sentence that `action` is refused with by Error; "" when it is not, "(another exception)" when it fails otherwise. */
template <class Error, class Action>
std::string refusal(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  } catch (...) {
    return "(another exception)";
  }
  return "";
}

[[nodiscard]] inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace test

#endif
