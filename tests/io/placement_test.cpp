// SPDX-License-Identifier: Apache-2.0
//
// Tensors copied out of their file at opening (placement::huge_pages) against the same tensors in the mapping, and what is left of the file
// afterwards: no mapping, no descriptor, no dependence on its bytes.
#include "files.hpp"
#include "support/smaps.hpp"

#include <lora/core/pages.hpp>
#include <lora/io/diffusers.hpp>
#include <lora/io/gguf_adapter.hpp>
#include <lora/io/kohya.hpp>
#include <lora/io/peft.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <new>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

namespace {

using lora::io::placement;
using lora::io::safetensors;
using test::safetensors_builder;

constexpr lora::io::open_options copied{.placement = placement::huge_pages};

std::uintptr_t address_of(const safetensors::tensor& t) { return reinterpret_cast<std::uintptr_t>(t.view().data()); }

/** Whether both tables name the same tensors with the same shapes, offsets and bytes. */
bool same(const safetensors& a, const safetensors& b) {
  if (a.tensors().size() != b.tensors().size() || a.path() != b.path()) return false;
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    const auto& left = a.tensors()[i];
    const auto& right = b.tensors()[i];
    if (left.name() != right.name() || left.type() != right.type() || left.rank() != right.rank()) return false;
    if (left.offset() != right.offset() || left.size_bytes() != right.size_bytes()) return false;
    for (std::size_t axis = 0; axis < left.rank(); ++axis)
      if (left.shape()[axis] != right.shape()[axis]) return false;
    if (left.size_bytes() != 0 && std::memcmp(left.view().data(), right.view().data(), left.size_bytes()) != 0) return false;
    if (a.find(left.name()) != &left || b.find(left.name()) != &right) return false;
  }
  return true;
}

std::string noise(std::size_t size, unsigned seed) {
  std::string s(size, '\0');
  for (char& c : s) c = static_cast<char>((seed = seed * 1664525u + 1013904223u) >> 24);
  return s;
}

/** Tensors of several types whose sizes leave the next ones on odd addresses, empty ones and a scalar among them. */
safetensors_builder mixed() {
  safetensors_builder b;
  b.add("bytes", "U8", {3}, noise(3, 1)).add("floats", "F32", {5, 7}, noise(140, 2)).add("empty", "F64", {0, 9}, "");
  b.add("halves", "BF16", {129}, noise(258, 3)).add("flags", "BOOL", {2}, std::string("\1\0", 2)).add("scalar", "I64", {}, noise(8, 4));
  b.add("wide", "F16", {1, 1, 65}, noise(130, 5)).add("last", "F32", {0}, "");
  return b;
}

std::size_t open_descriptors() {
  std::size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) n += entry.exists() ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("io/placement: a copied table is the mapped one, every tensor on a cache line, wherever the file has it") {
  const test::temporary_folder folder;
  for (std::size_t spaces = 0; spaces < 9; ++spaces) {
    const std::string path = folder.write("file", mixed().bytes(spaces));
    const safetensors mapped = safetensors::open(path);
    const safetensors copy = safetensors::open(path, copied);
    CAPTURE(spaces);
    REQUIRE(same(mapped, copy));
    std::size_t total = 0;
    for (const auto& t : copy.tensors()) {
      CHECK(address_of(t) % 64 == 0);
      total += t.size_bytes();
    }
    CHECK(copy.bytes_copied() == total);
    CHECK(mapped.bytes_copied() < total);
    CHECK(same(copy, safetensors::parse(test::bytes_of(mixed().bytes(spaces)), path, {}, copied)));
  }
}

TEST_CASE("io/placement: files without tensors, or with empty ones only") {
  const test::temporary_folder folder;
  const safetensors none = safetensors::open(folder.write("none", safetensors_builder().bytes()), copied);
  CHECK(none.tensors().empty());
  CHECK(none.bytes_copied() == 0);
  const safetensors empty =
      safetensors::open(folder.write("empty", safetensors_builder().zeros("a", {0, 3}).zeros("b", {0}).bytes()), copied);
  CHECK(empty.tensors().size() == 2);
  CHECK(empty["a"].size() == 0);
}

TEST_CASE("io/placement: from 4 MiB on the block begins on a huge page, and the system is asked for them") {
  const test::temporary_folder folder;
  for (const std::size_t size : {lora::huge_pages_from - 64, lora::huge_pages_from, lora::huge_pages_from + 1}) {
    const std::string data = noise(size, 7);
    const safetensors copy = safetensors::open(folder.write("file", safetensors_builder().add("w", "U8", {size}, data).bytes()), copied);
    const auto& t = copy.tensors()[0];
    CHECK(std::memcmp(t.view().data(), data.data(), size) == 0);
    if (size >= lora::huge_pages_from) {
      CHECK(address_of(t) % lora::huge_page_size == 0);
      MESSAGE("of " << size << " bytes in huge pages: " << test::huge_bytes_of(t.view().data(), size));
    }
  }
}

TEST_CASE("io/placement: the mapping and the descriptor are gone, and the file may change, shrink and vanish") {
  const test::temporary_folder folder;
  const std::string bytes = mixed().bytes();
  const std::string path = folder.write("file", bytes);
  const std::size_t descriptors = open_descriptors();
  {
    const safetensors mapped = safetensors::open(path);
    REQUIRE(test::is_mapped(path));
  }
  const safetensors copy = safetensors::open(path, copied);
  CHECK_FALSE(test::is_mapped(path));
  CHECK(open_descriptors() == descriptors);
  folder.write("file", std::string(bytes.size(), 'x'));
  std::filesystem::resize_file(path, 0);
  CHECK(same(copy, safetensors::parse(test::bytes_of(bytes), path, {}, copied)));
  std::filesystem::remove(path);
  CHECK(same(copy, safetensors::parse(test::bytes_of(bytes), path, {}, copied)));
}

TEST_CASE("io/placement: owner() keeps the elements and nothing else") {
  const test::exact_bytes bytes(mixed().bytes());
  const auto given = std::make_shared<int>(1);
  lora::any_view floats;
  std::shared_ptr<const void> owner;
  {
    const safetensors copy = safetensors::parse(bytes.span(), "memory", given, copied);
    CHECK(given.use_count() == 1);
    floats = copy["floats"];
    owner = copy.owner();
    CHECK(owner != nullptr);
  }
  CHECK(std::memcmp(floats.data(), noise(140, 2).data(), 140) == 0);
  const safetensors mapped = safetensors::parse(bytes.span(), "memory", given);
  CHECK(given.use_count() == 2);
}

TEST_CASE("io/placement: what is refused is refused in the same words, and leaves nothing open") {
  const test::temporary_folder folder;
  std::string truncated = mixed().bytes();
  truncated.pop_back();
  truncated.pop_back();
  const std::string wrong[] = {"",
                               "short",
                               test::safetensors_bytes("{"),
                               truncated,
                               mixed().bytes() + "x",
                               mixed().zeros("bytes", {1}).bytes(),
                               safetensors_builder().add("flag", "BOOL", {1}, "\2").bytes(),
                               safetensors_builder().add("a", "F32", {2}, "123").bytes()};
  const std::size_t descriptors = open_descriptors();
  for (const std::string& bytes : wrong) {
    const std::string path = folder.write("file", bytes);
    const std::string mapped = test::refusal<lora::io_error>([&] { (void)safetensors::open(path); });
    const std::string copy = test::refusal<lora::io_error>([&] { (void)safetensors::open(path, copied); });
    CHECK_FALSE(mapped.empty());
    CHECK(mapped == copy);
    CHECK_FALSE(test::is_mapped(path));
  }
  CHECK(test::contains(test::refusal<lora::io_error>([&] { (void)safetensors::open(folder.path() + "/absent", copied); }), "cannot open"));
  CHECK(open_descriptors() == descriptors);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need the address space that is taken away here
TEST_CASE("io/placement: a copy that memory has no room for throws, and leaves nothing open") {
  const test::temporary_folder folder;
  constexpr std::size_t size = std::size_t{256} << 20;
  const std::string header = safetensors_builder().raw(R"("w":{"dtype":"U8","shape":[268435456],"data_offsets":[0,268435456]})").bytes();
  const std::string path = folder.write("file", header);
  std::filesystem::resize_file(path, header.size() + size);  // a hole: no disk is used
  const std::size_t descriptors = open_descriptors();

  std::size_t pages_used = 0;
  std::ifstream("/proc/self/statm") >> pages_used;
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  rlimit tight = before;
  tight.rlim_cur = pages_used * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) + size + size / 2;  // the mapping fits, the copy does not
  REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
  bool thrown = false;
  try {
    (void)safetensors::open(path, copied);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(setrlimit(RLIMIT_AS, &before) == 0);
  CHECK(thrown);
  CHECK_FALSE(test::is_mapped(path));
  CHECK(open_descriptors() == descriptors);
}
#endif

TEST_CASE("io/placement: an adapter is the same in a copy, and outlives its directory") {
  const std::string source = LORA_TEST_DATA_DIR "/peft/plain";
  const test::temporary_folder folder;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) folder.write(name, test::read_file(source + "/" + name));
  const auto mapped = lora::io::load_peft(source);
  const auto copy = lora::io::load_peft(folder.path(), {.prefault = true, .placement = placement::huge_pages});
  CHECK_FALSE(test::is_mapped(folder.path() + "/adapter_model.safetensors"));
  std::filesystem::resize_file(folder.path() + "/adapter_model.safetensors", 0);
  REQUIRE(copy.adapter.modules.size() == mapped.adapter.modules.size());
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < mapped.adapter.modules.size(); ++i) {
    const auto& left = mapped.adapter.modules[i];
    const auto& right = copy.adapter.modules[i];
    CHECK(left.name == right.name);
    CHECK(left.weights.scale == right.weights.scale);
    for (const auto& [a, b] : {std::pair{left.weights.a, right.weights.a}, std::pair{left.weights.b, right.weights.b}}) {
      REQUIRE(a.size() == b.size());
      const std::size_t size = static_cast<std::size_t>(a.size()) * lora::size_of(a.type());
      CHECK(std::memcmp(a.data(), b.data(), size) == 0);
      CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
      bytes += size;
    }
  }
  CHECK(copy.bytes_copied == bytes);
}

TEST_CASE("io/placement: kohya, diffusers and GGUF adapters are the same in a copy, and outlive their files") {
  const std::string source = LORA_TEST_DATA_DIR "/formats/";
  const test::temporary_folder folder;
  const auto same_adapter = [](const lora::adapter& mapped, const lora::adapter& copy) {
    REQUIRE(mapped.modules.size() == copy.modules.size());
    for (std::size_t i = 0; i < mapped.modules.size(); ++i) {
      const lora::low_rank& left = mapped.modules[i].weights;
      const lora::low_rank& right = copy.modules[i].weights;
      CHECK(mapped.modules[i].name == copy.modules[i].name);
      CHECK(left.scale == right.scale);
      for (const auto& [a, b] : {std::pair{left.a, right.a}, std::pair{left.b, right.b}}) {
        REQUIRE(a.size_bytes() == b.size_bytes());
        CHECK(a.data() != b.data());
        CHECK(std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
        CHECK(b.is_aligned());
      }
    }
  };
  const auto check = [&](const std::string& name, const auto& load) {
    CAPTURE(name);
    const std::string path = folder.write(name, test::read_file(source + name));
    const auto mapped = load(source + name, placement::mapping);
    const auto copy = load(path, placement::huge_pages);
    CHECK(mapped.bytes_copied == 0);
    CHECK(copy.bytes_copied > 0);
    CHECK_FALSE(test::is_mapped(path));
    std::filesystem::resize_file(path, 0);
    same_adapter(mapped.adapter, copy.adapter);
    folder.write(name, "short");
    CHECK(test::refusal<lora::io_error>([&] { (void)load(path, placement::mapping); }) ==
          test::refusal<lora::io_error>([&] { (void)load(path, placement::huge_pages); }));
    folder.write(name, "");
    CHECK_FALSE(test::refusal<lora::io_error>([&] { (void)load(path, placement::huge_pages); }).empty());
  };
  check("adapter.gguf",
        [](const std::string& path, placement where) { return lora::io::load_gguf(path, {.prefault = true, .placement = where}); });
  check("diffusers_new.safetensors",
        [](const std::string& path, placement where) { return lora::io::load_diffusers(path, {.prefault = true, .placement = where}); });
  // The names that the file's underscores stand for do not matter here: each is its own module.
  lora::model_contract model;
  const safetensors kohya = safetensors::open(source + "kohya.safetensors");
  for (const auto& t : kohya.tensors()) {
    const std::string_view suffix = ".lora_down.weight";
    if (!t.name().ends_with(suffix)) continue;
    std::string_view name = t.name().substr(0, t.name().size() - suffix.size());
    name = name.substr(name.find('_', 5) + 1);
    if (model.find(name) == lora::model_contract::not_found) model.add(std::string(name), 1, 1);
  }
  check("kohya.safetensors", [&](const std::string& path, placement where) {
    return lora::io::load_kohya(path, model, {.prefault = true, .placement = where});
  });
}
