// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/io/gguf_adapter.hpp>
#include <lora/io/gguf_adapter_writer.hpp>

#include <functional>

namespace {

using lora::io::gguf;
using lora::io::gguf_type;
using lora::io::load_gguf;

/** Puts a file together, right or wrong. */
class builder {
 public:
  template <class T>
  builder& put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  builder& string(std::string_view s) {
    put(std::uint64_t{s.size()});
    out_ += s;
    return *this;
  }
  builder& type(gguf_type t) { return put(static_cast<std::uint32_t>(t)); }
  builder& pair(std::string_view key, std::string_view value) { return string(key).type(gguf_type::string).string(value); }
  builder& tensor(std::string_view name, std::vector<std::uint64_t> ne, std::uint32_t type, std::uint64_t offset) {
    string(name).put(static_cast<std::uint32_t>(ne.size()));
    for (const std::uint64_t n : ne) put(n);
    return put(type).put(offset);
  }
  builder& pad(std::size_t step = 32) {
    out_.append((step - out_.size() % step) % step, '\0');
    return *this;
  }
  builder& zeros(std::size_t n) {
    out_.append(n, '\0');
    return *this;
  }
  [[nodiscard]] const std::string& bytes() const { return out_; }

  static builder begin(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    builder b;
    b.out_ = "GGUF";
    return b.put(version).put(tensors).put(keys);
  }

 private:
  std::string out_;
};

gguf parsed(const std::string& bytes) {
  // A copy of exactly this size, kept by the file.
  auto memory = std::make_shared<std::vector<std::byte>>(bytes.size());
  if (!bytes.empty()) std::memcpy(memory->data(), bytes.data(), bytes.size());
  return gguf::parse({memory->data(), memory->size()}, "g", memory);
}
std::string refused(const std::string& bytes) {
  return test::refusal<lora::io_error>([&] { (void)parsed(bytes); });
}
std::string refused(const builder& b) { return refused(b.bytes()); }

lora::io::gguf_adapter adapter_of(const std::string& bytes, const std::string& architecture = "") {
  const test::temporary_folder folder;
  return load_gguf(folder.write("g", bytes), {architecture, true});
}
/** The keys of an adapter, `more` of them, and a pair of blk.0.attn_q of rank 2. */
std::string adapter_bytes(std::uint64_t more, const std::function<void(builder&)>& keys, std::string_view name = "blk.0.attn_q.weight",
                          std::string_view general = "adapter", std::string_view kind = "lora") {
  builder b = builder::begin(2, 3 + more);
  b.pair("general.architecture", "llama").pair("general.type", general).pair("adapter.type", kind);
  keys(b);
  b.tensor(std::string(name) + ".lora_a", {3, 2}, 0, 0).tensor(std::string(name) + ".lora_b", {2, 5}, 0, 32).pad().zeros(32 + 40);
  return b.bytes();
}
std::string refused_adapter(std::uint64_t more, const std::function<void(builder&)>& keys, std::string_view name = "blk.0.attn_q.weight",
                            std::string_view general = "adapter", std::string_view kind = "lora") {
  return test::refusal<lora::io_error>([&] { (void)adapter_of(adapter_bytes(more, keys, name, general, kind)); });
}
void no_keys(builder&) {}

}  // namespace

TEST_CASE("io/gguf_adapter: files of the real writer have its scales and outputs, in place") {
  for (const char* file : {"adapter.gguf", "adapter_f16.gguf"}) {
    CAPTURE(file);
    const auto g = load_gguf(test::formats_data + file, {.architecture = "llama"});
    test::check_expected(g.adapter, file);
    CHECK(g.architecture == "llama");
    CHECK(g.alpha == (std::string_view(file) == "adapter.gguf" ? 8.0 : 0.0));
    for (const auto& m : g.adapter.modules) {
      CHECK(m.weights.a.is_aligned());
      CHECK(m.weights.b.is_aligned());
    }
  }
  CHECK(test::contains(test::refusal<lora::io_error>([] { (void)load_gguf(test::formats_data + "quantised.gguf"); }),
                       "tensor 'blk.0.attn_q.weight.lora_a': it is quantised (Q8_0), which is not supported"));
  CHECK(test::contains(test::refusal<lora::io_error>([] { (void)load_gguf(test::formats_data + "alora.gguf"); }), "activated LoRA"));
  CHECK(
      test::contains(test::refusal<lora::io_error>([] { (void)load_gguf(test::formats_data + "adapter.gguf", {.architecture = "qwen2"}); }),
                     "'general.architecture' is 'llama', not 'qwen2'"));
}

TEST_CASE("io/gguf: every type of value, versions 2 and 3, shapes in our order") {
  for (const std::uint32_t version : {2u, 3u}) {
    builder b = builder::begin(3, 15, version);
    b.string("u8").type(gguf_type::u8).put(std::uint8_t{200}).string("i8").type(gguf_type::i8).put(std::int8_t{-3});
    b.string("u16").type(gguf_type::u16).put(std::uint16_t{60000}).string("i16").type(gguf_type::i16).put(std::int16_t{-300});
    b.string("u32").type(gguf_type::u32).put(std::uint32_t{4000000000u}).string("i32").type(gguf_type::i32).put(std::int32_t{-7});
    b.string("f32").type(gguf_type::f32).put(0.5f).string("bool").type(gguf_type::boolean).put(std::uint8_t{1});
    b.pair("text", "x y")
        .string("u64")
        .type(gguf_type::u64)
        .put(std::uint64_t{1} << 40)
        .string("i64")
        .type(gguf_type::i64)
        .put(std::int64_t{-1});
    b.string("f64").type(gguf_type::f64).put(0.25);
    b.string("list").type(gguf_type::array).type(gguf_type::u16).put(std::uint64_t{3}).put(std::uint16_t{1}).put(std::uint32_t{0});
    b.string("texts").type(gguf_type::array).type(gguf_type::string).put(std::uint64_t{2}).string("a").string(std::string_view("\0", 1));
    b.string("general.alignment").type(gguf_type::u32).put(std::uint32_t{64});
    b.tensor("m", {3, 2}, 0, 0)
        .tensor("empty", {0, 5}, 30, 64)
        .tensor("scalar", {}, 28, 64)
        .pad(64)
        .put(1.0f)
        .put(2.0f)
        .put(3.0f)
        .put(4.0f);
    b.zeros(48).put(0.125);
    for (const std::size_t padding : {std::size_t{0}, std::size_t{56}}) {
      builder c = b;
      const gguf file = parsed(c.zeros(padding).bytes());
      CHECK(file.version() == version);
      CHECK(file.values().size() == 15);
      CHECK(file.find("u8")->number == 200);
      CHECK(file.find("i8")->number == -3);
      CHECK(file.find("u16")->number == 60000);
      CHECK(file.find("i16")->number == -300);
      CHECK(file.find("u32")->number == 4000000000.0);
      CHECK(file.find("i32")->number == -7);
      CHECK(file.find("f32")->number == 0.5);
      CHECK(file.find("bool")->number == 1);
      CHECK(file.find("text")->text == "x y");
      CHECK(file.find("u64")->number == 0x1p40);
      CHECK(file.find("i64")->number == -1);
      CHECK(file.find("f64")->number == 0.25);
      CHECK(file.find("list")->count == 3);
      CHECK(file.find("texts")->element == gguf_type::string);
      CHECK(file.find("other") == nullptr);
      REQUIRE(file.tensors().size() == 3);
      const auto m = file.find_tensor("m")->view.as<const float, 2>();
      CHECK(m.extent(0) == 2);
      CHECK(m.extent(1) == 3);
      CHECK(m(1, 0) == 4);
      CHECK(file.find_tensor("scalar")->view.as<const double, 0>()() == 0.125);
      CHECK(file.find_tensor("empty")->view.extent(0) == 5);
      CHECK(file.find_tensor("empty")->view.size() == 0);
      CHECK(file.find_tensor("none") == nullptr);
    }
  }
}

TEST_CASE("io/gguf: whatever breaks a rule is refused by name") {
  CHECK(test::contains(refused(""), "the file ends inside the magic number (byte 0)"));
  CHECK(test::contains(refused("GGML...."), "it does not begin with 'GGUF'"));
  CHECK(test::contains(refused(builder::begin(0, 0, 1)), "it is of version 1; versions 2 and 3 are supported"));
  CHECK(test::contains(refused(builder::begin(0, 0, 0x03000000u)), "it is big-endian"));
  CHECK(test::contains(refused(builder::begin(0, 1).pair("a\0b", "c").bytes().substr(0, 30)), "the file ends inside"));
  CHECK(test::contains(refused(builder::begin(0, 1).pair(std::string_view("a\0b", 3), "c")), "a key contains a NUL"));
  CHECK(test::contains(refused(builder::begin(0, 1).pair("", "c")), "a key is empty"));
  CHECK(test::contains(refused(builder::begin(0, 2).pair("k", "c").pair("k", "d")), "the key 'k' occurs twice"));
  CHECK(test::contains(refused(builder::begin(0, 1).string("k").put(std::uint32_t{13})), "the key 'k' has a type that GGUF does not have"));
  CHECK(test::contains(refused(builder::begin(0, 1).string("k").type(gguf_type::boolean).put(std::uint8_t{2})), "neither 0 nor 1"));
  CHECK(test::contains(refused(builder::begin(0, 1)
                                   .string("k")
                                   .type(gguf_type::array)
                                   .type(gguf_type::boolean)
                                   .put(std::uint64_t{2})
                                   .put(std::uint16_t{0x0201})),
                       "neither 0 nor 1"));
  CHECK(test::contains(refused(builder::begin(0, 1).string("k").type(gguf_type::array).type(gguf_type::array).put(std::uint64_t{0})),
                       "array of arrays"));
  for (const std::uint32_t alignment : {0u, 4u, 24u, 33u})
    CHECK(test::contains(refused(builder::begin(0, 1).string("general.alignment").type(gguf_type::u32).put(alignment)),
                         "a power of two and a multiple of 8"));
  CHECK(test::contains(refused(builder::begin(0, 1).pair("general.alignment", "32")), "is not a u32"));
  const auto tensor = [](std::vector<std::uint64_t> ne, std::uint32_t type, std::uint64_t offset, std::size_t data) {
    return refused(builder::begin(1, 0).tensor("t", std::move(ne), type, offset).pad().zeros(data));
  };
  CHECK(tensor({2, 2}, 0, 0, 16).empty());
  CHECK(tensor({2, 2}, 0, 0, 32).empty());
  CHECK(test::contains(tensor({2, 2}, 0, 0, 15),
                       "tensor 't': its data end at offset 16, but the file has only 15 bytes of data: it is truncated (byte 24)"));
  CHECK(test::contains(tensor({2, 2}, 0, 0, 33), "1 bytes follow the last tensor"));
  CHECK(test::contains(tensor({2, 2}, 0, 32, 64), "begin at offset 32, but belong at 0: there is a hole"));
  CHECK(test::contains(tensor({1, 1, 1, 1, 1}, 0, 0, 16), "it claims 5 dimensions; ggml has at most 4"));
  CHECK(test::contains(tensor({std::uint64_t{1} << 63}, 0, 0, 16), "a dimension does not fit a signed 64-bit index"));
  CHECK(test::contains(tensor({std::uint64_t{1} << 40, std::uint64_t{1} << 40}, 0, 0, 16), "does not fit the address space"));
  CHECK(test::contains(tensor({0, std::uint64_t{1} << 62}, 0, 0, 16), "does not fit the address space"));
  CHECK(test::contains(tensor({1u << 20}, 0, 0, 16), "needs 4194304 bytes, more than the file has"));
  CHECK(test::contains(tensor({256}, 12, 0, 144), "it is quantised (Q4_K), which is not supported"));
  CHECK(test::contains(tensor({256}, 4, 0, 144), "ggml has no type of number 4"));
  CHECK(test::contains(tensor({256}, 4000, 0, 144), "ggml has no type of number 4000"));
  CHECK(test::contains(refused(builder::begin(2, 0).tensor("t", {2}, 0, 0).tensor("t", {2}, 0, 32).pad().zeros(64)),
                       "the tensor 't' occurs twice"));
  CHECK(test::contains(refused(builder::begin(2, 0).tensor("t", {2}, 0, 0).tensor("u", {2}, 0, 8).pad().zeros(64)),
                       "tensors overlap, or it is not aligned"));
  CHECK(test::contains(refused(builder::begin(1, 0).tensor("", {2}, 0, 0).pad().zeros(32)), "it has no name"));
}

TEST_CASE("io/gguf: hostile counts are refused before they are believed") {
  const std::uint64_t huge = ~std::uint64_t{0};
  CHECK(test::contains(refused(builder::begin(huge, 0)), "at most 65536 of each are read"));
  CHECK(test::contains(refused(builder::begin(0, 65537)), "at most 65536 of each are read"));
  CHECK(test::contains(refused(builder::begin(65536, 65536)), "the file ends inside a key"));  // and nothing was allocated for them
  CHECK(test::contains(refused(builder::begin(0, 1).put(huge)), "a key claims 18446744073709551615 bytes, but the file has only 0 more"));
  for (const gguf_type element : {gguf_type::u8, gguf_type::u64})
    CHECK(test::contains(refused(builder::begin(0, 1).string("k").type(gguf_type::array).type(element).put(huge)),
                         "an array claims 18446744073709551615 elements"));
  CHECK(test::contains(refused(builder::begin(0, 1).string("k").type(gguf_type::array).type(gguf_type::string).put(huge).string("a")),
                       "the file ends inside an element of an array"));
  // What stands in front of the tensors may have 100 MB, wherever they are spent.
  CHECK(test::contains(
      refused(
          builder::begin(0, 1).string("k").type(gguf_type::array).type(gguf_type::u8).put(std::uint64_t{100'000'000}).zeros(100'000'000)),
      "the header is longer than 100000000 bytes"));
  // Cut off anywhere, a good file is refused, and not one byte beyond its end is read.
  const std::string good = adapter_bytes(0, no_keys);
  CHECK(adapter_of(good).adapter.modules.size() == 1);
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_FALSE(refused(good.substr(0, n)).empty());
}

TEST_CASE("io/gguf_adapter: alpha is llama.cpp's, and what is not plain LoRA is refused by name") {
  const auto alpha = [](float value) { return [value](builder& b) { b.string("adapter.lora.alpha").type(gguf_type::f32).put(value); }; };
  CHECK(adapter_of(adapter_bytes(0, no_keys)).adapter.modules[0].weights.scale == 1.0f);
  CHECK(adapter_of(adapter_bytes(1, alpha(0))).adapter.modules[0].weights.scale == 1.0f);
  CHECK(adapter_of(adapter_bytes(1, alpha(-3))).adapter.modules[0].weights.scale == -1.5f);
  CHECK(adapter_of(adapter_bytes(0, no_keys)).adapter.modules[0].name == "blk.0.attn_q");
  CHECK(test::contains(refused_adapter(1, alpha(NAN)), "'adapter.lora.alpha' is not a finite f32"));
  CHECK(test::contains(refused_adapter(1, [](builder& b) { b.pair("adapter.lora.alpha", "8"); }), "is not a finite f32"));
  CHECK(test::contains(refused_adapter(1, [](builder& b) { b.pair("adapter.lora.more", "8"); }), "'adapter.lora.more' is not known"));
  CHECK(refused_adapter(1, [](builder& b) { b.pair("adapter.lora.task_name", "x"); }).empty());
  CHECK(test::contains(refused_adapter(0, no_keys, "blk.0.attn_q.weight", "model"), "'general.type' is 'model', not 'adapter'"));
  CHECK(test::contains(refused_adapter(0, no_keys, "blk.0.attn_q.weight", "adapter", "other"), "'adapter.type' is 'other', not 'lora'"));
  CHECK(test::contains(refused_adapter(0, no_keys, "token_embd.weight"), "adapts an embedding, which is not supported"));
  CHECK(test::contains(refused_adapter(0, no_keys, "blk.0.ssm_a"), "ends neither in .weight.lora_a nor in .weight.lora_b"));
  CHECK(test::contains(refused_adapter(0, no_keys, ""), "ends neither in"));
  CHECK(test::contains(test::refusal<lora::io_error>([] { (void)adapter_of(builder::begin(0, 0).bytes()); }),
                       "there is no key 'general.type': it is no adapter"));
  const auto tensors = [](std::string_view first, std::vector<std::uint64_t> shape, std::string_view second, std::uint32_t type = 0) {
    builder b = builder::begin(2, 3);
    b.pair("general.architecture", "llama").pair("general.type", "adapter").pair("adapter.type", "lora");
    b.tensor(first, std::move(shape), 0, 0).tensor(second, {2, 4}, type, 32).pad().zeros(96);
    return test::refusal<lora::io_error>([&] { (void)adapter_of(b.bytes().substr(0, b.bytes().size() - (type == 0 ? 32 : 0))); });
  };
  CHECK(test::contains(tensors("a.weight.lora_a", {4, 2}, "b.weight.lora_b"), "has no lora_b beside it"));
  CHECK(test::contains(tensors("b.weight.lora_b", {4, 2}, "c.weight.lora_b"), "has no lora_a beside it"));
  CHECK(test::contains(tensors("a.weight.lora_a", {2, 4}, "a.weight.lora_b"), "have different ranks"));
  CHECK(test::contains(tensors("a.weight.lora_a", {8}, "a.weight.lora_b"), "shape [8] is not that of a matrix"));
  CHECK(test::contains(tensors("a.weight.lora_a", {4, 2}, "a.weight.lora_b", 28), "dtype f64 is not one of f32, f16 and bf16"));
}

TEST_CASE("io/gguf_adapter_writer: an adapter reads back the same, and twice gives the same bytes") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/g";
  for (const double alpha : {8.0, 7.0, 0.1, -3.0, 1e-30}) {
    CAPTURE(alpha);
    const test::made_adapter made(alpha);
    lora::io::save_gguf(path, made.adapter, {"llama", "made"});
    const auto back = load_gguf(path, {.architecture = "llama"});
    test::check_same(back.adapter, made.adapter);
    CHECK(back.alpha == double{static_cast<float>(alpha)});
    const std::string bytes = test::read_file(path);
    CHECK(bytes.size() % 32 == 0);
    lora::io::save_gguf(path, back.adapter, {"llama", "made"});  // while `back` has the old file mapped
    CHECK(test::read_file(path) == bytes);
    const gguf named = gguf::open(path);
    CHECK(named.find("general.name")->text == "made");
  }
}

TEST_CASE("io/gguf_adapter_writer: what the format cannot say is refused, and the old file stays") {
  const test::temporary_folder folder;
  const std::string path = folder.write("g", "old");
  test::made_adapter made(8);
  const auto refused_to_save = [&](const std::string& architecture = "llama") {
    const std::string what = test::refusal<lora::value_error>([&] { lora::io::save_gguf(path, made.adapter, {architecture, ""}); });
    CHECK(test::read_file(path) == "old");
    CHECK(test::files_in(folder.path()) == 1);
    return what;
  };
  CHECK(test::contains(refused_to_save(""), "the architecture of the base must be given"));
  made.adapter.modules[2].weights.scale *= 1.5f;
  CHECK(test::contains(refused_to_save(), "module 'lm_head': its scale cannot be written: the format has one alpha for all modules"));
  for (auto& m : made.adapter.modules) m.weights.scale = 0;
  CHECK(test::contains(refused_to_save(), "it takes 0 for 1"));
  made.adapter.modules[1].name = made.adapter.modules[0].name;
  CHECK(test::contains(refused_to_save(), "the module 'down.0.q' occurs twice"));
  made.adapter.modules[1].name = std::string(50, 'x');
  CHECK(test::contains(refused_to_save(), "is longer than ggml takes"));
  made.adapter.modules[1].name = "token_embd";
  CHECK(test::contains(refused_to_save(), "or is that of an embedding"));
}
