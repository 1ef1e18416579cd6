// SPDX-License-Identifier: Apache-2.0
//
// The JSON header of a safetensors file: its grammar (which events may come where) and the compact records it is turned into. What the
// records must satisfy together (offsets, sizes, unique names) is checked in io/safetensors.hpp. Not API.
//
// Grammar: one object; each key but "__metadata__" names a tensor whose value is an object with exactly one dtype (string, one of 22),
// one shape (array of at most 8 integers) and one data_offsets (array of two integers). Integers are written without sign, point and
// exponent. Other fields of a tensor's object are skipped whatever they hold, as the reference does. "__metadata__" is an object
// of strings. Keys are compared after unescaping.
#ifndef LORA_IO_DETAIL_SAFETENSORS_HEADER_HPP
#define LORA_IO_DETAIL_SAFETENSORS_HEADER_HPP

#include <lora/core/dtype.hpp>
#include <lora/io/detail/json.hpp>
#include <lora/nd/any_view.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora::inline v0::detail {

/** One tensor as the header states it. Positions fit 32 bits, because the header is at most 100,000,000 bytes long. */
struct tensor_record {
  std::uint64_t begin;  // data_offsets: from the first byte behind the header
  std::uint64_t end;
  std::uint32_t name_at;  // in safetensors_records::characters
  std::uint32_t name_size;
  std::uint32_t shape_at;  // in safetensors_records::extents
  std::uint32_t position;  // in the header, for messages: just behind the name
  dtype type;
  std::uint8_t rank;
};

struct metadata_record {
  std::uint32_t key_at, key_size, value_at, value_size;
};

struct safetensors_records {
  std::vector<char> characters;  // names, metadata keys and values, one after the other
  std::vector<index_t> extents;
  std::vector<tensor_record> tensors;
  std::vector<metadata_record> metadata;

  [[nodiscard]] std::string_view text_at(std::uint32_t at, std::uint32_t size) const noexcept { return {characters.data() + at, size}; }
  [[nodiscard]] std::string_view name_of(const tensor_record& r) const noexcept { return text_at(r.name_at, r.name_size); }
};

/** "'file': tensor 'name': ", to be followed by what is wrong. */
[[nodiscard]] inline text about_tensor(std::string_view file, std::string_view name) noexcept {
  text t;
  t << quote(file) << ": tensor " << quote(name) << ": ";
  return t;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void refuse_at(text t, std::size_t byte) {
  t << " (byte " << byte << ")";
  raise<io_error>(t);
}

[[nodiscard]] inline bool dtype_from_safetensors(std::string_view name, dtype& out) noexcept {
  for (std::size_t i = 0; i < dtype_count; ++i)
    if (name == dtype_table[i].safetensors_name) {
      out = static_cast<dtype>(i);
      return true;
    }
  return false;
}

class safetensors_header final : public json_events {
 public:
  /** `first_byte` is where the JSON begins in the file. Both references must outlive the object. */
  safetensors_header(std::string_view file, std::size_t first_byte, safetensors_records& out)
      : file_(file), first_byte_(first_byte), out_(out) {}

  void null() override { scalar("null"); }
  void boolean(bool) override { scalar("a boolean"); }
  void number(double, bool) override { scalar("a number that is not a plain unsigned 64-bit integer"); }

  void natural(std::uint64_t value) override {
    switch (place_) {
      case place::shape:
        if (record_.rank == max_rank) refuse_tensor("its shape has more than 8 dimensions, the most that are supported");
        if (value > static_cast<std::uint64_t>(PTRDIFF_MAX)) refuse_tensor("a dimension of its shape does not fit a signed 64-bit index");
        out_.extents.push_back(static_cast<index_t>(value));
        ++record_.rank;
        return;
      case place::offsets:
        if (offsets_ == 2) refuse_tensor("its data_offsets have more than two numbers");
        (offsets_++ == 0 ? record_.begin : record_.end) = value;
        return;
      default:
        scalar("a number");
    }
  }

  void string(std::string& value) override {
    if (place_ == place::metadata) {
      out_.metadata.back().value_at = keep(value);
      out_.metadata.back().value_size = static_cast<std::uint32_t>(value.size());
    } else if (place_ == place::entry && field_ == field_dtype) {
      if (!dtype_from_safetensors(value, record_.type)) {
        text t = about_tensor(file_, name_);
        t << "its dtype " << quote(value) << " is not one of the 22 of the format";
        refuse_at(t, byte());
      }
    } else {
      scalar("a string");
    }
  }

  void key(std::string& value) override {
    if (place_ == place::metadata) {
      if (out_.metadata.size() == most_metadata) refuse_header("__metadata__ has more than 65536 keys");
      metadata_record m{};
      m.key_at = keep(value);
      m.key_size = static_cast<std::uint32_t>(value.size());
      out_.metadata.push_back(m);
    } else if (place_ == place::entry) {
      field_ = value == "dtype" ? field_dtype : value == "shape" ? field_shape : value == "data_offsets" ? field_offsets : field_other;
      if ((seen_ & field_) != 0 && field_ != field_other) {
        text t = about_tensor(file_, name_);
        t << "its field " << quote(value) << " occurs twice";
        refuse_at(t, byte());
      }
      seen_ |= field_;
    } else if (place_ == place::top) {
      begin_top_value(value);
    }  // place::skipped: keys inside an unknown field mean nothing
  }

  void open(bool object) override {
    switch (place_) {
      case place::start:
        if (!object) refuse_header("the header is a JSON array, not an object");
        place_ = place::top;
        return;
      case place::top:
        if (!object) scalar("an array");
        place_ = metadata_open_ ? place::metadata : place::entry;
        return;
      case place::entry:
        if (field_ == field_other) {
          place_ = place::skipped;
          skip_depth_ = 1;
          return;
        }
        if (object || field_ == field_dtype) scalar(object ? "an object" : "an array");
        place_ = field_ == field_shape ? place::shape : place::offsets;
        return;
      case place::skipped:
        ++skip_depth_;
        return skip();
      default:
        scalar(object ? "an object" : "an array");
    }
  }

  void close(bool) override {
    switch (place_) {
      case place::top:
        place_ = place::start;
        return;  // nothing can follow: the parser takes one value
      case place::metadata:
        place_ = place::top;
        return;
      case place::entry:
        end_entry();
        return;
      case place::shape:
        place_ = place::entry;
        return;
      case place::offsets:
        if (offsets_ != 2) refuse_tensor("its data_offsets have fewer than two numbers");
        place_ = place::entry;
        return;
      case place::skipped:
        if (--skip_depth_ == 0) place_ = place::entry;
        return;
      case place::start:
        return;
    }
  }

 private:
  enum class place : unsigned char { start, top, metadata, entry, shape, offsets, skipped };
  enum field : unsigned char { field_other = 1, field_dtype = 2, field_shape = 4, field_offsets = 8 };

  // Files have some ten keys of metadata and no unknown fields; 100 MB of either took seconds to read and to compare.
  static constexpr std::size_t most_metadata = std::size_t{1} << 16;
  static constexpr std::size_t most_skipped = std::size_t{1} << 20;

  void skip() {
    if (++skipped_ > most_skipped)
      refuse_tensor("its fields that the format does not have hold more than 1048576 values, with those before");
  }

  [[nodiscard]] std::size_t byte() const noexcept { return first_byte_ + position(); }

  [[noreturn]] void refuse_header(const char* sentence) {
    text t;
    t << quote(file_) << ": " << sentence;
    refuse_at(t, byte());
  }
  [[noreturn]] void refuse_tensor(const char* sentence) {
    text t = about_tensor(file_, name_);
    t << sentence;
    refuse_at(t, byte());
  }

  /** A value that stands where it may not; returns only inside a field that is skipped. */
  void scalar(const char* what) {
    text t;
    switch (place_) {
      case place::skipped:
        return skip();
      case place::entry:
        if (field_ == field_other) return skip();
        t = about_tensor(file_, name_);
        t << "its "
          << (field_ == field_dtype   ? "dtype is "
              : field_ == field_shape ? "shape is "
                                      : "data_offsets are ")
          << what << ", not " << (field_ == field_dtype ? "a string" : "an array of integers");
        break;
      case place::shape:
      case place::offsets:
        t = about_tensor(file_, name_);
        t << "its " << (place_ == place::shape ? "shape holds " : "data_offsets hold ") << what << " where an unsigned integer belongs";
        break;
      case place::start:
        t << quote(file_) << ": the header is " << what << ", not a JSON object";
        break;
      case place::metadata:
        t << quote(file_) << ": __metadata__ holds " << what << "; its values are strings (a tensor cannot have that name)";
        break;
      case place::top:
        if (metadata_open_) {
          t << quote(file_) << ": __metadata__ is " << what << ", not an object of strings";
        } else {
          t = about_tensor(file_, name_);
          t << "its entry is " << what << ", not an object";
        }
        break;
    }
    refuse_at(t, byte());
  }

  void begin_top_value(const std::string& name) {
    metadata_open_ = name == "__metadata__";
    if (metadata_open_) {
      if (metadata_seen_) refuse_header("the key __metadata__ occurs twice");
      metadata_seen_ = true;
      return;
    }
    name_ = name;
    // C programs, and every log, would see another name than the one that was checked.
    if (name.find('\0') != std::string::npos) refuse_tensor("its name contains a NUL");
    record_ = tensor_record{};
    record_.name_at = keep(name);
    record_.name_size = static_cast<std::uint32_t>(name.size());
    record_.shape_at = static_cast<std::uint32_t>(out_.extents.size());
    record_.position = static_cast<std::uint32_t>(position());
    seen_ = 0;
    offsets_ = 0;
  }

  void end_entry() {
    if ((seen_ & field_dtype) == 0) refuse_tensor("it has no dtype");
    if ((seen_ & field_shape) == 0) refuse_tensor("it has no shape");
    if ((seen_ & field_offsets) == 0) refuse_tensor("it has no data_offsets");
    out_.tensors.push_back(record_);
    place_ = place::top;
  }

  std::uint32_t keep(const std::string& s) {
    const std::size_t at = out_.characters.size();
    out_.characters.insert(out_.characters.end(), s.begin(), s.end());
    return static_cast<std::uint32_t>(at);
  }

  std::string_view file_;
  std::size_t first_byte_;
  safetensors_records& out_;
  tensor_record record_{};
  std::string name_;
  place place_ = place::start;
  field field_ = field_other;
  unsigned seen_ = 0;
  unsigned offsets_ = 0;
  std::size_t skip_depth_ = 0;
  std::size_t skipped_ = 0;  // values, in the whole header
  bool metadata_open_ = false;
  bool metadata_seen_ = false;
};

}  // namespace lora::inline v0::detail

#endif
