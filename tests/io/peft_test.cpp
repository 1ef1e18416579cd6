// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "files.hpp"

#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>

namespace {

using lora::io::load_peft;
using lora::io::peft_adapter;
using lora::io::peft_config;
using test::element;

const std::string peft_data = LORA_TEST_DATA_DIR "/peft/";

/** A configuration of the three required fields and whatever is added; a later field does not replace an earlier one. */
std::string config(const std::string& more = "", const std::string& r = "2", const std::string& alpha = "4") {
  return R"({"peft_type":"LORA","r":)" + r + R"(,"lora_alpha":)" + alpha + (more.empty() ? "" : ",") + more + "}";
}

std::string config_refused(const std::string& json) {
  return test::refusal<lora::io_error>([&] { (void)peft_config::parse(test::bytes_of(json), "c"); });
}
peft_config parsed(const std::string& json) { return peft_config::parse(test::bytes_of(json), "c"); }

const std::string prefix = "base_model.model.";

/** A pair of one module, of the given rank. */
test::safetensors_builder& pair(test::safetensors_builder& b, const std::string& module, std::size_t rank = 2, std::size_t in = 3,
                                std::size_t out = 5) {
  b.zeros(prefix + module + ".lora_A.weight", {rank, in});
  return b.zeros(prefix + module + ".lora_B.weight", {out, rank});
}
std::string pairs(const std::vector<std::string>& modules, std::size_t rank = 2) {
  test::safetensors_builder b;
  for (const std::string& m : modules) pair(b, m, rank);
  return b.bytes();
}

/** An adapter's directory with these two files. */
class adapter_folder {
 public:
  adapter_folder(const std::string& json, const std::string& tensors) {
    folder_.write("adapter_config.json", json);
    folder_.write("adapter_model.safetensors", tensors);
  }
  [[nodiscard]] const std::string& path() const { return folder_.path(); }
  [[nodiscard]] peft_adapter load() const { return load_peft(path()); }
  /** The sentence without the folder's name. */
  [[nodiscard]] std::string refused() const {
    std::string what = test::refusal<lora::io_error>([&] { (void)load(); });
    for (std::size_t at = what.find(path() + "/"); at != std::string::npos; at = what.find(path() + "/")) what.erase(at, path().size() + 1);
    return what;
  }

 private:
  test::temporary_folder folder_;
};

std::string refused(const std::string& json, const std::string& tensors) { return adapter_folder(json, tensors).refused(); }
std::string refused(const test::safetensors_builder& b) { return adapter_folder(config(), b.bytes()).refused(); }

const lora::low_rank& module_of(const peft_adapter& a, std::string_view name) {
  for (const auto& m : a.adapter.modules)
    if (m.name == name) return m.weights;
  FAIL("no module " << name);
  std::abort();
}

/** What expect.json of a fixture says, read here with nlohmann's tree: its keys are unique. */
nlohmann::json expectations(const std::string& name) { return nlohmann::json::parse(test::read_file(peft_data + name + "/expect.json")); }

}  // namespace

TEST_CASE("io/peft: adapters that PEFT wrote have PEFT's ranks, scalings and outputs") {
  for (const char* name : {"plain", "rslora", "pattern_regex_first", "pattern_specific_first", "f16", "bf16", "big_rank", "named"}) {
    CAPTURE(name);
    const nlohmann::json expect = expectations(name);
    std::string folder = peft_data + name;
    if (expect["adapter_dir"] != ".") folder += "/" + expect["adapter_dir"].get<std::string>();
    const peft_adapter a = load_peft(folder);
    REQUIRE(a.adapter.modules.size() == expect["modules"].size());
    CHECK(a.report.tensors_used == 2 * a.adapter.modules.size());
    CHECK(a.report.unknown_fields.empty());
    CHECK(a.bytes_copied == 0);
    CHECK(a.adapter.source == folder);
    CHECK(a.config.peft_version == expect["peft_version"]);
    const lora::io::safetensors base = lora::io::safetensors::open(peft_data + name + "/base.safetensors");
    for (const auto& item : expect["modules"].items()) {
      const std::string module = item.key();
      const nlohmann::json& want = item.value();
      CAPTURE(module);
      const lora::low_rank& got = module_of(a, module);
      CHECK(got.a.extent(0) == want["r"].get<lora::index_t>());
      CHECK(got.b.extent(1) == want["r"].get<lora::index_t>());
      CHECK(got.a.extent(1) == want["in_features"].get<lora::index_t>());
      CHECK(got.b.extent(0) == want["out_features"].get<lora::index_t>());
      CHECK(got.scale == static_cast<float>(want["scaling"].get<double>()));
      const std::string dtype = lora::detail::info_of(got.a.type()).safetensors_name;
      CHECK(dtype == expect["adapter_dtype"].get<std::string>());

      // y = W x + bias + s B (A x), in double, against PEFT's float32.
      const lora::io::npy x = lora::io::npy::open(peft_data + name + "/x_" + module + ".npy");
      const lora::io::npy y = lora::io::npy::open(peft_data + name + "/y_" + module + ".npy");
      const lora::any_view w = base[module + ".weight"];
      const lora::io::safetensors::tensor* const bias = base.find(module + ".bias");
      for (lora::index_t n = 0; n < x.view().extent(0); ++n) {
        std::vector<double> t(static_cast<std::size_t>(got.a.extent(0)), 0.0);
        for (std::size_t r = 0; r < t.size(); ++r)
          for (lora::index_t i = 0; i < got.a.extent(1); ++i)
            t[r] += element(got.a, static_cast<lora::index_t>(r), i) * element(x.view(), n, i);
        for (lora::index_t o = 0; o < got.b.extent(0); ++o) {
          double sum = bias == nullptr ? 0.0 : bias->view().as<const float, 1>()[o];
          for (lora::index_t i = 0; i < got.a.extent(1); ++i) sum += element(w, o, i) * element(x.view(), n, i);
          for (std::size_t r = 0; r < t.size(); ++r) sum += got.scale * element(got.b, o, static_cast<lora::index_t>(r)) * t[r];
          REQUIRE(std::abs(sum - element(y.view(), n, o)) <= 1e-5 * std::max(1.0, std::abs(sum)));
        }
      }
    }
    for (const auto& absent : expect["not_adapted"])
      for (const auto& m : a.adapter.modules) CHECK(m.name != absent.get<std::string>());
  }
}

TEST_CASE("io/peft: patterns of the fixtures that decide nothing are reported") {
  using strings = std::vector<std::string>;
  // Of alpha_pattern, "^lm\.head" and "layers.0.v_proj" match, but "v_proj|head" stands before them.
  CHECK(load_peft(peft_data + "pattern_regex_first").report.unused_patterns ==
        strings{"rank_pattern: proj", "rank_pattern: layers.1.q_proj", "alpha_pattern: ^lm\\.head", "alpha_pattern: layers.0.v_proj"});
  CHECK(load_peft(peft_data + "plain").report.unused_patterns.empty());
}

TEST_CASE("io/peft: the adapters and the base of the digits example") {
  const std::string digits = LORA_SOURCE_DIR "/examples/data/digits/";
  const lora::model_contract model = lora::io::contract_of(lora::io::safetensors::open(digits + "base.safetensors"));
  CHECK(model.size() == 3);
  for (const char* name : {"adapter_v1", "adapter_v2"}) {
    const peft_adapter a = load_peft(digits + name);
    for (const auto& m : a.adapter.modules) {
      const std::size_t i = model.find(m.name);
      REQUIRE(i != lora::model_contract::not_found);
      CHECK(model[i].in == m.weights.a.extent(1));
      CHECK(model[i].out == m.weights.b.extent(0));
    }
    CHECK(a.report.unused_patterns.empty());
  }
  const peft_adapter v2 = load_peft(digits + "adapter_v2");
  CHECK(module_of(v2, "fc2").a.extent(0) == 12);
  CHECK(module_of(v2, "fc2").scale == static_cast<float>(12 / std::sqrt(12.0)));
  CHECK(module_of(v2, "fc1").scale == static_cast<float>(12 / std::sqrt(8.0)));
  CHECK(load_peft(digits + "adapter_other").adapter.modules.size() == 3);
}

TEST_CASE("io/peft: the views live as long as the adapter, prefaulted or not") {
  for (const bool prefault : {false, true}) {
    peft_adapter a;
    {
      test::safetensors_builder b;
      b.add(prefix + "m.lora_A.weight", "F32", {1, 2}, test::bytes_from<float>({1, 2}))
          .add(prefix + "m.lora_B.weight", "BF16", {1, 1}, std::string("\x80\x3f"));
      const adapter_folder folder(config("", "1"), b.bytes());
      lora::io::peft_options options;
      options.prefault = prefault;
      a = load_peft(folder.path(), options);
    }
    CHECK(a.adapter.modules[0].weights.a.as<const float, 2>()(0, 1) == 2.0f);
    CHECK(static_cast<float>(a.adapter.modules[0].weights.b.as<const lora::bfloat16, 2>()(0, 0)) == 1.0f);
  }
}

TEST_CASE("io/peft: modules come in the order of their A tensors; unaligned ones are counted") {
  test::safetensors_builder b;
  pair(b, "z");
  pair(b, "a.b");
  const adapter_folder folder(config(), b.bytes(/*spaces=*/1));
  const peft_adapter a = folder.load();
  REQUIRE(a.adapter.modules.size() == 2);
  CHECK(a.adapter.modules[0].name == "z");
  CHECK(a.adapter.modules[1].name == "a.b");
  CHECK(a.adapter.modules[0].weights.scale == 2.0f);
  CHECK(a.bytes_copied == 2 * (2 * 3 + 5 * 2) * 4);
  CHECK(a.adapter.modules[1].weights.b.is_aligned());
}

TEST_CASE("io/peft: scale, in double, of the module's own alpha and rank") {
  const auto scale = [](const std::string& json, std::size_t rank, const std::string& module = "m") {
    return adapter_folder(json, pairs({module}, rank)).load().adapter.modules[0].weights.scale;
  };
  CHECK(scale(config("", "3", "1"), 3) == 1.0f / 3.0f);
  CHECK(scale(config("", "2", "2.5"), 2) == 1.25f);
  CHECK(scale(config("", "2", "-1e0"), 2) == -0.5f);
  CHECK(scale(config("", "2", "-4"), 2) == -2.0f);
  CHECK(scale(config("", "2", "0"), 2) == 0.0f);
  CHECK(scale(config(R"("use_rslora":true)", "9", "12"), 9) == 4.0f);
  CHECK(scale(config(R"("use_rslora":null)", "9", "12"), 9) == static_cast<float>(12.0 / 9.0));
  CHECK(scale(config(R"("rank_pattern":{"m":9},"use_rslora":true)", "4", "12"), 9) == 4.0f);
  CHECK(scale(config(R"("alpha_pattern":{"m":9})"), 2) == 4.5f);
  CHECK(scale(config(R"("rank_pattern":null,"alpha_pattern":null)"), 2) == 2.0f);
  // As PEFT, which looks the name itself up when no key matches it: here '+' is a quantifier, and "a+b" does not match "a+b".
  CHECK(scale(config(R"("alpha_pattern":{"a+b":10})"), 2, "a+b") == 5.0f);
}

TEST_CASE("io/peft: the first matching pattern of the file wins, and unused ones are reported") {
  const adapter_folder folder(config(R"("alpha_pattern":{"z.*":20,".*q":6,"a\\.q":8,"nothing":1},"rank_pattern":{})"),
                              pairs({"a.q", "b.v"}));
  const peft_adapter a = folder.load();
  CHECK(module_of(a, "a.q").scale == 3.0f);
  CHECK(module_of(a, "b.v").scale == 2.0f);
  CHECK(a.report.unused_patterns == std::vector<std::string>{"alpha_pattern: z.*", "alpha_pattern: a\\.q", "alpha_pattern: nothing"});
  CHECK(a.config.alpha_pattern.size() == 4);
  CHECK(a.config.alpha_pattern[0].key == "z.*");
  const adapter_folder other(config(R"("alpha_pattern":{"a\\.q":8,".*q":6})"), pairs({"a.q"}));
  CHECK(other.load().adapter.modules[0].weights.scale == 4.0f);
}

TEST_CASE("io/peft: a pattern outside the subset is refused by name, used or not") {
  CHECK(refused(config(R"x("rank_pattern":{"q(?=_proj)":4})x"), pairs({"m"})) ==
        "'adapter_config.json': rank_pattern 'q(?=_proj)': lookahead is not supported (position 1)");
  CHECK(refused(config(R"("alpha_pattern":{"m":4,"(":4})"), pairs({"m"})) ==
        "'adapter_config.json': alpha_pattern '(': a '(' without ')' (position 0)");
  CHECK(refused(config(R"("alpha_pattern":{"\\w":4})"), pairs({"\u00e9"})) ==
        "'adapter_config.json': alpha_pattern '\\w': \\d, \\w and \\s are supported for ASCII names only, not for the module '\u00e9'");
}

TEST_CASE("io/peft: patterns cost bounded memory and work") {
  std::string many;
  for (int i = 0; i < 300; ++i)
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "x{0,1000}y{0,1000}z{0,1000}q{0,1000}r{0,1000}s{0,1000}t{0,1000}u{0,1000}\":1";
  CHECK(test::contains(refused(config("\"alpha_pattern\":{" + many + "}"), pairs({"m"})), "all keys up to this one need too much memory"));
}

TEST_CASE("io/peft: what the configuration may not say") {
  CHECK(config_refused(config()) == "");
  CHECK(config_refused("") == "'c': the configuration is empty where JSON was expected (byte 0)");
  CHECK(config_refused("[]") == "'c': the configuration is a JSON array, not an object (byte 1)");
  CHECK(config_refused("3") == "'c': the configuration is not a JSON object (byte 1)");
  CHECK(test::contains(config_refused("{\"r\":"), "'c': the configuration is not valid JSON (byte "));
  CHECK(test::contains(config_refused(config() + "x"), "'c': the configuration is not valid JSON (byte "));
  CHECK(test::contains(config_refused(config("", "2", "NaN")), "'c': the configuration is not valid JSON (byte "));
  CHECK(test::contains(config_refused(config("", "2", "Infinity")), "'c': the configuration is not valid JSON (byte "));
  CHECK(test::contains(config_refused(config("", "2", "1e400")), "'c': the configuration holds a number that is out of range (byte "));
  CHECK(test::contains(config_refused(config("\"x\":" + std::string(200, '['))), "nests arrays and objects deeper than 127 levels"));
  CHECK(test::contains(config_refused(std::string((std::size_t{16} << 20) + 1, ' ')),
                       "'c': has 16777217 bytes; a configuration of more than 16 MiB is not read"));
  CHECK(config_refused(R"({"r":2,"lora_alpha":4})") == "'c': the field 'peft_type' is missing (byte 22)");
  CHECK(config_refused(R"({"peft_type":"LORA","lora_alpha":4})") == "'c': the field 'r' is missing (byte 35)");
  CHECK(config_refused(R"({"peft_type":"LORA","r":4})") == "'c': the field 'lora_alpha' is missing (byte 26)");
  CHECK(config_refused(R"({"peft_type":"LOHA"})") ==
        "'c': the field 'peft_type' is 'LOHA', not \"LORA\", the only type that is supported (byte 19)");
  CHECK(test::contains(config_refused(R"({"peft_type":null})"), "the field 'peft_type' is not \"LORA\""));
  for (const char* bad : {"0", "-2", "2.0", "\"2\"", "null", "true", "[2]", "9223372036854775808"})
    CHECK(test::contains(config_refused(config("", bad)), "'c': the field 'r' is not an integer of at least 1 (byte "));
  for (const char* bad : {"\"2\"", "null", "true", "[2]", "{}"})
    CHECK(test::contains(config_refused(config("", "2", bad)), "'c': the field 'lora_alpha' is not a number (byte "));
  CHECK(test::contains(config_refused(config(R"("use_rslora":1)")), "'c': the field 'use_rslora' is not a boolean (byte "));
  CHECK(test::contains(config_refused(config(R"("r":2)")), "'c': the field 'r' occurs twice (byte "));
  CHECK(test::contains(config_refused(config(R"("\u0072":2)")), "'c': the field 'r' occurs twice (byte "));
  CHECK(config_refused(config(R"("new":null,"x":"","new":null)")) == "'c': the field 'new' occurs twice");
  CHECK(config_refused(config(R"("rank_pattern":{"a":1,"b":1,"\u0061":2})")) == "'c': the key 'a' occurs twice in rank_pattern");
  CHECK(config_refused(config(R"("alpha_pattern":{"a":1,"a":1})")) == "'c': the key 'a' occurs twice in alpha_pattern");
  CHECK(test::contains(config_refused(config(R"("rank_pattern":{"a":0})")),
                       "'c': 'rank_pattern': the value of 'a' is not a rank, an integer of at least 1 (byte "));
  CHECK(test::contains(config_refused(config(R"("rank_pattern":{"a":2.0})")), "is not a rank"));
  CHECK(test::contains(config_refused(config(R"("rank_pattern":{"a":-2})")), "is not a rank"));
  CHECK(test::contains(config_refused(config(R"("rank_pattern":{"a":"2"})")), "'rank_pattern': the value of 'a' is not a number"));
  CHECK(test::contains(config_refused(config(R"("alpha_pattern":{"a":{}})")), "'alpha_pattern': the value of 'a' is not a number"));
  CHECK(test::contains(config_refused(config(R"("alpha_pattern":{"a":[1]})")), "'alpha_pattern': the value of 'a' is not a number"));
  CHECK(test::contains(config_refused(config(R"("alpha_pattern":[])")),
                       "'c': the field 'alpha_pattern' is an array, not an object of patterns"));
  CHECK(test::contains(config_refused(config(R"("alpha_pattern":3)")), "'c': the field 'alpha_pattern' is not an object of patterns"));
  CHECK(test::contains(config_refused(config(R"("task_type":3)")), "'c': the field 'task_type' is neither a string nor null"));
}

TEST_CASE("io/peft: every field that changes the result is refused by name when it is set") {
  const struct {
    const char* field;
    const char* value;
    const char* sentence;
  } cases[] = {
      {"bias", "\"some\"", "is none of null, \"none\", \"all\" and \"lora_only\""},
      {"bias", "true", "is none of null, \"none\", \"all\""},
      {"lora_bias", "\"true\"", "is not a boolean"},
      {"fan_in_fan_out", "[]", "is not a boolean"},
      {"modules_to_save", "\"head\"", "is not an array of names"},
      {"modules_to_save", "true", "is not an array of names"},
      {"modules_to_save", "{\"head\":1}", "is an object, not an array of names"},
      {"modules_to_save", "[\"head\",1]", "holds something that is not a name"},
      {"modules_to_save", "[[\"head\"]]", "holds something that is not a name"},
      {"modules_to_save", "[null]", "holds something that is not a name"},
      {"layer_replication", "[[0,4],[2,5]]", "is set: it changes which layers the model has"},
      {"target_parameters", "[\"experts\", 1]", "holds more than strings"},
      {"target_parameters", "[[\"experts\"]]", "holds more than strings"},
      {"target_parameters", "{\"experts\": 1}", "is an object, not an array of strings"},
      {"target_parameters", "\"experts\"", "is not an array of strings"},
      {"init_lora_weights", "\"pissa\"",
       "is 'pissa': only true, false, \"gaussian\", \"orthogonal\", \"eva\" and \"mica\" leave the base as it is; PiSSA, OLoRA, CorDA, "
       "LoftQ and "
       "LoRA-GA take the adapter out of the base's weights, so that it needs a base of its own: save it with PEFT's "
       "path_initial_model_for_weight_conversion"},
      {"init_lora_weights", "\"pissa_niter_16\"", "is 'pissa_niter_16': only true"},
      {"init_lora_weights", "\"olora\"", "is 'olora': only true"},
      {"init_lora_weights", "\"corda\"", "is 'corda': only true"},
      {"init_lora_weights", "\"loftq\"", "is 'loftq': only true"},
      {"init_lora_weights", "\"lora_ga\"", "is 'lora_ga': only true"},
      {"init_lora_weights", "\"new\"", "is 'new': only true"},
      {"init_lora_weights", "1", "is set: only true"},
      {"use_qalora", "true", "is true: QALoRA pools the input before A"},
      {"alora_invocation_tokens", "[1,2]", "is set: activated LoRA applies the adapter to some rows only"},
      {"alora_invocation_tokens", "[]", "is set: activated LoRA"},
      {"arrow_config", "{\"top_k\":3}", "is set: Arrow routes between adapters"},
      {"kasa_config", "{}", "is set: KaSA truncates the base weights"},
      {"use_bdlora", "{\"nblocks\":2}", "is set: block-diagonal factors are not supported"},
      {"velora_config", "{\"scale\":1.0}", "is set: VeLoRA is not supported"},
      {"monteclora_config", "{}", "is set: MonteCLoRA samples around the weights"},
      {"megatron_config", "{\"a\":1}", "is set: Megatron's parallel layers hold parts of the weights"},
      {"use_dora", "1", "is not a boolean"},
      {"use_dora", "\"false\"", "is not a boolean"},
      // none of PEFT 0.21.2
      {"use_next_year", "true", "is none that PEFT 0.21.2 has, and it is set: it may change what the adapter computes"},
      {"use_next_year", "1", "is none that PEFT 0.21.2 has, and it is set"},
      {"use_next_year", "0.5", "is none that PEFT 0.21.2 has, and it is set"},
      {"use_next_year", "[null]", "is none that PEFT 0.21.2 has, and it is set"},
      {"use_next_year", "{\"a\":null}", "is none that PEFT 0.21.2 has, and it is set"},
  };
  for (const auto& c : cases) {
    const std::string field = std::string("\"") + c.field + "\":" + c.value;
    CAPTURE(field);
    const std::string what = config_refused(config(field));
    CHECK(what.starts_with(std::string("'c': the field '") + c.field + "' " + c.sentence));
  }
}

TEST_CASE("io/peft: fields that switch nothing on are accepted; unknown ones are reported") {
  const peft_config c = parsed(config(
      R"("use_dora":false,"lora_bias":null,"bias":"none","fan_in_fan_out":false,"modules_to_save":[],"layer_replication":null,)"
      R"("target_parameters":[],"trainable_token_indices":{},"init_lora_weights":"gaussian","use_qalora":false,"qalora_group_size":16,)"
      R"("alora_invocation_tokens":null,"arrow_config":null,"kasa_config":null,"eva_config":{"rho":2.0},"corda_config":{},)"
      R"("loftq_config":{"loftq_bits":4},"lora_ga_config":null,"lora_dropout":0.05,"inference_mode":true,"target_modules":["a",{"b":[1]}],)"
      R"("exclude_modules":"x","layers_to_transform":[1,2],"layers_pattern":"h","auto_mapping":{"r":7,"lora_alpha":[]},)"
      R"("megatron_core":"megatron.core","runtime_config":{"ephemeral_gpu_offload":false},"ensure_weight_tying":true,)"
      R"("base_model_name_or_path":"meta/x","task_type":"CAUSAL_LM","revision":null,"peft_version":"0.21.2",)"
      R"("merge_weights":false,"enable_lora":null,"note":"by hand","empty":[],"none":{})"));
  CHECK(c.rank == 2);
  CHECK(c.alpha == 4.0);
  CHECK_FALSE(c.use_rslora);
  CHECK(c.base_model_name_or_path == "meta/x");
  CHECK(c.task_type == "CAUSAL_LM");
  CHECK(c.revision.empty());
  CHECK(c.peft_version == "0.21.2");
  CHECK(c.unknown_fields == std::vector<std::string>{"merge_weights", "enable_lora", "note", "empty", "none"});
  for (const char* init : {"true", "false", "null", "\"gaussian\"", "\"orthogonal\"", "\"eva\"", "\"mica\""})
    CHECK(config_refused(config(std::string("\"init_lora_weights\":") + init)) == "");
  CHECK(adapter_folder(config(R"("note":"by hand")"), pairs({"m"})).load().report.unknown_fields == std::vector<std::string>{"note"});
}

TEST_CASE("io/peft: the table of fields is sorted, has no field twice, and knows all that PEFT 0.21.2 writes") {
  using namespace lora::detail;
  for (std::size_t i = 1; i < peft_field_count; ++i) CHECK(peft_fields[i - 1].name < peft_fields[i].name);
  const nlohmann::json written = nlohmann::json::parse(test::read_file(peft_data + "plain/adapter_config.json"));
  // PEFT writes every field but runtime_config.
  CHECK(written.size() == peft_field_count - 1);
  for (const auto& item : written.items()) {
    CAPTURE(item.key());
    CHECK(std::any_of(std::begin(peft_fields), std::end(peft_fields), [&](const peft_field& f) { return f.name == item.key(); }));
  }
}

TEST_CASE("io/peft: the table of fields is that of PEFT 0.21.2's LoraConfig, field by field") {
  // tests/data/peft/fields.txt is what dataclasses.fields(peft.LoraConfig) gave; tests/lora_program/peft_fields_test.py holds it to a newer PEFT.
  std::istringstream lines(test::read_file(peft_data + "fields.txt"));
  std::size_t count = 0;
  for (std::string field; std::getline(lines, field); ++count) {
    CAPTURE(field);
    REQUIRE(count < lora::detail::peft_field_count);
    CHECK(field == lora::detail::peft_fields[count].name);
  }
  CHECK(count == lora::detail::peft_field_count);
}

TEST_CASE("io/peft: every tensor that is not a lora_A or lora_B weight is refused by name") {
  const auto with = [](const std::string& name) {
    test::safetensors_builder b;
    return refused(pair(b, "m").zeros(name, {2, 2}));
  };
  const std::string file = "'adapter_model.safetensors': tensor '";
  CHECK(with(prefix + "m.lora_magnitude_vector") ==
        file + prefix + "m.lora_magnitude_vector': is a magnitude of DoRA, but use_dora of adapter_config.json is false");
  CHECK(with(prefix + "e.lora_embedding_A") == file + prefix + "e.lora_embedding_A': has no lora_embedding_B beside it");
  CHECK(with(prefix + "e.lora_embedding_B") == file + prefix + "e.lora_embedding_B': has no lora_embedding_A beside it");
  CHECK(test::contains(with(prefix + "e.lora_embedding_A.weight"), "': does not end in .lora_embedding_A, .lora_embedding_B or "));
  CHECK(with(prefix + "m.lora_B.bias") == file + prefix + "m.lora_B.bias': is a bias of B, but lora_bias of adapter_config.json is false");
  CHECK(with(prefix + "m.lora_diag") == file + prefix + "m.lora_diag': is a diagonal of KaSA, which is not supported");
  CHECK(with(prefix + "e.token_adapter.trainable_tokens_delta") ==
        file + prefix +
            "e.token_adapter.trainable_tokens_delta': holds trained token rows, which trainable_token_indices of adapter_config.json does "
            "not announce");
  CHECK(with(prefix + "n.base_layer.weight") ==
        file + prefix + "n.base_layer.weight': is a copy of a base tensor of a module that has no lora_A");
  CHECK(with(prefix + "m.weight") ==
        file + prefix + "m.weight': is not a lora_A or lora_B weight, and modules_to_save does not name its module");
  CHECK(with(prefix + "m.base_layer.bias") ==
        file + prefix + "m.base_layer.bias': is a trained bias, but bias of adapter_config.json is \"none\"");
  CHECK(with(prefix + "m.bias") == file + prefix + "m.bias': is a trained bias, but bias of adapter_config.json is \"none\"");
  CHECK(with(prefix + "head.scale") ==
        file + prefix + "head.scale': is not a lora_A or lora_B weight, and modules_to_save does not name its module");
  CHECK(with(prefix + "head.original_module.weight") ==
        file + prefix + "head.original_module.weight': is not a lora_A or lora_B weight, and modules_to_save does not name its module");
  CHECK(with("m.lora_A.weight") == file + "m.lora_A.weight': does not begin with 'base_model.model.', as the names of PEFT do");
  CHECK(with("lora_unet_x.lora_down.weight") ==
        file + "lora_unet_x.lora_down.weight': does not begin with 'base_model.model.', as the names of PEFT do");
  CHECK(test::contains(with(prefix + "m.lora_A.default.weight"),
                       "': does not end in .lora_A.weight or .lora_B.weight (a name of the adapter inside"));
  CHECK(with("base_model.model.lora_A.weight") == file + "base_model.model.lora_A.weight': names no module");
}

TEST_CASE("io/peft: what the configuration announces must be there, once, for every module, and fit") {
  const std::string file = "'adapter_model.safetensors': tensor '" + prefix;
  const auto with = [](const std::string& field, const std::string& name, std::vector<std::size_t> shape, const char* type = "F32") {
    test::safetensors_builder b;
    pair(b, "m");
    if (!name.empty()) b.zeros(prefix + name, std::move(shape), type, std::string(type) == "F64" ? 8 : 4);
    return refused(config(field), b.bytes());
  };
  const std::string dora = R"("use_dora":true)";
  const std::string bias = R"("lora_bias":true)";
  const std::string all = R"("bias":"all")";
  CHECK(with(dora, "m.lora_magnitude_vector", {5}).empty());
  CHECK(with(bias, "m.lora_B.bias", {5}).empty());
  CHECK(with(all, "m.base_layer.bias", {5}).empty());
  CHECK(with(all, "other.bias", {7}).empty());
  CHECK(with(all, "", {}).empty());
  CHECK(with(dora, "", {}) ==
        file + "m.lora_A.weight': has no lora_magnitude_vector beside it, but use_dora of adapter_config.json is true");
  CHECK(with(bias, "", {}) == file + "m.lora_B.weight': has no bias beside it, but lora_bias of adapter_config.json is true");
  CHECK(with(dora, "m.lora_magnitude_vector", {4}) == file + "m.lora_magnitude_vector': shape [4] is not [5], the outputs of its lora_B");
  CHECK(with(bias, "m.lora_B.bias", {5, 1}) == file + "m.lora_B.bias': shape [5, 1] is not [5], the outputs of its lora_B");
  CHECK(with(all, "other.bias", {0}) == file + "other.bias': shape [0] is not that of a bias");
  CHECK(with(all, "other.bias", {1, 1, 7, 7}).empty());  // GPT-2's mask, which has the name: a tensor, no module's bias
  CHECK(with(dora, "m.lora_magnitude_vector", {5}, "F64") == file + "m.lora_magnitude_vector': dtype f64 is not one of f32, f16 and bf16");
  CHECK(with(all, "m.bias", {5}) == file + "m.bias': is a trained bias of an adapted module; its name would end in .base_layer.bias");
  CHECK(with(all, "n.base_layer.bias", {5}) == file + "n.base_layer.bias': has no lora_A beside it");
  CHECK(config_refused(config(dora + "," + bias)).starts_with("'c': use_dora and lora_bias are both true, which PEFT does not define"));
  const peft_adapter a = adapter_folder(config(all), pair(test::safetensors_builder().zeros(prefix + "z.bias", {7}), "m").bytes()).load();
  REQUIRE(a.adapter.modules.size() == 2);
  CHECK(a.adapter.modules[1].name == "z");
  CHECK(a.adapter.modules[1].weights.a.data() == nullptr);
  CHECK(a.report.tensors_used == 3);
  CHECK(parsed(config(R"("fan_in_fan_out":true)")).fan_in_fan_out);
}

TEST_CASE("io/peft: pairs, ranks, shapes and types are checked") {
  const std::string file = "'adapter_model.safetensors': tensor '" + prefix;
  {
    test::safetensors_builder b;
    CHECK(refused(b.zeros(prefix + "m.lora_A.weight", {2, 3})) == file + "m.lora_A.weight': has no lora_B beside it");
  }
  {
    test::safetensors_builder b;
    CHECK(refused(pair(b, "m").zeros(prefix + "n.lora_B.weight", {5, 2})) == file + "n.lora_B.weight': has no lora_A beside it");
  }
  {
    test::safetensors_builder b;
    b.zeros(prefix + "m.lora_A.weight", {2, 3}).zeros(prefix + "m.lora_B.weight", {5, 4});
    CHECK(refused(b) == file + "m.lora_A.weight': shape [2, 3] [rank, in] and its lora_B [5, 4] [out, rank] have different ranks");
  }
  {
    test::safetensors_builder b;
    b.zeros(prefix + "m.lora_A.weight", {2, 3}).zeros(prefix + "m.lora_B.weight", {5, 2, 1, 1});
    CHECK(refused(b) == file + "m.lora_B.weight': shape [5, 2, 1, 1] is not that of a matrix");
  }
  {
    test::safetensors_builder b;
    b.zeros(prefix + "m.lora_A.weight", {2, 3}, "F64", 8).zeros(prefix + "m.lora_B.weight", {5, 2});
    CHECK(refused(b) == file + "m.lora_A.weight': dtype f64 is not one of f32, f16 and bf16");
  }
  {
    test::safetensors_builder b;
    b.zeros(prefix + "m.lora_A.weight", {2, 3}).zeros(prefix + "m.lora_B.weight", {5, 2}, "F8_E4M3", 1);
    CHECK(refused(b) == file + "m.lora_B.weight': dtype f8_e4m3 is not one of f32, f16 and bf16");
  }
  CHECK(refused(config("", "3"), pairs({"m"})) ==
        file + "m.lora_A.weight': shape [2, 3] has rank 2, but r and rank_pattern of adapter_config.json say 3");
  CHECK(refused(config(R"("rank_pattern":{"m":3})"), pairs({"m"})) ==
        file + "m.lora_A.weight': shape [2, 3] has rank 2, but r and rank_pattern of adapter_config.json say 3");
  CHECK(refused(config("", "2", "1e39"), pairs({"m"})) == "'adapter_config.json': the alpha of module 'm' does not fit a float");
  CHECK(refused(config(R"("alpha_pattern":{"m":-1e300})"), pairs({"m"})) ==
        "'adapter_config.json': the alpha of module 'm' does not fit a float");
  CHECK(refused(config(), test::safetensors_builder().bytes()) == "'adapter_model.safetensors': the adapter adapts no module");
  CHECK(test::contains(refused(config(), pairs({"m"}) + "x"), "'adapter_model.safetensors': 1 bytes follow the last tensor"));
}

TEST_CASE("io/peft: a directory that is not an adapter is told apart from its likely mistakes") {
  const auto what = [](const std::string& path) { return test::refusal<lora::io_error>([&] { (void)load_peft(path); }); };
  const std::string named = peft_data + "named";
  CHECK(what(named) == "'" + named +
                           "': there is no adapter_config.json; PEFT saves adapters with a name of their own in sub-folders: pass '" +
                           named + "/second'");
  {
    const test::temporary_folder folder;
    for (const char* name : {"b", "a", "d", "c"}) folder.write(std::string(name) + "/adapter_config.json", config());
    folder.write("e/other.json", "");
    CHECK(what(folder.path()) ==
          "'" + folder.path() + "': there is no adapter_config.json; PEFT saves adapters with a name of their own in sub-folders: pass '" +
              folder.path() + "/a' or '" + folder.path() + "/b' or '" + folder.path() + "/c' or another of its 4 adapters");
  }
  {
    const test::temporary_folder folder;
    CHECK(what(folder.path()) == "'" + folder.path() + "': there is no adapter_config.json");
    CHECK(what(folder.path() + "/x") == "'" + folder.path() + "/x': there is no adapter_config.json: the directory does not exist");
    folder.write("adapter_model.safetensors", pairs({"m"}));
    CHECK(what(folder.path()) ==
          "'" + folder.path() +
              "': there is no adapter_config.json beside its adapter_model.safetensors: rank and alpha are unknown without it");
  }
  {
    const test::temporary_folder folder;
    folder.write("adapter_config.json", config());
    CHECK(what(folder.path()) == "'" + folder.path() + "': there is no adapter_model.safetensors");
    folder.write("adapter_model.bin", "");
    CHECK(what(folder.path()) ==
          "'" + folder.path() +
              "': there is no adapter_model.safetensors; its adapter_model.bin is a pickle, which is never read: save it as safetensors");
    std::filesystem::create_directory(folder.path() + "/adapter_model.safetensors");
    CHECK(test::contains(what(folder.path()), "/adapter_model.safetensors': is a directory, not a regular file"));
  }
}

TEST_CASE("io/peft: every single-byte change of a configuration is refused or read, never worse") {
  const std::string whole =
      config(R"("use_rslora":true,"rank_pattern":{"a.b":3,"c|d":4},"alpha_pattern":{"x":1.5},"bias":"none","new":null,"use_dora":false)");
  REQUIRE(config_refused(whole) == "");
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string mutant = whole;
    for (int value = 0; value < 256; ++value) {
      mutant[i] = static_cast<char>(value);
      const std::string what = config_refused(mutant);
      if (what.empty())
        ++accepted;
      else if (!what.starts_with("'c': "))
        FAIL("byte " << i << " = " << value << ": " << what);
    }
  }
  CHECK(accepted > whole.size());
  for (std::size_t n = 0; n < whole.size(); ++n) CHECK(config_refused(whole.substr(0, n)).starts_with("'c': "));
}
