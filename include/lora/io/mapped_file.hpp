// SPDX-License-Identifier: Apache-2.0
//
// mapped_file: a whole file as read-only memory, with one owner. The POSIX calls of the library live here alone. It knows nothing of
// formats: whether an empty or a very large file makes sense is for the reader above it to say.
//
//   auto file = std::make_shared<const lora::io::mapped_file>(lora::io::mapped_file::open("adapter_model.safetensors"));
//   std::span<const std::byte> bytes = file->bytes();
//
// The bytes are those of the file, not a copy. Replacing the file by rename, or unlinking it, leaves the mapping as it was; writing
// into the file changes the bytes under every reader, and truncating it turns an access beyond the new end into SIGBUS. Writers that
// publish by rename are safe; others are not, and nothing here can make them so.
#ifndef LORA_IO_MAPPED_FILE_HPP
#define LORA_IO_MAPPED_FILE_HPP

#include <lora/core/error.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lora::inline v0::detail {

// strerror_r returns int (POSIX) or char* (GNU) depending on feature macros that belong to the user; overloads take either.
[[nodiscard]] inline const char* strerror_text(int result, const char* buffer) noexcept { return result == 0 ? buffer : "unknown error"; }
[[nodiscard]] inline const char* strerror_text(const char* result, const char*) noexcept { return result; }

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_system(const char* operation, const std::string& path, int code) {
  char buffer[128] = {};
  text t;
  t << quote(path) << ": " << operation << ": " << strerror_text(::strerror_r(code, buffer, sizeof buffer), buffer);
  raise<io_error>(t);
}

/** Closes on every way out, the throwing ones included. */
class file_descriptor {
 public:
  explicit file_descriptor(int value) noexcept : value_(value) {}
  file_descriptor(const file_descriptor&) = delete;
  file_descriptor& operator=(const file_descriptor&) = delete;
  ~file_descriptor() { ::close(value_); }
  [[nodiscard]] int get() const noexcept { return value_; }

 private:
  int value_;
};

[[nodiscard]] inline const char* kind_of_file(mode_t mode) noexcept {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "something else";
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * A read-only mapping of one regular file. Move-only; formats share it as std::shared_ptr<const mapped_file>.
 *
 * @par Threads   Any number of readers. Moving and destroying need the object to themselves.
 */
class mapped_file {
 public:
  mapped_file() noexcept = default;

  /**
   * Maps the file as long as it is now. Symbolic links are followed. An empty file gives an empty span.
   *
   * @throws io_error naming the path, the operation and the system's words, when the file cannot be opened or mapped; or naming what it
   *         is, when it is not a regular file. A FIFO or a device is refused at once: it is opened without waiting.
   * @par Cost   A few system calls, whatever the size; pages are read when they are first touched.
   */
  [[nodiscard]] static mapped_file open(std::string path) {
    // An embedded NUL would silently open another file.
    if (path.find('\0') != std::string::npos)
      detail::raise<io_error>(detail::text() << detail::quote(path) << ": a path cannot contain a NUL byte");
    // O_NONBLOCK: opening a FIFO without a writer would wait for ever. O_NOCTTY: a terminal must not become ours.
    int raw = -1;
    do {
      raw = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    } while (raw < 0 && errno == EINTR);
    if (raw < 0) detail::raise_system("cannot open", path, errno);
    const detail::file_descriptor fd(raw);

    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) detail::raise_system("cannot read its status (fstat)", path, errno);
    if (!S_ISREG(status.st_mode))
      detail::raise<io_error>(detail::text() << detail::quote(path) << ": is " << detail::kind_of_file(status.st_mode)
                                             << ", not a regular file");
    if (status.st_size < 0 || static_cast<std::uintmax_t>(status.st_size) > static_cast<std::uintmax_t>(PTRDIFF_MAX))
      detail::raise<io_error>(detail::text() << detail::quote(path) << ": its size does not fit the address space");

    mapped_file file;
    file.path_ = std::move(path);
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size != 0) {  // mmap refuses a length of 0
      void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
      if (data == MAP_FAILED) detail::raise_system("cannot map (mmap)", file.path_, errno);
      file.data_ = static_cast<const std::byte*>(data);
      file.size_ = size;
    }
    return file;
  }

  mapped_file(mapped_file&& other) noexcept
      : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    if (this != &other) {
      unmap();
      path_ = std::move(other.path_);
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file() { unmap(); }

  /** The whole file; page-aligned; empty for an empty file or an object that was moved from. Valid as long as this object. */
  [[nodiscard]] std::span<const std::byte> bytes() const& noexcept LORA_LIFETIMEBOUND { return {data_, size_}; }
  std::span<const std::byte> bytes() && = delete;
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /** As it was given to open(). */
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

  /**
   * Asks the system to read the file now, so that the first use does not wait for the disk. A hint: where it is not supported, or
   * fails, the pages are read when they are touched.
   */
  void prefault() const noexcept {
    if (size_ == 0) return;
    void* const data = const_cast<std::byte*>(data_);
#if defined(MADV_POPULATE_READ)
    if (::madvise(data, size_, MADV_POPULATE_READ) == 0) return;  // Linux 5.14: also maps the pages, so that no fault is left
#endif
#if defined(MADV_WILLNEED)
    (void)::madvise(data, size_, MADV_WILLNEED);
#endif
  }

 private:
  void unmap() noexcept {
    if (size_ != 0) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lora::inline v0::io

#endif
