// SPDX-License-Identifier: Apache-2.0
//
// hot_swap: one base model, several adapters, swapped while request threads classify digits without pause. The base reads upright digits
// and the requests bring turned ones, so every version shows in the accuracy. Every answer is compared, bit for bit, with what its
// version answers by itself. A gray release ends it: a bad candidate goes back, a good one gets everybody. Exit code 1 when a guarantee
// of the closing list fails or a file cannot be read or written.
//
//   hot_swap                              from the source root: the tour, about 6 s
//   hot_swap --tree t.svg --metrics m.om  and the gray release as a drawing and as numbers
//   hot_swap --adapter my_adapter         and then a PEFT adapter of your own for this base
#include "options.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <filesystem>

int main(int argc, char** argv) {
  hot_swap::options o;
  CLI::App app{"Swaps LoRA adapters under request threads that classify digits without pause, and checks what must hold."};
  const auto between = [](double low, double high) { return CLI::Range(low, high).description(""); };
  app.add_option("--seconds", o.seconds, "serve for this long, all versions together")
      ->type_name("S")
      ->check(between(0.1, 86400))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "request threads; default: one for each core")
      ->type_name("N")
      ->check(between(1, 256))
      ->capture_default_str();
  app.add_option("--adapter", o.adapter, "a PEFT adapter for this base, published after the others")->type_name("DIR");
  app.add_option("--data", o.data, "base model, adapters and test set")->type_name("DIR")->capture_default_str();
  app.add_option("--tree", o.tree, "draw the versions of the gray release: an SVG")->type_name("FILE.svg");
  app.add_option("--metrics", o.metrics,
                 "write what its history counted: OpenMetrics if FILE ends in .om or .openmetrics, else Prometheus text")
      ->type_name("FILE");
  CLI11_PARSE(app, argc, argv);

  try {
    return hot_swap::take_the_tour(o) ? 0 : 1;
  } catch (const std::exception& e) {
    std::fflush(stdout);
    std::fprintf(stderr, "hot_swap: %s\n", e.what());
    std::error_code failed;
    if (!std::filesystem::exists(o.data + "/base.safetensors", failed))
      std::fprintf(stderr, "Run it from the source root, or pass the folder of the digits: --data DIR\n");
    return 1;
  }
}
