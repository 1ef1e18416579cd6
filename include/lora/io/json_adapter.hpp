// SPDX-License-Identifier: Apache-2.0
//
// load_json: one adapted module as plain JSON, for programs that can write nothing else:
//
//   {"rank": 2, "in_dim": 3, "out_dim": 2, "alpha": 4, "a": [1,0,0, 0,1,0], "b": [1,0, 0,1], "module": "fc1"}
//
//   auto loaded = lora::io::load_json("adapter.json", {.module = "fc1"});
//   lora::bound_adapter checked = lora::bind(loaded.adapter, model);
//
// "a" is A [rank, in_dim] and "b" is B [out_dim, rank], both row by row, rounded to f32 once. Without "alpha" (or with null) the scale
// is 1; with it, it is alpha / rank, so that 0 switches the adapter off. "module" may be left out: the caller then names the module, or
// lets place() take the model's only one of that shape. Refused: keys that occur twice, numbers that no f32 holds, lengths that are not
// the product of the dimensions, and keys outside this list that hold more than null, false, a string or nothing.
#ifndef LORA_IO_JSON_ADAPTER_HPP
#define LORA_IO_JSON_ADAPTER_HPP

#include <lora/adapter/contract.hpp>
#include <lora/core/bytes.hpp>
#include <lora/io/detail/factors.hpp>
#include <lora/io/detail/json.hpp>
#include <lora/io/mapped_file.hpp>

#include <algorithm>
#include <charconv>

namespace lora::inline v0::io {

struct json_options {
  std::string module;  ///< the module's name when the file has none; when it has one, they must agree
};

struct json_adapter {
  lora::adapter adapter;  ///< exactly one module, f32; its name is empty when neither the file nor the options gave one
  bool has_alpha = false;
  double alpha = 0;                         ///< as written; meaningless without has_alpha
  std::vector<std::string> unknown_fields;  ///< outside the protocol, accepted because they hold nothing, or a text

  /** Gives a nameless module the name of the model's only module [out_dim, in_dim]. @throws bind_error when there is none, or several. */
  void place(const model_contract& model) {
    adapted_module& m = adapter.modules.front();
    if (!m.name.empty()) return;
    const index_t shape[2] = {m.weights.b.extent(0), m.weights.a.extent(1)};
    std::size_t found = 0;
    for (std::size_t i = 0; i < model.size(); ++i)
      if (model[i].out == shape[0] && model[i].in == shape[1]) {
        if (found++ == 0) m.name = model[i].name;
      }
    if (found == 1) return;
    m.name.clear();
    detail::text t;
    t << "adapter " << detail::quote(adapter.source) << ": it names no module, and the model has " << found << " modules of shape "
      << detail::shape_text{shape, 2};
    detail::raise<bind_error>(t);
  }

  /**
   * @param bytes  the JSON text; not needed afterwards
   * @param name   stands for the path in messages
   * @throws io_error with one sentence naming the file, the key and the byte.
   * @par Cost  One pass. Memory: 4 bytes for each number of "a" and "b", allocated once, and the longest other string.
   */
  [[nodiscard]] static json_adapter parse(std::span<const std::byte> bytes, const std::string& name, const json_options& options = {});
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/**
 * The float nearest to what was written. `value` is the double nearest to it; rounding that once more is right unless it lies exactly
 * between two floats, where only the digits know the side.
 */
[[nodiscard]] inline float narrowed(double value, const std::string& digits) {
  const auto f = static_cast<float>(value);
  const double back = f;
  if (back == value) return f;
  // At the upper end `f` is infinite and its neighbour FLT_MAX; the point between is then half a step above FLT_MAX.
  const float other = std::nextafter(f, value > back ? INFINITY : -INFINITY);
  const auto place = [](float x) { return std::isinf(x) ? std::copysign(0x1p128, static_cast<double>(x)) : static_cast<double>(x); };
  if (place(f) - value != value - place(other)) return f;
  std::string plain = digits;
  for (char& c : plain)
    if (!(c >= '0' && c <= '9') && c != '-' && c != '+' && c != 'e' && c != 'E') c = '.';
  float exact = 0;
  const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), exact);
  if (result.ec == std::errc()) return exact;
  return std::abs(value) > 1 ? static_cast<float>(std::copysign(INFINITY, value)) : static_cast<float>(std::copysign(0.0, value));
}

class json_adapter_reader final : public json_events {
 public:
  struct matrix {
    aligned_bytes block;
    std::size_t size = 0;  // numbers read
    std::size_t capacity = 0;
  };

  json_adapter_reader(std::span<const std::byte> bytes, const std::string& file, io::json_adapter& out)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), file_(file), out_(out) {}

  void null() override {
    if (depth_ == 1 && field_ == alpha) return;  // as if it were not there
    other(depth_ > 1);
  }
  void boolean(bool value) override { other(value || depth_ > 1); }
  void natural(std::uint64_t value) override {
    if (depth_ == 2 && in_matrix()) return store(static_cast<float>(value));
    if (depth_ != 1) return other(true);
    if (field_ == alpha) return set_alpha(static_cast<double>(value));
    if (field_ != rank && field_ != in_dim && field_ != out_dim) return other(true);
    // 2^29: what keeps alpha = scale * rank exact in a double; far above any matrix that fits into JSON.
    if (value == 0 || value > (std::uint64_t{1} << (field_ == rank ? 29 : 62)))
      refuse_field("is not a dimension, an integer of at least 1");
    dims_[field_ - rank] = static_cast<index_t>(value);
    if (matrices_[a].capacity != 0) check_length(a, matrices_[a].size);
    if (matrices_[b].capacity != 0) check_length(b, matrices_[b].size);
  }
  void number(double value, bool integer) override {
    if (depth_ == 2 && in_matrix()) return store(integer ? from_negative() : narrowed(value, number_text()));
    if (depth_ == 1 && field_ == alpha) return set_alpha(value);
    other(true);
  }
  void string(std::string& value) override {
    if (depth_ == 1 && field_ == module) {
      if (value.empty()) refuse_field("is empty");
      if (value.find('\0') != std::string::npos) refuse_field("contains a NUL");
      module_ = std::move(value);
      return;
    }
    if (depth_ == 1 && field_ == unknown) return;
    other(true);
  }
  void key(std::string& name) override {
    if (depth_ != 1) return other(true);
    name_ = std::move(name);
    field_ = unknown;
    for (int i = 0; i < unknown; ++i)
      if (name_ == names[i]) field_ = static_cast<field>(i);
    if (field_ == unknown) {
      if (out_.unknown_fields.size() == 1000) refuse("it has more than 1000 keys outside the protocol");
      out_.unknown_fields.push_back(name_);
      return;
    }
    if (seen_[field_]) refuse_field("occurs twice");
    seen_[field_] = true;
  }
  void open(bool object) override {
    if (depth_ == 0 && !object) refuse("the adapter is a JSON array, not an object");
    if (depth_ == 1 && field_ <= b) {
      if (object) refuse_field("is an object, not an array of numbers");
      begin_matrix();
    } else if (depth_ == 2 || (depth_ == 1 && field_ != unknown)) {
      other(true);
    }
    ++depth_;
  }
  void close(bool) override { --depth_; }

  /** The checks that need everything; then hands A and B over. */
  void finish(const io::json_options& options) {
    for (const field f : {a, b, rank, in_dim, out_dim})
      if (!seen_[f]) raise<io_error>(text() << quote(file_) << ": the key '" << names[f] << "' is missing");
    check_length(a, matrices_[a].size);
    check_length(b, matrices_[b].size);
    std::vector<std::string_view> unknowns(out_.unknown_fields.begin(), out_.unknown_fields.end());
    std::sort(unknowns.begin(), unknowns.end());
    for (std::size_t i = 1; i < unknowns.size(); ++i)
      if (unknowns[i - 1] == unknowns[i]) raise<io_error>(text() << quote(file_) << ": the key " << quote(unknowns[i]) << " occurs twice");
    if (!module_.empty() && !options.module.empty() && module_ != options.module)
      raise<io_error>(text() << quote(file_) << ": it is for the module " << quote(module_) << ", not for " << quote(options.module));

    struct blocks {
      aligned_bytes a, b;
    };
    auto owner = std::make_shared<blocks>(blocks{std::move(matrices_[a].block), std::move(matrices_[b].block)});
    const index_t shape_a[2] = {dims_[0], dims_[1]};
    const index_t shape_b[2] = {dims_[2], dims_[0]};
    low_rank w{any_view(owner->a.data(), dtype::f32, shape_a, 2), any_view(owner->b.data(), dtype::f32, shape_b, 2), 1.0f};
    if (out_.has_alpha) w.scale = checked_scale(file_, module_, out_.alpha, dims_[0]);
    out_.adapter.modules.push_back({module_.empty() ? options.module : module_, w});
    out_.adapter.owner = std::move(owner);
  }

 private:
  enum field : unsigned char { a, b, rank, in_dim, out_dim, alpha, module, unknown };
  static constexpr const char* names[] = {"a", "b", "rank", "in_dim", "out_dim", "alpha", "module"};

  [[nodiscard]] bool in_matrix() const noexcept { return field_ <= b; }
  [[noreturn]] void refuse(const char* sentence) const { refuse_at(text() << quote(file_) << ": " << sentence, position()); }
  [[noreturn]] void refuse_field(const char* sentence) const {
    refuse_at(text() << quote(file_) << ": the key " << quote(name_) << " " << sentence, position());
  }

  /** Every value and place that is not one of the protocol's own; `set` unless it is null or false. */
  void other(bool set) const {
    if (depth_ == 0) refuse("the adapter is not a JSON object");
    if (field_ == unknown) {
      if (set) refuse_field("is none of the protocol, and it is set: it may change what the adapter computes");
      return;
    }
    if (in_matrix()) refuse_field(depth_ == 1 ? "is not an array of numbers" : "holds something that is not a number");
    refuse_field(field_ == module  ? "is not a string"
                 : field_ == alpha ? "is not a number"
                                   : "is not a dimension, an integer of at least 1");
  }

  /** "-0" comes as the integer 0. */
  [[nodiscard]] float from_negative() const noexcept { return negative() == 0 ? -0.0f : static_cast<float>(negative()); }

  void set_alpha(double value) {
    out_.has_alpha = true;
    out_.alpha = value;
  }

  /** Refuses a matrix as soon as its dimensions are known and its length is not their product. */
  void check_length(field which, std::size_t length) const {
    const index_t rows = which == a ? dims_[0] : dims_[2];
    const index_t columns = which == a ? dims_[1] : dims_[0];
    if (rows == 0 || columns == 0) return;
    std::uint64_t product = 0;
    if (checked_mul(static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), product) && product == length) return;
    text t;
    t << quote(file_) << ": the key '" << names[which] << "' holds " << length << " numbers, but "
      << (which == a ? "rank x in_dim" : "out_dim x rank") << " is " << rows << " x " << columns;
    refuse_at(t, position());
  }

  /** The commas up to the closing bracket say how many numbers there can be: one allocation, exact for every text that is accepted. */
  void begin_matrix() {
    const std::string_view rest = text_.substr(std::min(position(), text_.size()));
    const std::string_view inside = rest.substr(0, rest.find(']'));
    const bool empty = inside.find_first_not_of(" \t\r\n") == std::string_view::npos;
    const std::size_t numbers = empty ? 0 : static_cast<std::size_t>(std::count(inside.begin(), inside.end(), ',')) + 1;
    check_length(field_, numbers);
    std::size_t size_bytes = 0;
    if (!checked_mul(numbers, sizeof(float), size_bytes)) refuse_field("is too long");
    matrices_[field_].block = aligned_bytes(size_bytes);
    matrices_[field_].capacity = numbers;
  }

  void store(float value) {
    matrix& m = matrices_[field_];
    if (!std::isfinite(value)) refuse_field("holds a number that does not fit a float");
    if (m.size == m.capacity) refuse_field("holds something that is not a number");
    static_cast<float*>(m.block.data())[m.size++] = value;
  }

  std::string_view text_;
  const std::string& file_;
  io::json_adapter& out_;
  std::string name_;  // of the current key
  std::string module_;
  field field_ = unknown;
  std::size_t depth_ = 0;
  bool seen_[unknown] = {};
  index_t dims_[3] = {};  // rank, in_dim, out_dim; 0 until they are read
  matrix matrices_[2];
};

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

inline json_adapter json_adapter::parse(std::span<const std::byte> bytes, const std::string& name, const json_options& options) {
  json_adapter out;
  out.adapter.source = name;
  detail::json_adapter_reader reader(bytes, name, out);
  if (const detail::json_failure f = detail::parse_json(bytes, reader))
    detail::refuse_at(detail::text() << detail::quote(name) << ": the adapter " << f.sentence, f.position);
  reader.finish(options);
  return out;
}

/**
 * Reads a file of the protocol.
 * @throws io_error as json_adapter::parse, or what mapped_file::open throws.
 * @par Threads   Safe beside anything.
 */
[[nodiscard]] inline json_adapter load_json(const std::string& path, const json_options& options = {}) {
  const mapped_file file = mapped_file::open(path);
  return json_adapter::parse(file.bytes(), path, options);
}

}  // namespace lora::inline v0::io

#endif
