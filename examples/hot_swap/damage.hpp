// SPDX-License-Identifier: Apache-2.0
//
// Copies of adapters with something wrong on purpose: what interrupted downloads, diverged trainings and edited configurations leave behind.
#ifndef HOT_SWAP_DAMAGE_HPP
#define HOT_SWAP_DAMAGE_HPP

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <system_error>

namespace hot_swap {

/** A folder of its own below the system's one for temporary files; gone with the object. */
class temporary_folder {
 public:
  temporary_folder() : path_((std::filesystem::temp_directory_path() / "lora-hot-swap-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::system_error(errno, std::generic_category(), path_ + ": cannot make this folder");
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

/** Copies an adapter so that the copy can be written to. Returns its file of tensors. */
inline std::filesystem::path copy_writable(const std::string& adapter, const std::string& to) {
  namespace fs = std::filesystem;
  fs::copy(adapter, to, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json"})
    fs::permissions(fs::path(to) / file, fs::perms::owner_write, fs::perm_options::add);
  return fs::path(to) / "adapter_model.safetensors";
}

/** The tensors end after two thirds of the file, as an interrupted download leaves it. */
inline void copy_truncated(const std::string& adapter, const std::string& to) {
  const std::filesystem::path tensors = copy_writable(adapter, to);
  std::filesystem::resize_file(tensors, std::filesystem::file_size(tensors) * 2 / 3);
}

/** The last number of the last tensor is a NaN, as a training that diverged leaves it. */
inline void copy_with_nan(const std::string& adapter, const std::string& to) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::fstream file(copy_writable(adapter, to), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-static_cast<std::streamoff>(sizeof nan), std::ios::end);
  file.write(reinterpret_cast<const char*>(&nan), sizeof nan);
  file.close();
  if (!file) throw std::system_error(errno, std::generic_category(), to + ": cannot write");
}

/** Everything is well-formed, and the update counts `factor` times too much: an alpha that is not the one of the training. */
inline void copy_with_alpha(const std::string& adapter, const std::string& to, int factor) {
  (void)copy_writable(adapter, to);
  const std::string path = to + "/adapter_config.json";
  nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
  config["lora_alpha"] = config["lora_alpha"].get<double>() * factor;
  for (auto& [pattern, alpha] : config["alpha_pattern"].items()) alpha = alpha.get<double>() * factor;
  std::ofstream out(path);
  out << config.dump(1) << '\n';
  out.close();
  if (!out) throw std::system_error(errno, std::generic_category(), path + ": cannot write");
}

}  // namespace hot_swap

#endif
