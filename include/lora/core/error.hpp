// SPDX-License-Identifier: Apache-2.0
//
// The exceptions of the library. Each carries one finished sentence that names the operation, both shapes, the index and axis, or
// the file, tensor and byte offset. There is no error code to look up. The text lives inside the exception: throwing one does not
// allocate, copying one cannot fail.
//
//   try { lora::copy(from, to); } catch (const lora::shape_error& e) { log(e.what()); }
//
// Under -fno-exceptions the same sentence goes to LORA_ERROR_HANDLER (config.hpp).
#ifndef LORA_CORE_ERROR_HPP
#define LORA_CORE_ERROR_HPP

#include <lora/core/text.hpp>

#include <exception>

namespace lora::inline v0 {

/** Base of everything the library throws itself (memory running out stays std::bad_alloc). */
class error : public std::exception {
 public:
  explicit error(const detail::text& message) noexcept : message_(message) {}
  explicit error(const char* message) noexcept { message_ << message; }
  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }

 private:
  detail::text message_;
};

/** Extents, strides or ranks that do not fit together. */
class shape_error : public error {
 public:
  using error::error;
};

/** An index or slice bound outside its axis. */
class index_error : public shape_error {
 public:
  using shape_error::shape_error;
};

/** An element type that the operation does not take. */
class dtype_error : public error {
 public:
  using error::error;
};

/** A value that an option or a parameter does not allow (a rank of 0, an alpha that is not finite). */
class value_error : public error {
 public:
  using error::error;
};

/** Bytes from outside that break the rules of their format; names the file and, where there is one, the tensor and the offset. */
class io_error : public error {
 public:
  using error::error;
};

/** An adapter that does not fit the model it is bound to. */
class bind_error : public error {
 public:
  using error::error;
};

namespace detail {

/**
 * The one way out of the library with an error. Cold and out of line, so that the checks in front of it cost a compare and a branch.
 * The parameter Throws only tags the symbol: files with and without exceptions must not share one body.
 */
template <class Error, bool Throws = static_cast<bool>(LORA_HAS_EXCEPTIONS)>
[[noreturn, gnu::cold, gnu::noinline]] void raise(const text& message) {
  LORA_THROW(Error(message));
}

}  // namespace detail
}  // namespace lora::inline v0

#endif
