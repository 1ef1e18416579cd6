// SPDX-License-Identifier: Apache-2.0
//
// atomic_file: a file that appears under its name whole, or not at all. Bytes go to a new file in the same folder; commit() brings them
// to the disk and renames. A reader, or a crash, sees the old file or the new one. A file that is there already keeps its permissions, and where
// the name is a link, what it leads to is replaced. Not API.
//
//   detail::atomic_file file("x.npy");  file.write(bytes, size);  file.commit();
#ifndef LORA_IO_DETAIL_ATOMIC_FILE_HPP
#define LORA_IO_DETAIL_ATOMIC_FILE_HPP

#include <lora/io/mapped_file.hpp>

#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace lora::inline v0::detail {

class atomic_file {
 public:
  /** @throws io_error when the new file cannot be made. */
  explicit atomic_file(std::string path) : path_(std::move(path)) {
    if (path_.find('\0') != std::string::npos) raise<io_error>(text() << quote(path_) << ": a path cannot contain a NUL byte");
    if (char* const real = ::realpath(path_.c_str(), nullptr)) {  // null where nothing is there yet
      target_ = real;
      std::free(real);
    } else {
      target_ = path_;
    }
    const std::size_t slash = target_.rfind('/');
    const std::string folder = slash == std::string::npos ? std::string() : target_.substr(0, slash + 1);
    struct timespec now {};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    // Names collide only with what another process left behind; O_EXCL notices, and the next number is tried.
    auto number = static_cast<unsigned long>(now.tv_nsec);
    for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt, ++number) {
      temporary_ = folder + ".lora-" + std::to_string(::getpid()) + "-" + std::to_string(number) + ".tmp";
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ < 0 && errno != EEXIST && errno != EINTR) break;
    }
    if (descriptor_ < 0) {
      const int code = errno;
      temporary_.clear();
      raise_system("cannot create a file beside it", path_, code);
    }
    struct stat old {};
    if (::stat(target_.c_str(), &old) == 0 && ::fchmod(descriptor_, old.st_mode & 07777) != 0) fail("cannot keep its permissions", errno);
  }
  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;
  ~atomic_file() { discard(); }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /** Bytes written so far. */
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /** Appends. @throws io_error; the new file is then gone. */
  void write(const void* data, std::size_t size) {
    write_at(data, size, size_);
    size_ += size;
  }

  /** Overwrites bytes that were written before. */
  void write_at(const void* data, std::size_t size, std::size_t at) {
    const auto* p = static_cast<const char*>(data);
    while (size != 0) {
      const ::ssize_t n = ::pwrite(descriptor_, p, size, static_cast<::off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("cannot write", n < 0 ? errno : ENOSPC);
      p += n;
      at += static_cast<std::size_t>(n);
      size -= static_cast<std::size_t>(n);
    }
  }

  /** To the disk, and under its name. @throws io_error; the old file, if any, is then still there. */
  void commit() {
    if (::fsync(descriptor_) != 0) fail("cannot bring to the disk (fsync)", errno);
    const int closed = ::close(std::exchange(descriptor_, -1));
    if (closed != 0 && errno != EINTR) fail("cannot close", errno);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot rename the finished file to it", errno);
    temporary_.clear();
    // The name itself is on the disk only when the folder is. A file system that cannot do that is no reason to fail: the file is whole.
    const std::size_t slash = target_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : target_.substr(0, slash + 1);
    const int raw = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (raw < 0) return;
    const file_descriptor fd(raw);
    (void)::fsync(fd.get());
  }

 private:
  [[noreturn]] void fail(const char* operation, int code) {
    discard();  // here, not only in the destructor: without exceptions nothing is unwound
    raise_system(operation, path_, code);
  }
  void discard() noexcept {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }

  std::string path_;
  std::string target_;  // path_, or where it leads
  std::string temporary_;
  int descriptor_ = -1;
  std::size_t size_ = 0;
};

/** Makes the folder unless it is there. */
inline void make_folder(const std::string& path) {
  if (path.find('\0') != std::string::npos) raise<io_error>(text() << quote(path) << ": a path cannot contain a NUL byte");
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) raise_system("cannot make the folder", path, errno);
}

}  // namespace lora::inline v0::detail

#endif
