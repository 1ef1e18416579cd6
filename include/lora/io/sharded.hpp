// SPDX-License-Identifier: Apache-2.0
//
// sharded: the tensors of a model that lies in one .safetensors file or in many, as large ones on Hugging Face do: shards beside an index,
// model.safetensors.index.json, that says which tensor is in which. Every shard is mapped and checked; then the tensors are one table.
//
//   auto base = lora::io::sharded::open("Llama-3.1-8B");        // the folder, the index, or a single .safetensors file
//   lora::any_view w = base["model.layers.0.self_attn.q_proj.weight"];
//   lora::model_contract model = lora::io::contract_of(base);   // as of a single file: io/contract.hpp
//
// {"metadata": {...}, "weight_map": {"TENSOR": "model-00001-of-00004.safetensors", ...}}
//
// Refused: keys that occur twice, a shard's name that is a path (the index could point anywhere), a tensor that is not where the index says,
// or that a shard holds and the index does not name. "metadata" and unknown keys are skipped whatever they hold: total_size is often wrong
// in real files, and the shards' own headers say it better.
#ifndef LORA_IO_SHARDED_HPP
#define LORA_IO_SHARDED_HPP

#include <lora/io/contract.hpp>
#include <lora/io/detail/json.hpp>

#include <filesystem>

namespace lora::inline v0::detail {

/** The weight_map of an index, in the order of the text. */
class shard_index_reader final : public json_events {
 public:
  struct entry {
    std::string tensor;
    std::string file;
  };

  explicit shard_index_reader(const std::string& path) : path_(path) {}

  void null() override { value("null"); }
  void boolean(bool) override { value("a boolean"); }
  void natural(std::uint64_t) override { value("a number"); }
  void number(double, bool) override { value("a number"); }
  void string(std::string& s) override {
    if (!in_map()) return value("a string");
    const bool plain = !s.empty() && s != "." && s != ".." && s.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain)
      refuse_at(about() << "tensor " << quote(entries.back().tensor) << ": " << quote(s) << " is not the name of a file beside it",
                position());
    entries.back().file = std::move(s);
  }
  void key(std::string& s) override {
    if (depth_ == 1) {
      map_ = s == "weight_map";
      bool& seen = map_ ? seen_map_ : seen_metadata_;
      if ((map_ || s == "metadata") && std::exchange(seen, true))
        refuse_at(about() << "the key " << quote(s) << " occurs twice", position());
    } else if (in_map()) {
      if (entries.size() == most_tensors) refuse_at(about() << "weight_map names more than " << most_tensors << " tensors", position());
      entries.push_back({std::move(s), {}});
    }
  }
  void open(bool object) override {
    if (depth_ == 0 && !object) refuse_at(about() << "the index is not a JSON object", position());
    if (depth_ == 1 && map_ && !object) value("an array");
    if (depth_ == 2 && map_) value(object ? "an object" : "an array");
    ++depth_;
  }
  void close(bool) override { --depth_; }

  /** Sorted by tensor; refuses what is missing or occurs twice. */
  void finish() {
    if (!seen_map_) raise<io_error>(about() << "the index has no weight_map");
    if (entries.empty()) raise<io_error>(about() << "weight_map names no tensor");
    std::sort(entries.begin(), entries.end(), [](const entry& a, const entry& b) { return a.tensor < b.tensor; });
    for (std::size_t i = 1; i < entries.size(); ++i)
      if (entries[i].tensor == entries[i - 1].tensor)
        raise<io_error>(about() << "weight_map names the tensor " << quote(entries[i].tensor) << " twice");
  }

  std::vector<entry> entries;

 private:
  static constexpr std::size_t most_tensors = 1u << 20;

  [[nodiscard]] text about() const { return text() << quote(path_) << ": "; }
  [[nodiscard]] bool in_map() const noexcept { return map_ && depth_ == 2; }
  /** Anything but a string where only an object of strings may stand. */
  void value(const char* what) {
    if (depth_ == 0) refuse_at(about() << "the index is not a JSON object", position());
    if (map_ && depth_ == 1) refuse_at(about() << "weight_map is " << what << ", not an object", position());
    if (in_map())
      refuse_at(about() << "tensor " << quote(entries.back().tensor) << ": its file is " << what << ", not a string", position());
  }

  const std::string& path_;
  std::size_t depth_ = 0;
  bool map_ = false;
  bool seen_map_ = false;
  bool seen_metadata_ = false;
};

/** @throws io_error naming the file, the tensor and the byte. */
[[nodiscard]] inline std::vector<shard_index_reader::entry> parse_shard_index(std::span<const std::byte> bytes, const std::string& path) {
  shard_index_reader reader(path);
  if (const json_failure f = parse_json(bytes, reader)) refuse_at(text() << quote(path) << ": the index " << f.sentence, f.position);
  reader.finish();
  return std::move(reader.entries);
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * The tensors of one model. Move-only.
 *
 * @par Lifetime   Views and names are valid as long as this object; for the elements alone, as long as the owner() of their shard.
 * @par Threads    Any number of readers.
 */
class sharded {
 public:
  /**
   * @param path  a .safetensors file; an index, which is what ends in .json; or a folder with model.safetensors.index.json or
   *              model.safetensors. A folder that has both is refused: they may be two versions.
   * @throws io_error with one sentence that names the index or the shard, the tensor and the byte.
   * @par Cost   That of safetensors::open for each shard; O(n log n) comparisons of names. At most 4096 shards.
   */
  [[nodiscard]] static sharded open(const std::string& path, const open_options& options = {}) {
    namespace fs = std::filesystem;
    constexpr std::size_t most_shards = 4096;  // each is a mapping, of which a process has 65530
    sharded out;
    out.path_ = path;
    std::error_code failed;
    if (fs::is_directory(path, failed)) {
      const std::string index = path + "/model.safetensors.index.json";
      const std::string single = path + "/model.safetensors";
      const bool has_index = fs::exists(index, failed);
      const bool has_single = fs::exists(single, failed);
      if (has_index && has_single)
        detail::raise<io_error>(detail::text() << detail::quote(path)
                                               << ": there are both model.safetensors and model.safetensors.index.json: pass one of them");
      if (!has_index && !has_single)
        detail::raise<io_error>(detail::text() << detail::quote(path)
                                               << ": there is neither a model.safetensors nor a model.safetensors.index.json");
      out.path_ = has_index ? index : single;
    }
    if (!out.path_.ends_with(".json")) {
      out.shards_.push_back(safetensors::open(out.path_, options));
      for (const safetensors::tensor& t : out.shards_.front().tensors()) out.tensors_.push_back({&t, 0});
      out.sort();
      return out;
    }

    std::vector<detail::shard_index_reader::entry> entries;
    {
      const mapped_file index = mapped_file::open(out.path_);
      entries = detail::parse_shard_index(index.bytes(), out.path_);
    }
    std::vector<std::string> files;
    for (const auto& e : entries) files.push_back(e.file);
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    if (files.size() > most_shards)
      detail::raise<io_error>(detail::text() << detail::quote(out.path_) << ": it names " << files.size() << " files; at most "
                                             << most_shards << " are read");
    const std::size_t slash = out.path_.rfind('/');
    const std::string folder = slash == std::string::npos ? std::string() : out.path_.substr(0, slash + 1);
    out.shards_.reserve(files.size());
    for (const std::string& file : files) {
      out.shards_.push_back(safetensors::open(folder + file, options));
      const safetensors& shard = out.shards_.back();
      for (const safetensors::tensor& t : shard.tensors()) {
        const auto at = std::lower_bound(entries.begin(), entries.end(), t.name(),
                                         [](const auto& e, std::string_view wanted) { return e.tensor < wanted; });
        if (at == entries.end() || at->tensor != t.name())
          detail::raise<io_error>(detail::about_tensor(shard.path(), t.name())
                                  << "the index " << detail::quote(out.path_) << " does not name it");
        if (at->file != file)
          detail::raise<io_error>(detail::about_tensor(shard.path(), t.name())
                                  << "the index " << detail::quote(out.path_) << " says that it is in " << detail::quote(at->file));
        out.tensors_.push_back({&t, out.shards_.size() - 1});
      }
    }
    out.sort();
    for (const auto& e : entries)
      if (out.find(e.tensor) == nullptr)
        detail::raise<io_error>(detail::text() << detail::quote(out.path_) << ": tensor " << detail::quote(e.tensor) << " is not in "
                                               << detail::quote(e.file));
    return out;
  }

  sharded(sharded&&) noexcept = default;
  sharded& operator=(sharded&&) noexcept = default;

  /** Number of tensors. */
  [[nodiscard]] std::size_t size() const noexcept { return tensors_.size(); }
  /** In the order of their shards' names, then of their bytes in the shard. @pre i < size() */
  [[nodiscard]] const safetensors::tensor& tensor(std::size_t i) const& noexcept LORA_LIFETIMEBOUND { return *tensors_[i].tensor; }
  /** All of them in that order, to walk over. */
  [[nodiscard]] auto tensors() const& noexcept LORA_LIFETIMEBOUND { return all{tensors_.data(), tensors_.data() + tensors_.size()}; }
  void tensors() && = delete;
  /** The file that the tensor is in. */
  [[nodiscard]] const safetensors& shard_of(std::size_t i) const& noexcept LORA_LIFETIMEBOUND { return shards_[tensors_[i].shard]; }
  [[nodiscard]] std::span<const safetensors> shards() const& noexcept LORA_LIFETIMEBOUND { return shards_; }
  std::span<const safetensors> shards() && = delete;

  /** Null when there is none of that name. @par Cost  O(log n) comparisons. */
  [[nodiscard]] const safetensors::tensor* find(std::string_view name) const& noexcept LORA_LIFETIMEBOUND {
    const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                     [&](std::size_t i, std::string_view wanted) { return tensors_[i].tensor->name() < wanted; });
    return at != by_name_.end() && tensors_[*at].tensor->name() == name ? tensors_[*at].tensor : nullptr;
  }
  const safetensors::tensor* find(std::string_view name) && = delete;

  /** @throws io_error naming the file and the tensor when there is none of that name. */
  [[nodiscard]] any_view operator[](std::string_view name) const& LORA_LIFETIMEBOUND {
    const safetensors::tensor* const t = find(name);
    if (t == nullptr) detail::raise<io_error>(detail::text() << detail::quote(path_) << ": there is no tensor " << detail::quote(name));
    return t->view();
  }
  any_view operator[](std::string_view name) && = delete;

  /** The file or the index. */
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

 private:
  struct slot {
    const safetensors::tensor* tensor;  // stays where it is when its shard moves: a vector keeps its memory
    std::size_t shard;
  };

  struct walker {
    const slot* at;
    [[nodiscard]] const safetensors::tensor& operator*() const noexcept { return *at->tensor; }
    walker& operator++() noexcept {
      ++at;
      return *this;
    }
    [[nodiscard]] bool operator!=(const walker& other) const noexcept { return at != other.at; }
  };
  struct all {
    const slot* first;
    const slot* last;
    [[nodiscard]] walker begin() const noexcept { return {first}; }
    [[nodiscard]] walker end() const noexcept { return {last}; }
  };

  sharded() = default;

  void sort() {
    by_name_.resize(tensors_.size());
    for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
    std::sort(by_name_.begin(), by_name_.end(),
              [&](std::size_t x, std::size_t y) { return tensors_[x].tensor->name() < tensors_[y].tensor->name(); });
  }

  std::string path_;
  std::vector<safetensors> shards_;
  std::vector<slot> tensors_;
  std::vector<std::size_t> by_name_;  // indices into tensors_
};

}  // namespace lora::inline v0::io

#endif
