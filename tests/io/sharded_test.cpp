// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/io/safetensors_stream.hpp>
#include <lora/io/sharded.hpp>

namespace {

using lora::io::sharded;

const std::string shard_one = "model-00001-of-00002.safetensors";
const std::string shard_two = "model-00002-of-00002.safetensors";

/** A folder with two shards (a.weight and b.bias; c.weight) and this index. */
std::string open_index(const test::temporary_folder& folder, const std::string& index) {
  test::safetensors_builder one;
  one.zeros("a.weight", {2, 3}).zeros("b.bias", {4});
  test::safetensors_builder two;
  two.zeros("c.weight", {5, 2});
  folder.write(shard_one, one.bytes());
  folder.write(shard_two, two.bytes());
  return folder.write("model.safetensors.index.json", index);
}
std::string index_of(const std::string& map) {
  return R"({"metadata": {"total_size": 1e3, "x": [1, {"weight_map": 2}]}, "weight_map": {)" + map + "}}";
}
const std::string good = R"("c.weight": ")" + shard_two + R"(", "a.weight": ")" + shard_one + R"(", "b.bias": ")" + shard_one + "\"";

std::string refused(const std::string& index) {
  const test::temporary_folder folder;
  const std::string path = open_index(folder, index);
  return test::refusal<lora::io_error>([&] { (void)sharded::open(path); });
}

}  // namespace

TEST_CASE("io/sharded: a folder, its index and a single file are one table of tensors") {
  const test::temporary_folder folder;
  const std::string path = open_index(folder, index_of(good));
  for (const std::string& p : {path, folder.path()}) {
    const sharded model = sharded::open(p);
    REQUIRE(model.size() == 3);
    CHECK(model.shards().size() == 2);
    CHECK(model["c.weight"].extent(0) == 5);
    CHECK(model.find("b.bias") != nullptr);
    CHECK(model.find("b.weight") == nullptr);
    for (std::size_t i = 0; i < 3; ++i) CHECK(model.shard_of(i).find(model.tensor(i).name()) == &model.tensor(i));
    const auto contract = lora::io::contract_of(model);
    REQUIRE(contract.size() == 2);
    CHECK(contract[contract.find("c")].in == 2);
    CHECK(test::refusal<lora::io_error>([&] { (void)model["d"]; }).find("no tensor 'd'") != std::string::npos);
  }
  const sharded single = sharded::open(folder.path() + "/" + shard_two);
  CHECK(single.size() == 1);
  CHECK(single["c.weight"].size() == 10);
}

TEST_CASE("io/sharded: what the index and the shards disagree in is refused by name") {
  const auto says = [](const std::string& index, const std::string& part) {
    const std::string message = refused(index);
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
  };
  says("", "is empty");
  says("[]", "not a JSON object");
  says("3", "not a JSON object");
  says("{}", "no weight_map");
  says(R"({"weight_map": {}})", "names no tensor");
  says(R"({"weight_map": []})", "an array, not an object");
  says(R"({"weight_map": null})", "null, not an object");
  says(R"({"weight_map": {"a.weight": 3}})", "'a.weight': its file is a number");
  says(R"({"weight_map": {"a.weight": {"x": "y"}}})", "its file is an object");
  says(R"({"weight_map": {"a.weight": ["x"]}})", "its file is an array");
  says(R"({"weight_map": {}, "weight_map": {}})", "occurs twice");
  says(R"({"metadata": {}, "metadata": {}, "weight_map": {}})", "occurs twice");
  for (const char* file : {"", ".", "..", "../x.safetensors", "/etc/passwd", "a\\\\b", "a\\u0000b"})
    says(R"({"weight_map": {"a.weight": ")" + std::string(file) + "\"}}", "is not the name of a file beside it");
  says(index_of(good + ", " + good), "twice");
  says(index_of(good + R"(, "d.weight": ")" + shard_one + "\""), "tensor 'd.weight' is not in");
  says(index_of(R"("a.weight": ")" + shard_one + "\""), "does not name it");
  says(index_of(R"("c.weight": ")" + shard_one + R"(", "a.weight": ")" + shard_two + R"(", "b.bias": ")" + shard_one + "\""),
       "says that it is in");
  says(index_of(good + R"(, "d.weight": "missing.safetensors")"), "missing.safetensors");
}

TEST_CASE("io/sharded: a folder without a model, or with two, is refused") {
  const test::temporary_folder folder;
  CHECK(test::refusal<lora::io_error>([&] { (void)sharded::open(folder.path()); }).find("neither") != std::string::npos);
  (void)open_index(folder, index_of(good));
  folder.write("model.safetensors", test::safetensors_bytes("{}"));
  CHECK(test::refusal<lora::io_error>([&] { (void)sharded::open(folder.path()); }).find("both") != std::string::npos);
}

TEST_CASE("io/safetensors_stream: the bytes of save_safetensors, and no file without commit()") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/s";
  const float f[6] = {1, 2, 3, 4, 5, 6};
  const std::uint16_t h[2] = {7, 8};
  const lora::index_t matrix[] = {2, 3};
  const lora::index_t two[] = {2};
  const std::vector<lora::io::named_view> all = {{"h", lora::any_view(h, lora::dtype::bf16, two, 1)},
                                                 {"z", lora::any_view(f, lora::dtype::f32, matrix, 2)},
                                                 {"a", lora::any_view(f, lora::dtype::f32, nullptr, 0)}};
  std::vector<lora::io::safetensors_stream::entry> table;
  for (const auto& t : all) table.push_back({t.name, t.view.type(), {t.view.shape(), t.view.shape() + t.view.rank()}});
  {
    lora::io::safetensors_stream out(path, table, {{"k", "v"}});
    CHECK(test::refusal<lora::value_error>([&] { out.commit(); }).find("was not written") != std::string::npos);
    CHECK(test::refusal<lora::value_error>([&] { out.write(all[0].view); }).find("not what comes next") != std::string::npos);
  }
  CHECK(std::filesystem::is_empty(folder.path()));
  lora::io::safetensors_stream out(path, table, {{"k", "v"}});
  while (const auto* next = out.next())
    for (const auto& t : all)
      if (t.name == next->name) {
        out.write(t.view);
        break;
      }
  CHECK(test::refusal<lora::value_error>([&] { out.write(all[0].view); }).find("nothing") != std::string::npos);
  out.commit();
  lora::io::save_safetensors(folder.path() + "/w", all, {{"k", "v"}});
  CHECK(test::read_file(path) == test::read_file(folder.path() + "/w"));
}
