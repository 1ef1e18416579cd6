// SPDX-License-Identifier: Apache-2.0
//
// lora: looks at adapters, applies, merges, composes, converts and compares them. docs/lora-program.md describes it with real output.
//
//   lora inspect my_adapter
//   lora merge --base model.safetensors --adapter my_adapter=0.8 --output merged.safetensors
//
// Exit code 0: done. 2: the command line is wrong. 1: a file is; stderr then has one line that begins with "error: " and names the file, and
// what stood at --output still stands there.
#include "options.hpp"
#include "terminal.hpp"

#include <lora/version.hpp>

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <utility>

#include <unistd.h>

namespace {

/** A mapped file that somebody truncates is a SIGBUS when it is read: an error of the input like any other. Only what a handler may call. */
extern "C" void truncated(int) {
  const char message[] = "error: an input file became shorter while it was read\n";
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, message, sizeof message - 1);
  ::_exit(1);
}

/** A pipe that nobody reads and a full quota are then errors of write(), which are reported. */
void calm_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGBUS, truncated);
}

int fail(const char* problem) {
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", program::escaped(problem).c_str());
  return 1;
}

/** `subject` is the file that the command is about, for errors that name none. */
template <class Options>
int run(void (*command)(const Options&), const Options& options, const std::string& subject) {
  const auto about = [&](const char* problem) { return fail(("'" + subject + "': " + problem).c_str()); };
  try {
    command(options);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return about("done, but the report could not be written to standard output");
    return 0;
  } catch (const program::usage_error& e) {
    std::fprintf(stderr, "%s\nRun with --help for more information.\n", program::escaped(e.what()).c_str());
    return 2;
  } catch (const std::bad_alloc&) {
    return about("there is not enough memory");
  } catch (const std::exception& e) {
    return std::string_view(e.what()).find('\'') == std::string_view::npos ? about(e.what()) : fail(e.what());
  }
}

/** --adapter PATH[=WEIGHT], once or more. */
CLI::Option* add_adapters(CLI::App& command, std::vector<std::string>& to) {
  return command.add_option("--adapter", to, "an adapter and the factor on its scale, 1 unless given; repeat it to sum several")
      ->type_name("PATH[=WEIGHT]")
      ->required()
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

/** --base, and what can be said of it beside. */
CLI::Option* add_base(CLI::App& command, program::base_option& to, const std::string& text) {
  const auto list = [&](const char* name, std::vector<std::string>& values, const char* type, const char* what) {
    command.add_option(name, values, what)
        ->type_name(type)
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  list("--tied", to.tied, "NAME=TO", "of the base: module NAME has the weight of TO (a tied lm_head); may be repeated");
  list("--fused", to.fused, "NAME=PART:ROWS,...", "of the base: each module NAME holds these, one below the other; may be repeated");
  return command.add_option("--base", to.path, text)->type_name("BASE")->check([](const std::string& s) {
    return s.empty() ? "is empty" : std::string();
  });
}

std::vector<program::weighted_path> parsed(const std::vector<std::string>& texts) {
  std::vector<program::weighted_path> out;
  for (const std::string& t : texts) out.push_back(program::parse_weighted(t));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  calm_signals();
  CLI::App app{
      "Looks at LoRA adapters, applies, merges, composes, converts and compares them.\n"
      "PATH is a PEFT folder, a .safetensors of kohya or diffusers, a .gguf adapter or a .json of the protocol; BASE is a .safetensors "
      "file, an index of shards or their folder."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "lora " + std::to_string(LORA_VERSION_MAJOR) + "." + std::to_string(LORA_VERSION_MINOR) + "." +
                                        std::to_string(LORA_VERSION_PATCH));
  const auto path = [](CLI::App& c, const std::string& name, std::string& to, const std::string& text, const std::string& type = "PATH") {
    return c.add_option(name, to, text)->type_name(type)->check([](const std::string& s) {
      return s.empty() ? "is empty" : std::string();
    });
  };
  std::vector<std::string> adapters;

  program::inspect_options inspect;
  CLI::App& inspect_command = *app.add_subcommand("inspect", "where an adapter acts, and how strongly; or what a base holds");
  path(inspect_command, "path", inspect.path, "an adapter or a base")->required();
  add_base(inspect_command, inspect.base, "for kohya's names, and to measure what DoRA makes of the weights");
  inspect_command.add_flag("--json", inspect.json, "for programs");

  program::apply_options apply;
  CLI::App& apply_command = *app.add_subcommand("apply", "one module with adapters on inputs: y = W x + bias + sum of s B (A x)");
  add_base(apply_command, apply.base, "the model")->required();
  add_adapters(apply_command, adapters);
  path(apply_command, "--module", apply.module, "NAME of NAME.weight in the base", "NAME")->required();
  path(apply_command, "--input", apply.input, "f32 [n, in]; int64 [n] for an embedding; f32 [n, c, h, w] for a convolution", "X.npy")
      ->required();
  path(apply_command, "--output", apply.output, "f32 [n, out], or [n, out, h, w]", "Y.npy")->required();
  apply_command.add_option("--threads", apply.threads, "threads that share one product")
      ->type_name("T")
      ->check(CLI::Range(1, 1024).description(""))
      ->capture_default_str();
  apply_command
      .add_option("--embed-scale", apply.embed_scale, "of an embedding: what its rows are multiplied by (Gemma: sqrt of the width)")
      ->type_name("FACTOR")
      ->capture_default_str();
  for (const auto& [name, to] :
       {std::pair("--stride", &apply.stride), std::pair("--padding", &apply.padding), std::pair("--dilation", &apply.dilation)})
    apply_command.add_option(name, *to, "of a convolution")->type_name("N|H,W")->capture_default_str();

  program::merge_options merge;
  CLI::App& merge_command = *app.add_subcommand("merge", "the base with adapters added to its weights, as one new file");
  add_base(merge_command, merge.base, "the model")->required();
  add_adapters(merge_command, adapters);
  path(merge_command, "--output", merge.output, "the new file", "OUT.safetensors")->required();

  program::compose_options compose;
  CLI::App& compose_command = *app.add_subcommand("compose", "several adapters as one, exactly: the ranks add up");
  add_adapters(compose_command, adapters);
  path(compose_command, "--output", compose.output, "a PEFT folder", "DIR")->required();
  add_base(compose_command, compose.base, "for kohya files, and to check the names");

  program::convert_options convert;
  CLI::App& convert_command = *app.add_subcommand("convert", "an adapter in another format; what that cannot express is refused");
  path(convert_command, "--input", convert.input, "the adapter")->required();
  convert_command.add_option("--to", convert.to, "peft, kohya, gguf or json")
      ->type_name("FORMAT")
      ->required()
      ->check(CLI::IsMember({"peft", "kohya", "gguf", "json"}).description(""));
  path(convert_command, "--output", convert.output, "a folder for peft, a file for the others")->required();
  add_base(convert_command, convert.base, "for kohya files, and to check the names");
  path(convert_command, "--architecture", convert.architecture, "for gguf: the base's, as llama.cpp calls it", "NAME");

  program::diff_options diff;
  CLI::App& diff_command = *app.add_subcommand("diff", "what differs between two adapters, or two bases");
  path(diff_command, "a", diff.a, "an adapter or a base", "A")->required();
  path(diff_command, "b", diff.b, "the like", "B")->required();
  add_base(diff_command, diff.base, "for kohya's names, and to measure what DoRA makes of the weights");

  try {
    app.parse(argc, argv);
    apply.adapters = merge.adapters = compose.adapters = parsed(adapters);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;  // --help and --version are no errors
  } catch (const program::usage_error& e) {
    std::fprintf(stderr, "%s\nRun with --help for more information.\n", program::escaped(e.what()).c_str());
    return 2;
  }
  if (inspect_command) return run(program::inspect, inspect, inspect.path);
  if (apply_command) return run(program::apply, apply, apply.base.path);
  if (merge_command) return run(program::merge, merge, merge.base.path);
  if (compose_command) return run(program::compose, compose, compose.adapters.front().path);
  if (convert_command) return run(program::convert, convert, convert.input);
  return run(program::diff, diff, diff.a);
}
