// SPDX-License-Identifier: Apache-2.0
// g++ 12 with a sanitizer takes a moved-from std::function inside <regex> for uninitialised.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "run.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <regex>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using test::outcome;

const std::string digits = LORA_SOURCE_DIR "/examples/data/digits";

outcome hot_swap(const std::string& arguments) { return test::run(LORA_HOT_SWAP, "--threads 2 " + arguments); }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/** The line that matches, or an error that shows everything. */
std::string line(const outcome& r, const std::string& pattern) {
  const std::regex wanted(pattern);
  std::istringstream lines(r.out);
  for (std::string l; std::getline(lines, l);)
    if (std::regex_search(l, wanted)) return l;
  FAIL_CHECK("no line matches " << pattern << " in\n" << r.out << r.err);
  return {};
}

/** The row of a version; its accuracy is only near the true one as long as few requests were answered. */
void check_row(const outcome& r, int stamp, const std::string& what, const std::string& ranks, double accuracy) {
  const std::regex row("^ +" + std::to_string(stamp) + "  " + what + " +" + ranks + R"( +([\d,]+) +([\d.]+) % +[\d.]+ [num]?s$)");
  std::istringstream lines(r.out);
  std::smatch part;
  for (std::string l; std::getline(lines, l);) {
    if (!std::regex_search(l, part, row)) continue;
    const bool many = part[1].str().size() > 3;  // at least 1,000 requests
    CHECK_MESSAGE(std::abs(std::stod(part[2]) - accuracy) <= (many ? 1.0 : 100.0), l);
    return;
  }
  FAIL_CHECK("no row of stamp " << stamp << " in\n" << r.out << r.err);
}

/** A copy of the data to damage. */
class damaged_data : public test::temporary_folder {
 public:
  damaged_data() { fs::copy(digits, path(), fs::copy_options::recursive); }
  /** Replaces bytes at `offset`; negative offsets count from the end. */
  void patch(const std::string& file, std::ptrdiff_t offset, const std::string& bytes) const {
    std::string all = test::contents(path() + "/" + file);
    const auto at = static_cast<std::size_t>(offset < 0 ? static_cast<std::ptrdiff_t>(all.size()) + offset : offset);
    all.replace(at, bytes.size(), bytes);
    test::write(path() + "/" + file, all);
  }
  outcome run() const { return hot_swap("--seconds 0.2 --data '" + path() + "'"); }
};

/** `r` failed because of this guarantee and no other. */
void check_only_failure(const outcome& r, const std::string& guarantee) {
  CHECK(r.code == 1);
  CHECK(has(r.out, "\nFAILED  " + guarantee));
  CHECK_MESSAGE(has(r.out, "\nFAILED: " + guarantee + "\n"), r.out << r.err);
}

}  // namespace

TEST_CASE("examples/hot_swap: the tour ends well and shows each version") {
  const outcome r = hot_swap("--seconds 1");
  CHECK(r.code == 0);
  CHECK(r.err == "");
  check_row(r, 1, "the base model alone", "-", 10.0);
  check_row(r, 2, "adapter_v1", "4/4/-", 73.5);
  check_row(r, 3, "adapter_v2", "8/12/8", 97.0);
  line(r, R"(^ +refused: a truncated copy of adapter_v2\.)");
  line(r, R"(^ +refused: adapter_other, which is for another model\.)");
  check_row(r, 4, "adapter_v1, back to 2", "4/4/-", 73.5);
  check_row(r, 5, "adapter_v2, published again", "8/12/8", 97.0);
  line(r, R"(^ +6(-\d+)?  both in turn)");
  line(r, R"(^ +64 +[\d,]+ +[\d.,]+ +[\d.,]+ +[\d.,]+ +[\d,]+ +[\d.,-]+ +[\d.,-]+ +[\d.,-]+$)");
  line(r, R"(^publishing, \d+ times: median [\d.]+ [num]?s, longest [\d.]+ [num]?s$)");
  line(r, R"(^  held  an answer's bits are those of one version +0 mixed of [1-9][\d,]*$)");
  line(r, R"(^  held  every request finds a version and is answered +0 lost$)");
  line(r, R"(^  held  requests allocate nothing +0 allocations$)");
  line(r, R"(^  held  tensors are used where the files are mapped +0 bytes copied$)");
  line(r, R"(^  held  bad adapters are refused, the last good serves +2 of 2$)");
  line(r, R"(^  held  logits differ from PEFT's by less than the bound )");
  line(r, R"(^  held  every version is freed exactly once +\d+, payloads 4 of 4$)");
  line(r, R"(^ +refused: loading 'v2 with a NaN' failed: adapter$)");
  line(r, R"(^v2, alpha times 8 +5\.0 % +[\d,]+ +\d+\.\d % +7\d\.\d % +roll back$)");
  line(r, R"(^adapter_v2 +5\.0 % +[\d,]+ +9\d\.\d % +7\d\.\d % +promote$)");
  line(r, R"(^adapter_v2 +25\.0 % +[\d,]+ +9\d\.\d % +7\d\.\d % +promote$)");
  line(r, R"(^adapter_v2 +100\.0 % +[\d,]+ +9\d\.\d % +7\d\.\d % +promote$)");
  line(r, R"(^  held  each user's answer has the bits of its version +0 mixed of [1-9][\d,]*$)");
  line(r, R"(^  held  users stay with a candidate whose share grows +0 moved back$)");
  line(r, R"(^  held  a NaN is refused before anybody sees it )");
  line(r, R"(^  held  a bad candidate goes back, the stable one serves +[1-9][\d,]* requests saw it$)");
  line(r, R"(^  held  a good candidate gets everybody +[1-9]\d* decisions on record$)");
  CHECK(!has(r.out, "FAILED"));
  CHECK(r.out.ends_with("\nall guarantees held\n"));
}

TEST_CASE("examples/hot_swap: the gray release is drawn and counted as it went") {
  const test::temporary_folder folder;
  const std::string tree = folder.path() + "/tree.svg";
  const auto files = [&](const std::string& metrics) {
    const outcome r = hot_swap("--seconds 0.4 --tree '" + tree + "' --metrics '" + folder.path() + "/" + metrics + "'");
    CHECK(r.code == 0);
    return test::contents(folder.path() + "/" + metrics);
  };
  const std::string prometheus = files("metrics.prom");
  CHECK(has(prometheus, "\nlora_reloads_total{model=\"digits\",result=\"ok\"} 3\n"));
  CHECK(has(prometheus, "\nlora_reloads_total{model=\"digits\",result=\"failed\"} 1\n"));
  CHECK(has(prometheus, "\nlora_rollbacks_total{model=\"digits\"} 1\n"));
  CHECK(has(prometheus, "\nlora_current_stamp{model=\"digits\"} 4\n"));
  CHECK(has(prometheus, "{model=\"digits\",stage=\"parse\",result=\"failed\",le=\"+Inf\"} 1\n"));
  CHECK(!has(prometheus, "# EOF"));

  const std::string svg = test::contents(tree);
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  CHECK(has(svg, ">version 4 is current; "));
  CHECK(has(svg, ">v1</text>"));
  CHECK(has(svg, ">v3 = v1 again</text>"));
  CHECK(has(svg, ">load failed</text>"));
  CHECK(has(svg, ">canary: roll back, share 0.0 %</text>"));
  CHECK(has(svg, ">canary: promote, share 100.0 %</text>"));
  CHECK(has(svg, "canary: promote, share 25.0 %; candidate "));  // in the tooltip

  for (const char* name : {"metrics.om", "metrics.openmetrics"}) CHECK(files(name).ends_with("\n# EOF\n"));

  const outcome r = hot_swap("--seconds 0.2 --tree '" + folder.path() + "/no/such/folder.svg'");
  CHECK(r.code == 1);
  CHECK(has(r.err, "hot_swap: cannot write '" + folder.path() + "/no/such/folder.svg'"));
}

TEST_CASE("examples/hot_swap: a candidate that is as good as the stable version is not called bad, and that is seen") {
  const damaged_data data;  // with adapter_v1's tensors in place of v2's; its alphas are doubtless wrong for them, eightfold ones more so
  fs::copy(digits + "/adapter_v1", data.path() + "/adapter_v2", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const std::string config = data.path() + "/adapter_v2/adapter_config.json";
  std::string text = test::contents(config);
  const std::string alpha = "\"lora_alpha\": ";
  text.replace(text.find(alpha), text.find(',', text.find(alpha)) - text.find(alpha),
               alpha + "0");  // eight times nothing is nothing: the base
  test::write(config, text);
  fs::copy(digits + "/logits_base.npy", data.path() + "/logits_v2.npy", fs::copy_options::overwrite_existing);
  fs::remove_all(data.path() + "/adapter_v1");
  fs::copy(data.path() + "/adapter_v2", data.path() + "/adapter_v1", fs::copy_options::recursive);
  fs::copy(digits + "/logits_base.npy", data.path() + "/logits_v1.npy", fs::copy_options::overwrite_existing);
  const outcome r = data.run();
  CHECK(r.code == 1);
  CHECK_MESSAGE(has(r.out, "\nFAILED: a bad candidate goes back, the stable one serves\n"), r.out << r.err);
}

TEST_CASE("examples/hot_swap: what goes into a pipe is plain and narrow") {
  const outcome r = hot_swap("--seconds 0.2");
  CHECK(!has(r.out, "\033"));
  CHECK(!has(r.out, "\r"));
  std::istringstream lines(r.out);
  for (std::string l; std::getline(lines, l);) {
    CHECK_MESSAGE(l.size() < 100, l);
    CHECK_MESSAGE((l.empty() || l.back() != ' '), l);
  }
}

TEST_CASE("examples/hot_swap: an adapter of one's own is published, or refused by name") {
  const outcome own = hot_swap("--seconds 0.4 --adapter '" + digits + "/adapter_v1/'");
  CHECK(own.code == 0);
  check_row(own, 6, "adapter_v1", "4/4/-", 73.5);
  line(own, R"(payloads 5 of 5$)");

  const outcome refused = hot_swap("--seconds 0.4 --adapter '" + digits + "/adapter_other'");
  CHECK(refused.code == 1);
  line(refused, R"(^ +refused: adapter_other\. )");
  CHECK(refused.out.ends_with("\nall guarantees held, but the adapter given was refused\n"));

  const outcome missing = hot_swap("--seconds 0.4 --adapter nowhere");
  CHECK(missing.code == 1);
  CHECK(has(missing.out, "refused: nowhere. 'nowhere': there is no adapter_config.json"));
}

TEST_CASE("examples/hot_swap: logits that are not PEFT's are seen") {
  const damaged_data data;
  data.patch("logits_v2.npy", -4, std::string("\x00\x00\x80\x3f", 4));  // the last one becomes 1.0
  check_only_failure(data.run(), "logits differ from PEFT's by less than the bound");
  data.patch("logits_v2.npy", -4, std::string("\x00\x00\xc0\x7f", 4));  // a NaN
  check_only_failure(data.run(), "logits differ from PEFT's by less than the bound");
}

TEST_CASE("examples/hot_swap: a bad adapter that is accepted is seen") {
  const damaged_data data;
  fs::copy(digits + "/adapter_v1", data.path() + "/adapter_other", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  check_only_failure(data.run(), "bad adapters are refused, the last good serves");
}

TEST_CASE("examples/hot_swap: tensors that had to be copied are seen") {
  const damaged_data data;
  const std::string file = data.path() + "/adapter_v1/adapter_model.safetensors";
  std::string bytes = test::contents(file);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes.insert(8 + static_cast<std::size_t>(header), 1, ' ');  // one blank after the JSON: legal, and nothing is aligned any more
  ++header;
  std::memcpy(bytes.data(), &header, 8);
  test::write(file, bytes);
  check_only_failure(data.run(), "tensors are used where the files are mapped");
}

TEST_CASE("examples/hot_swap: data that are missing or broken are named") {
  const outcome missing = hot_swap("--data nowhere");
  CHECK(missing.code == 1);
  CHECK(has(missing.err, "hot_swap: 'nowhere/base.safetensors': cannot open"));
  CHECK(has(missing.err, "--data DIR"));

  damaged_data data;
  fs::remove_all(data.path() + "/adapter_v2");
  outcome r = data.run();
  CHECK(r.code == 1);
  CHECK(has(r.err, "/adapter_v2': there is no adapter_config.json"));

  fs::resize_file(data.path() + "/base.safetensors", 100'000);
  r = data.run();
  CHECK(r.code == 1);
  CHECK(has(r.err, "/base.safetensors': tensor "));
  CHECK(has(r.err, "truncated"));

  fs::copy_file(digits + "/base.safetensors", data.path() + "/base.safetensors", fs::copy_options::overwrite_existing);
  fs::copy_file(digits + "/test_labels.npy", data.path() + "/test_images.npy", fs::copy_options::overwrite_existing);
  r = data.run();
  CHECK(r.code == 1);
  CHECK(has(r.err, "hot_swap: a view of rank 3 was asked of an array of rank 1"));
}

TEST_CASE("examples/hot_swap: options are checked") {
  CHECK(hot_swap("--seconds 0").code != 0);
  CHECK(hot_swap("--seconds many").code != 0);
  CHECK(test::run(LORA_HOT_SWAP, "--threads 0").code != 0);
  CHECK(hot_swap("--no-such-option").code != 0);
  const outcome help = hot_swap("--help");
  CHECK(help.code == 0);
  for (const char* option : {"--seconds", "--threads", "--adapter", "--data", "--tree", "--metrics"}) CHECK(has(help.out, option));
}
