// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"

#include <lora/io/peft_writer.hpp>

#include <filesystem>

namespace fs = std::filesystem;

namespace program {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* problem) { throw lora::io_error(("'" + path + "': " + problem).c_str()); }

void require_parent(const fs::path& path, const std::string& name) {
  std::error_code failed;
  if (path.has_parent_path() && !fs::is_directory(path.parent_path(), failed))
    refuse(name, "the folder that it would be in does not exist");
}

}  // namespace

void require_file_output(const std::string& path) {
  std::error_code failed;
  const auto type = fs::status(path, failed).type();
  if (type == fs::file_type::directory) refuse(path, "is a folder; the output is a file");
  if (type != fs::file_type::not_found && type != fs::file_type::regular && type != fs::file_type::none)
    refuse(path, "is no regular file, and will not be replaced by one");
  require_parent(path, path);
}

void require_file_output(const std::string& path, const std::vector<weighted_path>& adapters) {
  require_file_output(path);
  for (const weighted_path& a : adapters)
    for (const char* const file : {"", "/adapter_model.safetensors", "/adapter_config.json"}) {
      std::error_code failed;
      if (fs::equivalent(path, a.path + file, failed) && !failed)
        refuse(path, "is a file of the adapter that is read; the output would take its place");
    }
}

void write_peft(const std::string& name, const lora::adapter& adapter) {
  std::string folder = name;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  std::error_code failed;
  const auto type = fs::status(folder, failed).type();
  if (type != fs::file_type::not_found && type != fs::file_type::directory) refuse(name, "is no folder; the output is one, with two files");
  require_parent(folder, name);
  try {
    lora::io::save_peft(folder, adapter);
  } catch (...) {
    if (type == fs::file_type::not_found) fs::remove(folder, failed);  // only when it is empty
    throw;
  }
}

}  // namespace program
