// SPDX-License-Identifier: Apache-2.0
//
// gguf: a strict reader of the GGUF container, versions 2 and 3, little-endian. Everything in front of the tensors is checked before
// anything can be asked; every tensor is then an any_view into the file's mapping, zero copy. It knows no adapters: io/gguf_adapter.hpp.
//
//   auto file = lora::io::gguf::open("adapter.gguf");
//   std::string_view architecture = file.find("general.architecture")->text;
//   lora::any_view a = file.find_tensor("blk.0.attn_q.weight.lora_a")->view;    // [rank, in]: the order of extents is ours, not ggml's
//
// Accepted is what ggml's own reader accepts, less: quantised tensors (refused by name; their sizes are therefore not known, and a file
// that holds one is refused whole), arrays of arrays, names with a NUL, bools other than 0 and 1, an alignment that is not a multiple of 8,
// bytes behind the last tensor, more than 65536 keys or tensors, and headers of more than 100 MB.
#ifndef LORA_IO_GGUF_HPP
#define LORA_IO_GGUF_HPP

#include <lora/io/detail/gguf_cursor.hpp>
#include <lora/io/mapped_file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>

namespace lora::inline v0::io {

static_assert(std::endian::native == std::endian::little, "lora: the readers of io/ are written for little-endian machines");

/** The types of a value, with GGUF's own numbers. */
enum class gguf_type : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

/**
 * The table of one file. Move-only.
 *
 * @par Lifetime   Views, names and texts are valid as long as a copy of owner(), or, after parse() without an owner, as the bytes.
 * @par Threads    Any number of readers. Nothing changes after opening.
 */
class gguf {
 public:
  /** One key and its value. Arrays are checked and counted; their elements are not kept. */
  struct value {
    std::string_view key;
    std::string_view text;     ///< of a string
    double number = 0;         ///< of every other type; a 64-bit integer is rounded
    std::uint64_t count = 0;   ///< of an array
    std::uint32_t offset = 0;  ///< of the key in the file
    gguf_type type = gguf_type::u8;
    gguf_type element = gguf_type::u8;  ///< of an array
  };

  struct tensor {
    std::string_view name;
    any_view view;           ///< read-only, C order: ggml's extents in reverse
    std::size_t offset = 0;  ///< of its bytes in the file
  };

  /**
   * Maps and checks a file.
   * @throws io_error with one sentence that names the file, the key or tensor and the byte; or what mapped_file::open throws.
   * @par Cost   The header is read once; of the tensors nothing is touched.
   */
  [[nodiscard]] static gguf open(std::string path) {
    auto file = std::make_shared<const mapped_file>(mapped_file::open(std::move(path)));
    return parse(file->bytes(), file->path(), file);
  }

  /**
   * Checks bytes that are already in memory. `name` stands for the path in messages; `owner`, when given, keeps the bytes alive.
   * @pre bytes begin at a multiple of 8, or the views are unaligned: any_view::is_aligned() tells.
   * @throws io_error as open().
   */
  [[nodiscard]] static gguf parse(std::span<const std::byte> bytes, std::string name, std::shared_ptr<const void> owner = {}) {
    gguf file;
    file.path_ = std::move(name);
    file.owner_ = std::move(owner);
    file.read(bytes);
    return file;
  }

  gguf(gguf&&) noexcept = default;
  gguf& operator=(gguf&&) noexcept = default;

  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  /** Both in the order of the file. */
  [[nodiscard]] std::span<const value> values() const& noexcept LORA_LIFETIMEBOUND { return values_; }
  std::span<const value> values() && = delete;
  [[nodiscard]] std::span<const tensor> tensors() const& noexcept LORA_LIFETIMEBOUND { return tensors_; }
  std::span<const tensor> tensors() && = delete;

  /** Null when there is none of that name. @par Cost  O(log n) comparisons. */
  [[nodiscard]] const value* find(std::string_view key) const& noexcept LORA_LIFETIMEBOUND {
    return find_in(values_, by_key_, key, [](const value& v) { return v.key; });
  }
  const value* find(std::string_view key) && = delete;
  [[nodiscard]] const tensor* find_tensor(std::string_view name) const& noexcept LORA_LIFETIMEBOUND {
    return find_in(tensors_, by_name_, name, [](const tensor& t) { return t.name; });
  }
  const tensor* find_tensor(std::string_view name) && = delete;

  /** Keeps the elements alive. Empty after parse() without an owner. */
  [[nodiscard]] std::shared_ptr<const void> owner() const noexcept { return owner_; }
  /** The path, or the name given to parse(). */
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

 private:
  static constexpr std::uint64_t max_count = 65536;  // of keys, and of tensors: a large model has some two thousand

  gguf() = default;

  template <class Item, class Name>
  [[nodiscard]] static const Item* find_in(const std::vector<Item>& items, const std::vector<std::uint32_t>& order, std::string_view wanted,
                                           Name name) noexcept {
    const auto at =
        std::lower_bound(order.begin(), order.end(), wanted, [&](std::uint32_t i, std::string_view w) { return name(items[i]) < w; });
    return at != order.end() && name(items[*at]) == wanted ? &items[*at] : nullptr;
  }

  /** Sorts by name; refuses a name that occurs twice. */
  template <class Item, class Name>
  void index(const std::vector<Item>& items, std::vector<std::uint32_t>& order, const char* what, Name name) const {
    order.resize(items.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(), [&](std::uint32_t x, std::uint32_t y) {
      const int c = name(items[x]).compare(name(items[y]));
      return c != 0 ? c < 0 : x < y;
    });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (name(items[order[i]]) == name(items[order[i - 1]]))
        detail::refuse_at(
            detail::text() << detail::quote(path_) << ": the " << what << " " << detail::quote(name(items[order[i]])) << " occurs twice",
            items[order[i]].offset);
  }

  void read(std::span<const std::byte> bytes) {
    detail::gguf_cursor in(bytes, path_);
    const auto magic = in.take<std::uint32_t>("the magic number");
    if (magic != 0x46554747u) detail::refuse_at(in.about() << "it does not begin with 'GGUF'", 0);
    version_ = in.take<std::uint32_t>("the version");
    if ((version_ & 0xffffu) == 0 && version_ != 0) detail::refuse_at(in.about() << "it is big-endian, which is not supported", 4);
    if (version_ != 2 && version_ != 3)
      detail::refuse_at(in.about() << "it is of version " << version_ << "; versions 2 and 3 are supported", 4);
    const auto tensors = in.take<std::uint64_t>("the number of tensors");
    const auto keys = in.take<std::uint64_t>("the number of keys");
    if (tensors > max_count || keys > max_count)
      detail::refuse_at(
          in.about() << "it claims " << tensors << " tensors and " << keys << " keys; at most " << max_count << " of each are read", 8);
    // No more than the file can hold: a key takes at least 13 bytes, a tensor 25.
    values_.reserve(static_cast<std::size_t>(std::min(keys, in.left() / 13)));
    for (std::uint64_t i = 0; i < keys; ++i) read_value(in);
    index(values_, by_key_, "key", [](const value& v) { return v.key; });
    read_tensors(in, bytes, tensors);
    index(tensors_, by_name_, "tensor", [](const tensor& t) { return t.name; });
  }

  void read_value(detail::gguf_cursor& in) {
    value v;
    v.offset = static_cast<std::uint32_t>(in.position());  // at most 100 MB
    v.key = in.string("a key");
    if (v.key.empty()) detail::refuse_at(in.about() << "a key is empty", v.offset);
    v.type = read_type(in, v);
    if (v.type == gguf_type::string) {
      v.text = in.string("a value");
    } else if (v.type == gguf_type::array) {
      v.element = read_type(in, v);
      v.count = in.take<std::uint64_t>("the length of an array");
      if (v.element == gguf_type::array) refuse_key(in, v, "is an array of arrays, which is not supported");
      if (v.element == gguf_type::string) {
        // Each has at least its 8 bytes of length, so that the loop is bounded by the file.
        for (std::uint64_t i = 0; i < v.count; ++i) (void)in.string("an element of an array", false);
      } else {
        const std::byte* const p = in.skip_elements(v.count, size_of_type(v.element), "an array");
        if (v.element == gguf_type::boolean)
          for (std::uint64_t i = 0; i < v.count; ++i)
            if (p[i] > std::byte{1}) refuse_key(in, v, "holds a bool that is neither 0 nor 1");
      }
    } else {
      v.number = read_number(in, v.type);
      if (v.type == gguf_type::boolean && v.number > 1) refuse_key(in, v, "is a bool that is neither 0 nor 1");
    }
    values_.push_back(v);
  }

  [[noreturn]] static void refuse_key(const detail::gguf_cursor& in, const value& v, const char* sentence) {
    detail::refuse_at(in.about() << "the key " << detail::quote(v.key) << " " << sentence, v.offset);
  }

  [[nodiscard]] static gguf_type read_type(detail::gguf_cursor& in, const value& v) {
    const auto type = in.take<std::uint32_t>("the type of a value");
    if (type > static_cast<std::uint32_t>(gguf_type::f64)) refuse_key(in, v, "has a type that GGUF does not have");
    return static_cast<gguf_type>(type);
  }

  [[nodiscard]] static std::size_t size_of_type(gguf_type type) noexcept {
    constexpr std::uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[static_cast<std::size_t>(type)];
  }

  [[nodiscard]] static double read_number(detail::gguf_cursor& in, gguf_type type) {
    constexpr const char* what = "a value";
    switch (type) {
      case gguf_type::u8:
      case gguf_type::boolean:
        return in.take<std::uint8_t>(what);
      case gguf_type::i8:
        return in.take<std::int8_t>(what);
      case gguf_type::u16:
        return in.take<std::uint16_t>(what);
      case gguf_type::i16:
        return in.take<std::int16_t>(what);
      case gguf_type::u32:
        return in.take<std::uint32_t>(what);
      case gguf_type::i32:
        return in.take<std::int32_t>(what);
      case gguf_type::f32:
        return static_cast<double>(in.take<float>(what));
      case gguf_type::u64:
        return static_cast<double>(in.take<std::uint64_t>(what));
      case gguf_type::i64:
        return static_cast<double>(in.take<std::int64_t>(what));
      default:
        return in.take<double>(what);
    }
  }

  [[nodiscard]] std::uint64_t alignment(const detail::gguf_cursor& in) const {
    const value* const v = find("general.alignment");
    if (v == nullptr) return 32;
    const auto n = static_cast<std::uint64_t>(v->type == gguf_type::u32 ? v->number : 0);
    if (n < 8 || !std::has_single_bit(n)) refuse_key(in, *v, "is not a u32 that is a power of two and a multiple of 8");
    return n;
  }

  /** The names, shapes and places; then the rules that tie them to each other and to the file: no hole, no overlap, no byte left over. */
  void read_tensors(detail::gguf_cursor& in, std::span<const std::byte> bytes, std::uint64_t count) {
    const std::uint64_t step = alignment(in);
    std::uint64_t expected = 0;  // where the next tensor's bytes begin, from the first byte of data; grows by at most the file's size
    struct record {
      std::array<index_t, 4> shape{};
      std::size_t at = 0;
      std::uint64_t end = 0;
      std::uint32_t rank = 0;
      dtype type = dtype::f32;
    };
    std::vector<record> records;
    records.reserve(static_cast<std::size_t>(std::min(count, in.left() / 25)));
    tensors_.reserve(records.capacity());
    for (std::uint64_t i = 0; i < count; ++i) {
      record r;
      r.at = in.position();
      const std::string_view name = in.string("a tensor's name");
      const auto refuse = [&](const detail::text& problem) {
        detail::text t = detail::about_tensor(path_, name);
        t << problem.c_str();
        detail::refuse_at(t, r.at);
      };
      if (name.empty()) refuse(detail::text() << "it has no name");
      r.rank = in.take<std::uint32_t>("a tensor's shape");
      if (r.rank > 4) refuse(detail::text() << "it claims " << r.rank << " dimensions; ggml has at most 4");
      for (std::uint32_t axis = 0; axis < r.rank; ++axis) {
        const auto extent = in.take<std::uint64_t>("a tensor's shape");
        if (extent > static_cast<std::uint64_t>(PTRDIFF_MAX)) refuse(detail::text() << "a dimension does not fit a signed 64-bit index");
        r.shape[r.rank - 1 - axis] = static_cast<index_t>(extent);  // ggml counts from the fastest axis
      }
      const auto number = in.take<std::uint32_t>("a tensor's type");
      const auto offset = in.take<std::uint64_t>("a tensor's offset");
      if (!detail::plain_ggml_type(number, r.type)) {
        const char* const quantised = detail::quantised_ggml_type(number);
        if (quantised != nullptr) refuse(detail::text() << "it is quantised (" << quantised << "), which is not supported");
        refuse(detail::text() << "ggml has no type of number " << number);
      }
      const detail::shape_text text{r.shape.data(), r.rank};
      if (!addressable(r.shape.data(), r.rank, size_of(r.type)))
        refuse(detail::text() << "shape " << text << " does not fit the address space");
      if (offset != expected)
        refuse(detail::text() << "its data begin at offset " << offset << ", but belong at " << expected
                              << (offset < expected ? ": tensors overlap, or it is not aligned" : ": there is a hole"));
      const auto size = static_cast<std::uint64_t>(detail::product(r.shape.data(), r.rank)) * size_of(r.type);
      // Not more than the file: what the data need is compared with what there is below, when it is known where they begin.
      if (size > bytes.size() || expected + size > bytes.size())
        refuse(detail::text() << "shape " << text << " of " << name_of(r.type) << " needs " << size
                              << " bytes, more than the file has: it is truncated");
      r.end = expected + size;
      expected = (expected + size + (step - 1)) / step * step;
      tensors_.push_back({name, {}, static_cast<std::size_t>(offset)});
      records.push_back(r);
    }
    const std::uint64_t data_at = count == 0 ? in.position() : (in.position() + (step - 1)) / step * step;
    const std::uint64_t available = data_at < bytes.size() ? bytes.size() - data_at : 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const record& r = records[i];
      if (r.end > available) {
        detail::text t = detail::about_tensor(path_, tensors_[i].name);
        t << "its data end at offset " << r.end << ", but the file has only " << available << " bytes of data: it is truncated";
        detail::refuse_at(t, r.at);
      }
      tensors_[i].offset += static_cast<std::size_t>(data_at);
      tensors_[i].view = any_view(bytes.data() + tensors_[i].offset, r.type, r.shape.data(), r.rank);
    }
    if (available > expected)  // writers pad the last tensor as well, or leave it as it is
      detail::refuse_at(in.about() << available - expected << " bytes follow the last tensor",
                        static_cast<std::size_t>(data_at + expected));
  }

  std::string path_;
  std::shared_ptr<const void> owner_;
  std::uint32_t version_ = 0;
  std::vector<value> values_;
  std::vector<tensor> tensors_;
  std::vector<std::uint32_t> by_key_;
  std::vector<std::uint32_t> by_name_;
};

}  // namespace lora::inline v0::io

#endif
