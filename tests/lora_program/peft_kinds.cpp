// SPDX-License-Identifier: Apache-2.0
//
// peft_kinds FOLDER: adapters of every kind that save_peft writes, as FOLDER/CASE, and the arrays they were made of, under plain names, as
// FOLDER/CASE.safetensors. peft_writer_test.py loads the first with PEFT and computes what it must give from the second.
#include <lora/io/peft_writer.hpp>

#include <cstdio>
#include <exception>
#include <filesystem>

namespace {

using lora::index_t;

struct made {
  lora::any_view array(const std::string& name, std::initializer_list<index_t> shape) {
    std::size_t size = 1;
    for (const index_t e : shape) size *= static_cast<std::size_t>(e);
    auto& v = kept.emplace_back(std::make_unique<std::vector<float>>(size));
    for (float& f : *v) f = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1.0f;
    views.push_back({name, lora::any_view(v->data(), lora::dtype::f32, shape.begin(), shape.size())});
    return views.back().view;
  }
  lora::low_rank& module(const std::string& name) {
    adapter.modules.emplace_back();
    adapter.modules.back().name = name;
    return adapter.modules.back().weights;
  }
  lora::low_rank& pair(const std::string& name, index_t out, index_t rank, index_t in, float scale) {
    lora::low_rank& w = module(name);
    w.a = array(name + ".a", {rank, in});
    w.b = array(name + ".b", {out, rank});
    w.scale = scale;
    auto& v = kept.emplace_back(std::make_unique<std::vector<float>>(1, scale));
    const index_t one = 1;
    views.push_back({name + ".scale", lora::any_view(v->data(), lora::dtype::f32, &one, 1)});
    return w;
  }
  lora::low_rank& convolution(const std::string& name, float scale) {  // 2 channels to 4, kernel 3 x 2
    lora::low_rank& w = pair(name, 4, 3, 2 * 3 * 2, scale);
    adapter.modules.back().kind = lora::module_kind::conv2d;
    adapter.modules.back().kernel[0] = 3;
    adapter.modules.back().kernel[1] = 2;
    return w;
  }
  lora::low_rank& embedding(const std::string& name, float scale) {  // 9 words, width 6
    lora::low_rank& w = pair(name, 6, 2, 9, scale);
    adapter.modules.back().kind = lora::module_kind::embedding;
    return w;
  }
  void save(const std::string& path) const {
    lora::io::save_peft(path, adapter);
    lora::io::save_safetensors(path + ".safetensors", views);
  }
  lora::adapter adapter;
  std::vector<lora::io::named_view> views;
  std::vector<std::unique_ptr<std::vector<float>>> kept;
  unsigned state = 1;
};

/** Biases of B, trained biases, replaced weights and tensors; ranks and scales of their own. */
made biases() {
  made m;
  lora::low_rank& q = m.pair("q", 8, 2, 6, 0.3f);
  q.bias = m.array("q.lora_bias", {8});
  q.trained_bias = m.array("q.bias", {8});
  m.convolution("conv", 1.7f).bias = m.array("conv.lora_bias", {4});
  m.pair("cls.dense", 8, 20, 8, -0.1f);  // without a bias of B
  m.module("v").trained_bias = m.array("v.bias", {5});
  lora::low_rank& out = m.module("cls.out");
  out.weight = m.array("cls.out.weight", {3, 8});
  out.trained_bias = m.array("cls.out.bias", {3});
  m.module("emb").weight = m.array("emb.weight", {9, 6});
  m.adapter.tensors.push_back({"norm.weight", m.array("norm.weight", {6})});
  m.adapter.tensors.push_back({"norm.bias", m.array("norm.bias", {6})});
  return m;
}

made dora() {
  made m;
  lora::low_rank& q = m.pair("q", 8, 2, 6, 0.3f);
  q.magnitude = m.array("q.magnitude", {8});
  q.weight = m.array("q.weight", {8, 6});
  m.convolution("conv", 0.7f).magnitude = m.array("conv.magnitude", {4});
  m.embedding("emb", 1.25f).magnitude = m.array("emb.magnitude", {6});
  return m;
}

made embedding() {
  made m;
  m.embedding("emb", 0.3f);
  m.convolution("conv", 2.0f);
  m.pair("q", 8, 3, 6, 0.7f);
  return m;
}

made rows() {
  made m;
  m.pair("q", 8, 2, 6, 0.3f);
  lora::low_rank& emb = m.module("emb");
  emb.rows = m.array("emb.rows", {3, 6});
  emb.row_indices = {7, 0, 3};
  return m;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return std::fputs("usage: peft_kinds FOLDER\n", stderr), 2;
  try {
    const std::string folder = arguments[1];
    std::filesystem::create_directories(folder);
    biases().save(folder + "/biases");
    dora().save(folder + "/dora");
    embedding().save(folder + "/embedding");
    rows().save(folder + "/rows");
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "error: %s\n", e.what()), 1;
  }
}
