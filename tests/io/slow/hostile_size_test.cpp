// SPDX-License-Identifier: Apache-2.0
//
// 100 MB of header, table, configuration or numbers that end in something wrong: refused, in a process of its own whose time and peak memory
// are measured. The files' own pages count as memory too: they are mapped and read.
#include "io/files.hpp"

#include <lora/io/gguf_adapter.hpp>
#include <lora/io/json_adapter.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/sharded.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr std::size_t most = 100'000'000;

struct outcome {
  std::string sentence;
  double seconds = 0;  // of the process: a busy machine does not count
  double bytes = 0;    // peak, beyond what the process began with
};

/** Runs `action` in a child and says what it was refused with, and what it took. */
outcome measured(const std::function<void()>& action) {
  int pipe_ends[2] = {};
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    rusage before{};
    ::getrusage(RUSAGE_SELF, &before);
    outcome o;
    o.sentence = test::refusal<lora::error>(action);
    rusage after{};
    ::getrusage(RUSAGE_SELF, &after);
    const auto seconds = [](const rusage& u) {
      return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             1e-6 * static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    };
    char line[512];
    const int n = std::snprintf(line, sizeof line, "%.6f %ld %.400s", seconds(after) - seconds(before),
                                (after.ru_maxrss - before.ru_maxrss) * 1024, o.sentence.c_str());
    const bool told = n > 0 && ::write(pipe_ends[1], line, std::min(static_cast<std::size_t>(n), sizeof line - 1)) > 0;
    ::_exit(told ? 0 : 1);
  }
  ::close(pipe_ends[1]);
  std::string line;
  char buffer[512];
  for (ssize_t n = 0; (n = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;) line.append(buffer, static_cast<std::size_t>(n));
  ::close(pipe_ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 0);
  outcome o;
  char* at = line.data();
  o.seconds = std::strtod(at, &at);
  o.bytes = std::strtod(at, &at);
  o.sentence = *at == ' ' ? at + 1 : at;
  return o;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr bool can_measure = false;  // a sanitizer's shadow and an unoptimised parser are not what is promised
#else
constexpr bool can_measure = true;
#endif

void check(const char* what, const outcome& o, const char* sentence, double numbers = 0) {
  CAPTURE(std::string(what));
  CAPTURE(o.sentence);
  CHECK(test::contains(o.sentence, sentence));
  MESSAGE(std::string(what) << ": " << o.seconds << " s, " << o.bytes / static_cast<double>(most) << " of the size");
  if (!can_measure) return;
  CHECK(o.seconds < 2 + 5e-8 * numbers);  // numbers are data: who sends 50 million of them has 50 ns read for each
  CHECK(o.bytes <= 6 * static_cast<double>(most) + 4 * numbers);
}

/** `unit(i)` again and again up to 100 MB, between `head` and `tail`. */
template <class Unit>
std::string filled(std::string head, const std::string& tail, Unit unit) {
  head.reserve(most);
  for (std::size_t i = 0;; ++i) {
    const std::string next = unit(i);
    if (head.size() + next.size() + tail.size() > most) break;
    head += next;
  }
  return head + tail;
}

/** Writes and forgets: the text must not be in the memory that is measured. */
template <class Unit>
std::string safetensors_file(const test::temporary_folder& folder, const std::string& head, const std::string& tail, Unit unit) {
  return folder.write("adapter_model.safetensors", test::safetensors_bytes(filled(head, tail, unit)));
}

std::string numbered(std::size_t i) { return std::to_string(10'000'000 + i); }

}  // namespace

TEST_CASE("io/hostile_size: safetensors headers of 100 MB") {
  const test::temporary_folder folder;
  const auto refused = [&](const char* what, const std::string& path, const char* sentence) {
    check(what, measured([&] { (void)lora::io::safetensors::open(path); }), sentence);
    std::filesystem::remove(path);
  };
  const std::string empty = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  refused(
      "tensors, the last of a name that occurs twice",
      safetensors_file(folder, "{", "\"10000000\":" + empty + "}", [&](std::size_t i) { return '"' + numbered(i) + "\":" + empty + ","; }),
      "the name occurs twice in the header");
  refused("tensors, the last behind a hole",
          safetensors_file(folder, "{", R"("z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                           [&](std::size_t i) { return '"' + numbered(i) + "\":" + empty + ","; }),
          "there is a hole");
  refused(
      "short metadata, a key twice",
      safetensors_file(folder, "{\"__metadata__\":{", R"("10000000":""}})", [](std::size_t i) { return '"' + numbered(i) + "\":\"\","; }),
      "__metadata__ has more than 65536 keys");
  refused("one name", safetensors_file(folder, "{\"", "\":1}", [](std::size_t) { return std::string(1000, 'x'); }),
          "its entry is a number");
  refused("a field that nobody knows", safetensors_file(folder, R"({"a":{"x":[0)", "]}}", [](std::size_t) { return std::string(",1"); }),
          "its fields that the format does not have hold more than 1048576 values");
  refused("escapes", safetensors_file(folder, "{\"", "\":1}", [](std::size_t) { return std::string("\\u00e9"); }), "its entry is a number");
  refused("brackets", safetensors_file(folder, R"({"a":{"x":)", "", [](std::size_t) { return std::string(100, '['); }),
          "nests arrays and objects deeper than 127 levels");
}

TEST_CASE("io/hostile_size: a configuration, an adapter in JSON, an index and a GGUF table of 100 MB") {
  const test::temporary_folder folder;
  folder.write("adapter_model.safetensors", test::safetensors_builder().bytes());
  folder.write("adapter_config.json", filled("{\"r\":[0", "]}", [](std::size_t) { return std::string(",1"); }));
  check("configuration", measured([&] { (void)lora::io::load_peft(folder.path()); }), "a configuration of more than 16 MiB is not read");
  std::string config = filled(R"({"peft_type":"LORA","r":1,"lora_alpha":1,"rank_pattern":{)", R"("10000000":1}})",
                              [](std::size_t i) { return '"' + numbered(i) + "\":1,"; });
  const std::size_t first = config.find("\"10000000\"");
  const std::size_t surplus = (config.size() - (std::size_t{16} << 20) + 12) / 13 * 13;  // whole entries of 13 bytes
  config.erase(first + 13, surplus);
  folder.write("adapter_config.json", config);
  check("16 MiB of patterns", measured([&] { (void)lora::io::load_peft(folder.path()); }), "adapter_config.json");

  const std::string json = folder.write("adapter.json", filled("{\"a\":[0", "x", [](std::size_t) { return std::string(",1"); }));
  check("numbers, then no JSON", measured([&] { (void)lora::io::load_json(json); }), "is not valid JSON", 5e7);
  folder.write("adapter.json", filled(R"({"rank":4,"in_dim":4,"a":[0)", "]}", [](std::size_t) { return std::string(",1"); }));
  check("more numbers than the shape", measured([&] { (void)lora::io::load_json(json); }), "numbers, but rank x in_dim is 4 x 4", 5e7);

  const std::string index =
      folder.write("model.safetensors.index.json",
                   filled("{\"weight_map\":{", "\"10000000\":\"f\"}}", [](std::size_t i) { return '"' + numbered(i) + "\":\"f\","; }));
  check("index", measured([&] { (void)lora::io::sharded::open(index); }), "weight_map names more than");

  const auto number = [](auto n) {
    std::string s(sizeof n, '\0');
    std::memcpy(s.data(), &n, sizeof n);
    return s;
  };
  const auto gguf = [&](std::uint64_t tensors, std::uint64_t keys, auto unit) {
    return folder.write("adapter.gguf", filled("GGUF" + number(std::uint32_t{3}) + number(tensors) + number(keys), "", unit));
  };
  const std::string path =
      gguf(0, 60'000, [&](std::size_t i) { return number(std::uint64_t{8}) + numbered(i) + number(std::uint32_t{0}) + "x"; });
  check("keys", measured([&] { (void)lora::io::load_gguf(path); }), "adapter.gguf");
  (void)gguf(0, 1, [&](std::size_t i) {
    return i == 0 ? number(std::uint64_t{1}) + "a" + number(std::uint32_t{9}) + number(std::uint32_t{8}) + number(std::uint64_t{12'000'000})
                  : number(std::uint64_t{0});
  });
  check("an array of empty strings", measured([&] { (void)lora::io::load_gguf(path); }), "adapter.gguf");
  (void)gguf(60'000, 0, [&](std::size_t i) {
    return number(std::uint64_t{8}) + numbered(i) + number(std::uint32_t{1}) + number(std::uint64_t{0}) + number(std::uint32_t{0}) +
           number(std::uint64_t{0});
  });
  check("tensors", measured([&] { (void)lora::io::load_gguf(path); }), "adapter.gguf");
}
