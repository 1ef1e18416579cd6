// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <lora/io/mapped_file.hpp>

#include <doctest/doctest.h>

#include <type_traits>

#include <sys/stat.h>

namespace {

using lora::io::mapped_file;

std::string open_refusal(const std::string& path) {
  return test::refusal<lora::io_error>([&] { (void)mapped_file::open(path); });
}

std::string_view text_of(const mapped_file& f) { return {reinterpret_cast<const char*>(f.bytes().data()), f.size()}; }

}  // namespace

TEST_CASE("io/mapped_file: the bytes are those of the file") {
  const test::temporary_folder folder;
  for (const std::size_t size : {1u, 4095u, 4096u, 4097u, 100000u}) {
    std::string content(size, 'a');
    content.back() = 'z';
    const std::string path = folder.write("file", content);
    const mapped_file f = mapped_file::open(path);
    REQUIRE(f.size() == size);
    CHECK(text_of(f) == content);
    CHECK(f.path() == path);
    f.prefault();
    CHECK(text_of(f) == content);
  }
}

TEST_CASE("io/mapped_file: an empty file is an empty span") {
  const test::temporary_folder folder;
  const mapped_file f = mapped_file::open(folder.write("empty", ""));
  CHECK(f.bytes().empty());
  CHECK(f.size() == 0);
  f.prefault();
}

TEST_CASE("io/mapped_file: symbolic links are followed") {
  const test::temporary_folder folder;
  (void)folder.write("blobs/1234", "content");
  std::filesystem::create_symlink("blobs/1234", folder.path() + "/link");
  std::filesystem::create_symlink("link", folder.path() + "/link2");
  CHECK(text_of(mapped_file::open(folder.path() + "/link2")) == "content");

  std::filesystem::create_symlink("nowhere", folder.path() + "/dangling");
  CHECK(test::contains(open_refusal(folder.path() + "/dangling"), "dangling': cannot open: No such file"));
  std::filesystem::create_symlink("self", folder.path() + "/self");
  CHECK(test::contains(open_refusal(folder.path() + "/self"), "self': cannot open: "));
}

TEST_CASE("io/mapped_file: what is not a regular file is refused by name, without waiting") {
  const test::temporary_folder folder;
  const std::string fifo = folder.path() + "/fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(test::contains(open_refusal(fifo), "/fifo': is a FIFO, not a regular file"));
  CHECK(test::contains(open_refusal(folder.path()), "': is a directory, not a regular file"));
  CHECK(test::contains(open_refusal("/dev/null"), "'/dev/null': is a device, not a regular file"));
  CHECK(test::contains(open_refusal(folder.path() + "/missing"), "/missing': cannot open: No such file or directory"));
  const std::string with_nul = folder.write("file", "x") + std::string(1, '\0') + ".safetensors";
  CHECK(test::contains(open_refusal(with_nul), "a path cannot contain a NUL byte"));
  CHECK(test::contains(open_refusal(""), "'': cannot open: No such file"));
}

TEST_CASE("io/mapped_file: a mapping outlives the name of its file and moves with its bytes") {
  static_assert(!std::is_copy_constructible_v<mapped_file> && !std::is_copy_assignable_v<mapped_file>);
  static_assert(std::is_nothrow_move_constructible_v<mapped_file> && std::is_nothrow_move_assignable_v<mapped_file>);
  const test::temporary_folder folder;
  const std::string path = folder.write("a", "first");
  mapped_file a = mapped_file::open(path);
  const std::byte* const at = a.bytes().data();
  std::filesystem::remove(path);
  CHECK(text_of(a) == "first");

  mapped_file b = std::move(a);
  CHECK(b.bytes().data() == at);
  CHECK(a.bytes().empty());  // NOLINT(bugprone-use-after-move): the state is documented
  mapped_file c = mapped_file::open(folder.write("c", "second"));
  c = std::move(b);
  CHECK(text_of(c) == "first");
  CHECK(b.size() == 0);
  mapped_file& same = c;
  c = std::move(same);
  CHECK(text_of(c) == "first");
}

TEST_CASE("io/mapped_file: opening leaves no descriptor behind, whether it succeeds or not") {
  const test::temporary_folder folder;
  const std::string path = folder.write("a", "x");
  const auto open_descriptors = [] {
    std::size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) n += entry.path().empty() ? 0 : 1;
    return n;
  };
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 10; ++i) {
    const mapped_file f = mapped_file::open(path);
    (void)open_refusal(folder.path());
    CHECK(open_descriptors() == before);
  }
}
