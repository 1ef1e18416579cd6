// SPDX-License-Identifier: Apache-2.0
//
// safetensors: a strict reader of the safetensors format. The whole header is checked before anything can be asked; every tensor is then
// an any_view into the file's mapping, zero copy. It reads; it does not write, and it knows no adapters (io/peft.hpp).
//
//   auto file = lora::io::safetensors::open("model.safetensors");
//   lora::any_view w = file["fc1.weight"];
//   for (const auto& t : file.tensors()) std::printf("%.*s\n", int(t.name().size()), t.name().data());
//
// Accepted is what the format's README and its reference implementation (safetensors 0.8) both accept. On top of that are refused, by name:
//   - duplicate tensor names, and duplicate keys of __metadata__ (the reference keeps the last one);
//   - whitespace in front of the header's '{' (the README demands '{' as the first byte; the reference skips whitespace);
//   - __metadata__: null, a tensor's entry written as an array, a dtype written as an object (accidents of the reference's parser);
//   - more than 65536 keys of __metadata__, and more than 2^20 values in unknown fields: they would only take time;
//   - names that contain NUL, more than 8 dimensions, extents that do not fit a signed 64-bit index, and [0, 2^40, 2^40], whose strides
//     could not be formed although it is empty;
//   - BOOL bytes other than 0 and 1, because reading such a byte as a C++ bool is undefined.
// As in the reference: unknown fields of a tensor's entry are ignored, the JSON may be followed by JSON whitespace, tensors may be empty,
// rank 0 is one element, an offset may be any byte. A tensor whose address is not aligned for its elements is copied once at opening: see
// bytes_copied(). With placement::huge_pages all of them are, and the mapping is gone when open() returns:
//
//   auto base = lora::io::safetensors::open("model.safetensors", {.placement = lora::io::placement::huge_pages});
//
// The "(byte N)" of a message counts from the beginning of the file; for a fault in the JSON it is where reading stopped.
#ifndef LORA_IO_SAFETENSORS_HPP
#define LORA_IO_SAFETENSORS_HPP

#include <lora/core/bytes.hpp>
#include <lora/io/detail/safetensors_header.hpp>
#include <lora/io/mapped_file.hpp>
#include <lora/io/placement.hpp>

#include <algorithm>
#include <bit>
#include <memory>

namespace lora::inline v0::io {

static_assert(std::endian::native == std::endian::little, "lora: the readers of io/ are written for little-endian machines");

struct open_options {
  io::placement placement = io::placement::mapping;
};

/**
 * The table of one safetensors file. Move-only.
 *
 * @par Lifetime   Views and names are valid as long as this object, or, for the elements alone, as long as a copy of owner().
 * @par Threads    Any number of readers. Nothing changes after opening.
 */
class safetensors {
 public:
  /** One tensor: 64 bytes, pointing into the table and the file. */
  class tensor {
   public:
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] dtype type() const noexcept { return type_; }
    [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
    [[nodiscard]] const index_t* shape() const noexcept { return shape_; }
    /** Read-only, C order, aligned for its elements. */
    [[nodiscard]] any_view view() const { return any_view(data_, type_, shape_, rank_); }
    /** Where its bytes begin in the file. */
    [[nodiscard]] std::size_t offset() const noexcept { return offset_; }
    [[nodiscard]] std::size_t size_bytes() const noexcept { return size_; }

   private:
    friend class safetensors;
    std::string_view name_;
    const index_t* shape_ = nullptr;
    const void* data_ = nullptr;
    std::size_t offset_ = 0;
    std::size_t size_ = 0;
    dtype type_ = dtype::u8;
    std::uint8_t rank_ = 0;
  };

  struct metadata_entry {
    std::string_view key;
    std::string_view value;
  };

  /**
   * Maps and checks a file.
   * @throws io_error with one sentence that names the file, the tensor and the byte, when a rule is broken; or what mapped_file::open
   *         throws.
   *         std::bad_alloc.
   * @par Cost   The header is read once; of the tensors only those of BOOL type and those that must be copied are touched. With
   *             placement::huge_pages the whole file is read and copied here, so that no request waits for it; then the file may be changed or
   *             truncated without harm.
   */
  [[nodiscard]] static safetensors open(std::string path, const open_options& options = {}) {
    auto file = std::make_shared<const mapped_file>(mapped_file::open(std::move(path)));
    if (options.placement == placement::huge_pages) file->prefault();  // in one system call instead of a fault every few pages
    return parse(file->bytes(), file->path(), file, options);
  }

  /**
   * Checks bytes that are already in memory. `name` stands for the path in messages. `owner` keeps the bytes alive; when it is empty,
   * the caller does. With placement::huge_pages the bytes and `owner` are needed for the call only.
   * @throws io_error, std::bad_alloc as open().
   */
  [[nodiscard]] static safetensors parse(std::span<const std::byte> bytes, std::string name, std::shared_ptr<const void> owner = {},
                                         const open_options& options = {}) {
    safetensors file;
    file.path_ = std::move(name);
    file.owner_ = std::move(owner);
    detail::safetensors_records records;
    const std::size_t data_at = file.read_header(bytes, records);
    file.index_names(records);
    file.build_table(bytes, data_at, records);
    file.copy_tensors(bytes, options.placement == placement::huge_pages);
    return file;
  }

  safetensors(safetensors&&) noexcept = default;
  safetensors& operator=(safetensors&&) noexcept = default;

  /** In the order of their bytes in the file; empty tensors at one offset in the order of the header. */
  [[nodiscard]] std::span<const tensor> tensors() const& noexcept LORA_LIFETIMEBOUND { return tensors_; }
  std::span<const tensor> tensors() && = delete;

  /** The tensor of that name, or null. @par Cost  O(log n), one hash of the name. */
  [[nodiscard]] const tensor* find(std::string_view name) const& noexcept LORA_LIFETIMEBOUND {
    const std::uint64_t hash = hash_of(name);
    const auto at = std::lower_bound(index_.begin(), index_.end(), name, [&](const slot& s, std::string_view wanted) {
      return s.hash != hash ? s.hash < hash : tensors_[s.tensor].name_ < wanted;
    });
    return at != index_.end() && tensors_[at->tensor].name_ == name ? &tensors_[at->tensor] : nullptr;
  }
  const tensor* find(std::string_view name) && = delete;

  /** @throws io_error naming the file and the tensor when there is none of that name. */
  [[nodiscard]] any_view operator[](std::string_view name) const& LORA_LIFETIMEBOUND {
    const tensor* const t = find(name);
    if (t == nullptr) detail::raise<io_error>(detail::text() << detail::quote(path_) << ": there is no tensor " << detail::quote(name));
    return t->view();
  }
  any_view operator[](std::string_view name) && = delete;

  /** The strings of __metadata__ in the order of the file. */
  [[nodiscard]] std::span<const metadata_entry> metadata() const& noexcept LORA_LIFETIMEBOUND { return metadata_; }
  std::span<const metadata_entry> metadata() && = delete;

  /**
   * Bytes of the tensors that were copied: of all with placement::huge_pages, else of those that the file does not align, none in files of the
   * reference's writer.
   */
  [[nodiscard]] std::size_t bytes_copied() const noexcept { return bytes_copied_; }
  /** Keeps the elements of every tensor alive, the copied ones included. Empty after parse() without an owner and without a copy. */
  [[nodiscard]] std::shared_ptr<const void> owner() const noexcept { return owner_; }
  /** The path, or the name given to parse(). */
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

 private:
  static constexpr std::uint64_t max_header = 100'000'000;  // the limit of the reference

  struct slot {
    std::uint64_t hash;
    std::uint32_t tensor;
  };
  /** What owner() holds when tensors were copied: the copies beside whatever owns the rest. */
  struct copies {
    std::shared_ptr<const void> rest;
    aligned_bytes block;
  };

  safetensors() = default;

  // FNV-1a. Names are sorted by hash, then by text, and found by bisection: an input made to collide costs comparisons of texts, never a
  // walk over all that collide.
  [[nodiscard]] static std::uint64_t hash_of(std::string_view s) noexcept {
    std::uint64_t h = 0xcbf29ce484222325u;
    for (const char c : s) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return h;
  }

  [[nodiscard]] detail::text about_file() const noexcept { return detail::text() << detail::quote(path_) << ": "; }

  /** The length field and the JSON. Returns where the tensors' bytes begin. */
  std::size_t read_header(std::span<const std::byte> bytes, detail::safetensors_records& records) const {
    if (bytes.size() < 8)
      detail::refuse_at(about_file() << "a safetensors file begins with 8 bytes of length, this one has " << bytes.size(), 0);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length > max_header)
      detail::refuse_at(about_file() << "the header claims " << length << " bytes; at most " << max_header << " are allowed", 0);
    if (length > bytes.size() - 8)
      detail::refuse_at(
          about_file() << "the header claims " << length << " bytes, but the file has only " << bytes.size() - 8 << " after the length", 0);
    const auto header = bytes.subspan(8, static_cast<std::size_t>(length));
    if (length == 0 || header[0] != std::byte{'{'}) detail::refuse_at(about_file() << "the header does not begin with '{'", 8);
    detail::safetensors_header events(path_, 8, records);
    if (const detail::json_failure f = detail::parse_json(header, events))
      detail::refuse_at(about_file() << "the header " << f.sentence, 8 + f.position);
    return 8 + static_cast<std::size_t>(length);
  }

  /** Sorts the records by offset, fills the index, refuses names and metadata keys that occur twice. */
  void index_names(detail::safetensors_records& records) {
    std::vector<detail::tensor_record>& all = records.tensors;
    std::sort(all.begin(), all.end(), [](const detail::tensor_record& a, const detail::tensor_record& b) {
      if (a.begin != b.begin) return a.begin < b.begin;
      return a.end != b.end ? a.end < b.end : a.position < b.position;
    });
    index_.reserve(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) index_.push_back({hash_of(records.name_of(all[i])), static_cast<std::uint32_t>(i)});
    const auto name = [&](const slot& s) { return records.name_of(all[s.tensor]); };
    std::sort(index_.begin(), index_.end(), [&](const slot& a, const slot& b) {
      if (a.hash != b.hash) return a.hash < b.hash;
      if (const int order = name(a).compare(name(b)); order != 0) return order < 0;
      return all[a.tensor].position < all[b.tensor].position;
    });
    for (std::size_t i = 1; i < index_.size(); ++i)
      if (index_[i - 1].hash == index_[i].hash && name(index_[i - 1]) == name(index_[i]))
        detail::refuse_at(detail::about_tensor(path_, name(index_[i])) << "the name occurs twice in the header",
                          8 + std::size_t{all[index_[i].tensor].position});

    metadata_.reserve(records.metadata.size());
    for (const auto& m : records.metadata)
      metadata_.push_back({records.text_at(m.key_at, m.key_size), records.text_at(m.value_at, m.value_size)});
    std::vector<std::uint32_t> order(metadata_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return metadata_[a].key < metadata_[b].key; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (metadata_[order[i - 1]].key == metadata_[order[i]].key)
        detail::refuse_at(about_file() << "the key " << detail::quote(metadata_[order[i]].key) << " occurs twice in __metadata__", 8);
  }

  /** Bytes that the tensor's shape and dtype need; refuses what overflows or ends inside a byte. */
  [[nodiscard]] std::uint64_t bytes_needed(const detail::safetensors_records& records, const detail::tensor_record& r) const {
    const index_t* const shape = records.extents.data() + r.shape_at;
    const std::size_t byte = 8 + std::size_t{r.position};
    std::uint64_t bits = 1;
    for (std::size_t i = 0; i < r.rank; ++i)
      if (!checked_mul(bits, static_cast<std::uint64_t>(shape[i]), bits)) bits_overflow(records, r);
    if (!checked_mul(bits, std::uint64_t{bits_of(r.type)}, bits)) bits_overflow(records, r);
    if (!addressable(shape, r.rank, size_of(r.type) == 0 ? 1 : size_of(r.type))) bits_overflow(records, r);
    if (bits % 8 != 0)
      detail::refuse_at(detail::about_tensor(path_, records.name_of(r))
                            << "shape " << detail::shape_text{shape, r.rank} << " of " << name_of(r.type) << " does not fill whole bytes",
                        byte);
    return bits / 8;
  }
  [[noreturn]] void bits_overflow(const detail::safetensors_records& records, const detail::tensor_record& r) const {
    const detail::shape_text shape{records.extents.data() + r.shape_at, r.rank};
    detail::refuse_at(detail::about_tensor(path_, records.name_of(r))
                          << "shape " << shape << " of " << name_of(r.type) << " does not fit the address space",
                      8 + std::size_t{r.position});
  }

  /** The rules that tie the tensors to each other and to the file: no hole, no overlap, every byte accounted for. */
  void build_table(std::span<const std::byte> bytes, std::size_t data_at, detail::safetensors_records& records) {
    const std::uint64_t available = bytes.size() - data_at;
    std::uint64_t expected = 0;
    tensors_.reserve(records.tensors.size());
    for (const detail::tensor_record& r : records.tensors) {
      const std::string_view name = records.name_of(r);
      const std::size_t byte = 8 + std::size_t{r.position};
      if (r.end < r.begin)
        detail::refuse_at(detail::about_tensor(path_, name) << "its data_offsets run backwards: [" << r.begin << ", " << r.end << "]",
                          byte);
      if (r.begin != expected)
        detail::refuse_at(detail::about_tensor(path_, name) << "its data begin at offset " << r.begin << ", but the data before end at "
                                                            << expected << (r.begin < expected ? ": tensors overlap" : ": there is a hole"),
                          byte);
      const std::uint64_t needed = bytes_needed(records, r);
      const detail::shape_text shape{records.extents.data() + r.shape_at, r.rank};
      if (needed != r.end - r.begin)
        detail::refuse_at(detail::about_tensor(path_, name) << "shape " << shape << " of " << name_of(r.type) << " needs " << needed
                                                            << " bytes, but its data_offsets span " << r.end - r.begin,
                          byte);
      if (r.end > available)
        detail::refuse_at(detail::about_tensor(path_, name) << "its data end at offset " << r.end << ", but the file has only " << available
                                                            << " bytes of data: it is truncated",
                          byte);
      expected = r.end;
      tensor t;
      t.name_ = name;
      t.type_ = r.type;
      t.rank_ = r.rank;
      t.shape_ = shape.values;
      t.offset_ = data_at + static_cast<std::size_t>(r.begin);
      t.size_ = static_cast<std::size_t>(needed);
      t.data_ = bytes.data() + t.offset_;
      if (t.type_ == dtype::boolean) check_booleans(bytes, t);
      tensors_.push_back(t);
    }
    if (expected != available)
      detail::refuse_at(about_file() << available - expected << " bytes follow the last tensor",
                        data_at + static_cast<std::size_t>(expected));
    // The views into these two survive the move: a vector keeps its memory.
    characters_ = std::move(records.characters);
    extents_ = std::move(records.extents);
  }

  void check_booleans(std::span<const std::byte> bytes, const tensor& t) const {
    for (std::size_t i = 0; i < t.size_; ++i)
      if (bytes[t.offset_ + i] > std::byte{1})
        detail::refuse_at(detail::about_tensor(path_, t.name_)
                              << "a BOOL byte is " << static_cast<unsigned>(bytes[t.offset_ + i]) << ", neither 0 nor 1",
                          t.offset_ + i);
  }

  /** All tensors, or those whose elements the file does not align, into one block; each begins on a cache line there. */
  void copy_tensors(std::span<const std::byte> bytes, bool all) {
    const auto moves = [all](const tensor& t) { return all || reinterpret_cast<std::uintptr_t>(t.data_) % alignment_of(t.type_) != 0; };
    const auto padded = [](std::size_t size) { return (size + (allocation_alignment - 1)) / allocation_alignment * allocation_alignment; };
    std::size_t total = 0;  // at most the file and 64 bytes a tensor: the tensors do not overlap
    bool any = all;
    for (const tensor& t : tensors_)
      if (moves(t)) {
        total += padded(t.size_);
        any = true;
      }
    if (!any) return;
    auto made = std::make_shared<copies>(copies{all ? nullptr : owner_, aligned_bytes(total)});
    std::size_t at = 0;
    for (tensor& t : tensors_) {
      if (!moves(t)) continue;
      auto* const place = total == 0 ? nullptr : static_cast<std::byte*>(made->block.data()) + at;  // null only when all of them are empty
      if (t.size_ != 0) std::memcpy(place, bytes.data() + t.offset_, t.size_);
      t.data_ = place;
      at += padded(t.size_);
      bytes_copied_ += t.size_;
    }
    owner_ = std::move(made);
  }

  std::string path_;
  std::shared_ptr<const void> owner_;
  std::vector<char> characters_;
  std::vector<index_t> extents_;
  std::vector<tensor> tensors_;
  std::vector<slot> index_;
  std::vector<metadata_entry> metadata_;
  std::size_t bytes_copied_ = 0;
};

}  // namespace lora::inline v0::io

#endif
