// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/io/peft.hpp>
#include <lora/io/peft_writer.hpp>

#include <array>

namespace {

using lora::io::safetensors;
using lora::io::save_safetensors;

std::string refused(std::vector<lora::io::named_view> tensors, std::vector<lora::io::metadata_pair> metadata = {}) {
  const test::temporary_folder folder;
  const std::string path = folder.write("x", "old");
  const std::string what = test::refusal<lora::value_error>([&] { save_safetensors(path, std::move(tensors), std::move(metadata)); });
  CHECK(test::read_file(path) == "old");
  CHECK(test::files_in(folder.path()) == 1);
  return what;
}

}  // namespace

TEST_CASE("io/safetensors_writer: all 22 types, empty and rank 0, read back byte by byte") {
  const test::temporary_folder folder;
  std::array<unsigned char, 512> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i % 2);  // good booleans too
  alignas(8) std::array<unsigned char, 512> block = bytes;
  std::vector<lora::io::named_view> tensors;
  const lora::index_t shape[3] = {2, 4, 2};
  const lora::index_t empty[3] = {0, 4, 2};
  for (std::size_t i = 0; i < lora::dtype_count; ++i) {
    const auto type = static_cast<lora::dtype>(i);
    tensors.push_back({std::string("t.") + lora::name_of(type), lora::any_view(block.data(), type, shape, 3)});
    tensors.push_back({std::string("e.") + lora::name_of(type), lora::any_view(block.data(), type, empty, 3)});
    if (lora::size_of(type) != 0)
      tensors.push_back({std::string("s.") + lora::name_of(type), lora::any_view(block.data(), type, shape, 0)});
  }
  save_safetensors(folder.path() + "/x", tensors, {{"b", "2"}, {"a", "ü\n\"\\\x01"}});
  const safetensors file = safetensors::open(folder.path() + "/x");
  REQUIRE(file.tensors().size() == tensors.size());
  CHECK(file.bytes_copied() == 0);  // sorted so that each is aligned
  for (const auto& want : tensors) {
    CAPTURE(want.name);
    const lora::any_view got = file[want.name];
    CHECK(got.type() == want.view.type());
    REQUIRE(got.rank() == want.view.rank());
    REQUIRE(got.size_bytes() == want.view.size_bytes());
    if (got.size_bytes() != 0) CHECK(std::memcmp(got.data(), want.view.data(), got.size_bytes()) == 0);
  }
  REQUIRE(file.metadata().size() == 2);
  CHECK(file.metadata()[0].key == "a");
  CHECK(file.metadata()[0].value == "ü\n\"\\\x01");
  // Another order of the list, the same bytes.
  const std::string first = test::read_file(folder.path() + "/x");
  std::reverse(tensors.begin(), tensors.end());
  save_safetensors(folder.path() + "/x", tensors, {{"a", "ü\n\"\\\x01"}, {"b", "2"}});
  CHECK(test::read_file(folder.path() + "/x") == first);
}

TEST_CASE("io/safetensors_writer: permissions stay, a link leads to the new file, and a name may be as long as any") {
  const test::temporary_folder folder;
  const std::string real = folder.write("real", "old");
  REQUIRE(::chmod(real.c_str(), 0600) == 0);
  const std::string link = folder.path() + "/link";
  REQUIRE(::symlink("real", link.c_str()) == 0);
  save_safetensors(link, {});
  struct stat s {};
  REQUIRE(::lstat(link.c_str(), &s) == 0);
  CHECK(S_ISLNK(s.st_mode));
  REQUIRE(::stat(real.c_str(), &s) == 0);
  CHECK((s.st_mode & 0777) == 0600);
  const safetensors written = safetensors::open(real);
  CHECK(written.tensors().empty());
  save_safetensors(folder.path() + "/" + std::string(250, 'n'), {});
  CHECK(test::files_in(folder.path()) == 3);
}

TEST_CASE("io/safetensors_writer: no tensors, and only metadata") {
  const test::temporary_folder folder;
  save_safetensors(folder.path() + "/x", {});
  const safetensors nothing = safetensors::open(folder.path() + "/x");
  CHECK(nothing.tensors().empty());
  save_safetensors(folder.path() + "/x", {}, {{"format", "pt"}});
  const safetensors only = safetensors::open(folder.path() + "/x");
  CHECK(only.metadata().size() == 1);
}

TEST_CASE("io/safetensors_writer: what readers would refuse is refused, and the old file stays") {
  const auto a = lora::full(lora::extents{2, 3}, 1.0f);
  const lora::any_view v = a;
  CHECK(test::contains(refused({{"x", v}, {"x", v}}), "the name 'x' occurs twice"));
  CHECK(test::contains(refused({{"__metadata__", v}}), "a tensor cannot have this name"));
  CHECK(test::contains(refused({{"\xc3", v}}), "a tensor cannot have this name"));
  CHECK(test::contains(refused({{std::string("a\0b", 3), v}}), "a tensor cannot have this name"));
  CHECK(test::contains(refused({{"x", v}}, {{"a", "1"}, {"a", "2"}}), "the metadata key 'a'"));
  CHECK(test::contains(refused({{"x", v}}, {{"a", "\x80"}}), "the metadata key 'a'"));
  unsigned char packed[8] = {};
  const lora::index_t odd[2] = {3, 1};
  const lora::index_t even[2] = {2, 2};
  CHECK(test::contains(refused({{"x", lora::any_view(packed, lora::dtype::f4, odd, 2)}}), "do not fill whole bytes"));
  CHECK(test::contains(refused({{"x", lora::any_view(packed, lora::dtype::f4, even, 2).transpose()}}), "gaps between them"));
  for (const char* text :
       {"\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80"})
    CHECK_FALSE(lora::detail::is_utf8(text));
  for (const char* text : {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(lora::detail::is_utf8(text));
}

TEST_CASE("io/peft_writer: an adapter reads back the same, with a rank and a scale for each module") {
  const test::temporary_folder folder;
  for (const double alpha : {8.0, 7.0, 0.1, 0.0, -3.0, 1e-30}) {
    CAPTURE(alpha);
    const test::made_adapter made(alpha);
    const std::string path = folder.path() + "/adapter";
    lora::io::save_peft(path, made.adapter, {"base/model", "CAUSAL_LM"});
    const auto back = lora::io::load_peft(path);
    test::check_same(back.adapter, made.adapter);
    CHECK(back.report.unused_patterns.empty());
    CHECK(back.report.unknown_fields.empty());
    CHECK(back.bytes_copied == 0);
    CHECK(back.config.base_model_name_or_path == "base/model");
    CHECK(back.config.task_type == "CAUSAL_LM");
    const std::string config = test::read_file(path + "/adapter_config.json");
    const std::string model = test::read_file(path + "/adapter_model.safetensors");
    lora::io::save_peft(path, back.adapter, {"base/model", "CAUSAL_LM"});
    CHECK(test::read_file(path + "/adapter_model.safetensors") == model);
    CHECK(test::files_in(path) == 2);
    CHECK(nlohmann::json::parse(config)["target_modules"].size() == 3);
  }
}

TEST_CASE("io/peft_writer: a pattern of one module does not match another") {
  // PEFT's rule takes a key for the end of a name, and a dot for any character.
  const test::temporary_folder folder;
  auto a = lora::full(lora::extents{2, 3}, 1.0f);
  auto b = lora::full(lora::extents{4, 2}, 1.0f);
  lora::adapter made;
  float scale = 1;
  for (const char* name : {"q", "a.q", "b.a.q", "a_q", "l.1.(x)+[y]*", "l.10.z", "m.l.10.z"})
    made.modules.push_back({name, {a, b, scale++}});
  lora::io::save_peft(folder.path() + "/x", made);
  test::check_same(lora::io::load_peft(folder.path() + "/x").adapter, made);
}

TEST_CASE("io/peft_writer: alpha is what was meant, and exact") {
  const test::temporary_folder folder;
  auto a = lora::full(lora::extents{3, 3}, 1.0f);
  auto b = lora::full(lora::extents{4, 3}, 1.0f);
  lora::adapter made;
  made.modules.push_back({"m", {a, b, lora::scale_for(7, 3)}});
  lora::io::save_peft(folder.path() + "/x", made);
  CHECK(test::contains(test::read_file(folder.path() + "/x/adapter_config.json"), "\"lora_alpha\": 7,"));
  for (float scale = 1e-8f; scale < 1e8f; scale *= 1.0371f) {
    const lora::low_rank w{a, b, scale};
    REQUIRE(lora::scale_for(lora::detail::alpha_of(w), 3) == scale);
  }
}

TEST_CASE("io/peft_writer: a refused adapter leaves the folder as it was") {
  const test::temporary_folder folder;
  test::made_adapter made(8);
  const std::string path = folder.path() + "/x";
  const auto refused_to_save = [&] { return test::refusal<lora::value_error>([&] { lora::io::save_peft(path, made.adapter); }); };
  made.adapter.modules.push_back(made.adapter.modules[0]);
  CHECK(test::contains(refused_to_save(), "the name 'base_model.model.down.0.q.lora_A.weight' occurs twice"));
  made.adapter.modules.pop_back();
  made.adapter.modules[1].weights.scale = INFINITY;
  CHECK(test::contains(refused_to_save(), "module 'down.0.v_proj': the scale is not finite"));
  made.adapter.modules.clear();
  CHECK(refused_to_save() == "save_peft: the adapter has no modules");
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(test::contains(test::refusal<lora::io_error>([&] { lora::io::save_peft(folder.path() + "/no/x", test::made_adapter(1).adapter); }),
                       "cannot make the folder"));
  folder.write("file", "x");
  CHECK(test::contains(test::refusal<lora::io_error>([&] { lora::io::save_peft(folder.path() + "/file", test::made_adapter(1).adapter); }),
                       "cannot create a file beside it"));
}
