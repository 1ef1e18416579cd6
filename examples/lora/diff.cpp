// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "measure.hpp"
#include "terminal.hpp"

#include <lora/linalg/low_rank_norm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>

namespace program {
namespace {

void print_only(const char* where, const std::string& path, const std::vector<std::string>& names) {
  for (const std::string& n : names) std::printf("only in %s (%s): %s\n", where, escaped(path).c_str(), escaped(n).c_str());
}

/** Both lists by name; `both` gets what is in a and in b. */
template <class Item, class Both>
void match(const std::map<std::string, Item>& a, const std::map<std::string, Item>& b, std::vector<std::string>& only_a,
           std::vector<std::string>& only_b, Both&& both) {
  for (const auto& [name, item] : a) {
    const auto other = b.find(name);
    if (other == b.end())
      only_a.push_back(name);
    else
      both(name, item, other->second);
  }
  for (const auto& [name, item] : b)
    if (a.find(name) == a.end()) only_b.push_back(name);
}

[[nodiscard]] bool equal(const lora::float_view<2>& a, const lora::float_view<2>& b) {
  if (a.extent(0) != b.extent(0) || a.extent(1) != b.extent(1)) return false;
  return a.visit([&](const auto& x) {
    return b.visit([&](const auto& y) {
      for (lora::index_t i = 0; i < x.extent(0); ++i)
        for (lora::index_t j = 0; j < x.extent(1); ++j)
          if (static_cast<float>(x(i, j)) != static_cast<float>(y(i, j))) return false;
      return true;
    });
  });
}

/** The same factors are at distance 0; computed, it would be a rounding error. */
[[nodiscard]] double distance(const lora::low_rank_term& a, const lora::low_rank_term& b) {
  if (a.scale == b.scale && equal(a.a, b.a) && equal(a.b, b.b)) return 0;
  lora::low_rank_term both[] = {a, b};
  both[1].scale = -both[1].scale;
  return lora::low_rank_norm(both);
}

[[nodiscard]] std::map<std::string, const lora::adapted_module*> modules_of(const source& s) {
  std::map<std::string, const lora::adapted_module*> out;
  for (const auto& m : s.adapter.modules)
    if (!out.emplace(m.name, &m).second) throw lora::bind_error(("'" + s.path + "': the module '" + m.name + "' is adapted twice").c_str());
  return out;
}

/** || a - b || of two tensors of any rank and one shape, in double. */
[[nodiscard]] double distance(const lora::any_view& a, const lora::any_view& b) {
  const auto each = [](const lora::any_view& v, auto&& use) {
    const lora::index_t shape[] = {v.size()};
    const auto take = [&](auto typed) {
      for (lora::index_t i = 0; i < typed.extent(0); ++i) use(static_cast<double>(static_cast<float>(typed(i))), i);
    };
    if (v.is_contiguous())
      return lora::dispatch<1, float, lora::float16, lora::bfloat16>(lora::any_view(v.data(), v.type(), shape, 1), take);
    lora::dispatch<2, float, lora::float16, lora::bfloat16>(v, [&](auto typed) {
      for (lora::index_t i = 0; i < typed.extent(0); ++i)
        for (lora::index_t j = 0; j < typed.extent(1); ++j)
          use(static_cast<double>(static_cast<float>(typed(i, j))), i * typed.extent(1) + j);
    });
  };
  std::vector<double> difference(static_cast<std::size_t>(a.size()));
  each(a, [&](double x, lora::index_t i) { difference[static_cast<std::size_t>(i)] = x; });
  each(b, [&](double x, lora::index_t i) { difference[static_cast<std::size_t>(i)] -= x; });
  double squares = 0;
  for (const double d : difference) squares += d * d;
  return std::sqrt(squares);
}

/** A sentence for each tensor beside A and B that is not the same in both; nothing when all are. */
class tensor_diff {
 public:
  void compare(const std::string& module, const char* what, const lora::any_view& a, const lora::any_view& b) {
    if (a.size() == 0 && b.size() == 0) return;
    const std::string begin = escaped(module) + ": " + what;
    if (a.size() == 0 || b.size() == 0) {
      sentences.push_back(begin + " only in " + (a.size() == 0 ? "b" : "a"));
    } else if (a.rank() != b.rank() || !std::equal(a.shape(), a.shape() + a.rank(), b.shape())) {
      lora::detail::text t;
      t << " " << lora::detail::shape_text{a.shape(), a.rank()} << " and " << lora::detail::shape_text{b.shape(), b.rank()};
      sentences.push_back(begin + t.c_str());
    } else if (const double d = distance(a, b); d != 0) {
      char text[48];
      std::snprintf(text, sizeof text, ", ||a - b|| %.4g", d);
      sentences.push_back(begin + text);
    }
  }

  void compare(const lora::adapted_module& a, const lora::adapted_module& b) {
    if (a.kind != b.kind) sentences.push_back(escaped(a.name) + ": of different kinds");
    compare(a.name, "bias of B", a.weights.bias, b.weights.bias);
    compare(a.name, "magnitude of DoRA", a.weights.magnitude, b.weights.magnitude);
    compare(a.name, "trained bias", a.weights.trained_bias, b.weights.trained_bias);
    compare(a.name, "replaced weight", a.weights.weight, b.weights.weight);
    if (a.weights.row_indices != b.weights.row_indices)
      sentences.push_back(escaped(a.name) + ": other token rows are trained");
    else
      compare(a.name, "trained token rows", a.weights.rows, b.weights.rows);
  }

  std::vector<std::string> sentences;
};

/** Of two adapters of which one may have been given a base to measure DoRA with. */
struct sides {
  const source& a;
  const source& b;
  const adapted_base* model_a = nullptr;
  const adapted_base* model_b = nullptr;
};

void diff_sources(const sides& both) {
  const source& a = both.a;
  const source& b = both.b;
  const auto modules_a = modules_of(a);
  const auto modules_b = modules_of(b);
  std::vector<std::string> only_a;
  std::vector<std::string> only_b;
  struct line {
    std::string name;
    lora::low_rank_term a, b;
    double norm_a, norm_b, distance;
    bool fits;
  };
  std::vector<line> lines;
  tensor_diff others;
  bool unseen = false;  // DoRA whose effect on W is not measured
  progress shown("diff", modules_a.size());
  match(modules_a, modules_b, only_a, only_b, [&](const std::string& name, const auto* x, const auto* y) {
    shown.advance(1);
    others.compare(*x, *y);
    line l{name, checked(a.adapter, *x).term, checked(b.adapter, *y).term, 0, 0, 0, true};
    const bool pair_a = l.a.a.extent(0) != 0;
    const bool pair_b = l.b.a.extent(0) != 0;
    if (pair_a != pair_b) others.sentences.push_back(escaped(name) + ": A and B only in " + (pair_a ? "a" : "b"));
    if (!pair_a || !pair_b) return;
    l.fits = l.a.a.extent(1) == l.b.a.extent(1) && l.a.b.extent(0) == l.b.b.extent(0);
    const bool dora = x->weights.magnitude.size() != 0 || y->weights.magnitude.size() != 0;
    const bool same_weight = x->weights.weight.size() == 0 && y->weights.weight.size() == 0;
    if (dora && l.fits && same_weight && both.model_a != nullptr) {
      const std::size_t i = both.model_a->contract().find(name);
      const std::size_t j = both.model_b->contract().find(name);
      const lora::adapter_set set_a = both.model_a->set_of(i);
      const lora::adapter_set set_b = both.model_b->set_of(j);
      l.norm_a = update_distance(both.model_a->weight(i), set_a[i], {});
      l.norm_b = update_distance(both.model_a->weight(i), set_b[j], {});
      l.distance = update_distance(both.model_a->weight(i), set_a[i], set_b[j]);
    } else {
      unseen = unseen || dora;
      l.norm_a = lora::low_rank_norm({&l.a, 1});
      l.norm_b = lora::low_rank_norm({&l.b, 1});
      if (l.fits) l.distance = distance(l.a, l.b);
    }
    lines.push_back(std::move(l));
  });
  std::map<std::string, lora::any_view> tensors_a;
  std::map<std::string, lora::any_view> tensors_b;
  for (const auto& t : a.adapter.tensors) tensors_a.emplace(t.name, t.value);
  for (const auto& t : b.adapter.tensors) tensors_b.emplace(t.name, t.value);
  match(tensors_a, tensors_b, only_a, only_b,
        [&](const std::string& name, const lora::any_view& x, const lora::any_view& y) { others.compare(name, "replaced tensor", x, y); });
  if (a.adapter.fan_in_fan_out != b.adapter.fan_in_fan_out)
    others.sentences.push_back(std::string("fan_in_fan_out: ") + (a.adapter.fan_in_fan_out ? "true and false" : "false and true"));

  std::printf("a: %s (%s, %zu modules)\nb: %s (%s, %zu modules)\n", escaped(a.path).c_str(), name_of(a.kind), a.adapter.modules.size(),
              escaped(b.path).c_str(), name_of(b.kind), b.adapter.modules.size());
  print_only("a", a.path, only_a);
  print_only("b", b.path, only_b);
  if (unseen)
    std::printf("note: DoRA scales whole rows of W, which ||s B A|| does not see: pass --base to measure what the adapters make of W\n");
  double largest = 0;
  std::size_t width = 9;
  const line* furthest = nullptr;
  for (const line& l : lines) {
    width = std::max(width, characters(escaped(l.name)));
    if (!l.fits || !(l.distance > largest)) continue;
    largest = l.distance;
    furthest = &l;
  }
  width = std::min<std::size_t>(width, 40);
  if (!lines.empty())
    std::printf("\n%s %9s %17s %21s  ||a - b||\n", column("module", width).c_str(), "rank a b", "scale a b",
                both.model_a != nullptr ? "||update|| a b" : "||s B A|| a b");
  for (const line& l : lines) {
    std::printf("%s %4td %4td %8.5g %8.5g %10.4g %10.4g ", column(escaped(l.name), width).c_str(), l.a.a.extent(0), l.b.a.extent(0),
                static_cast<double>(l.a.scale), static_cast<double>(l.b.scale), l.norm_a, l.norm_b);
    if (l.fits)
      std::printf("%10.4g %s\n", l.distance, bar(l.distance, largest, 16).c_str());
    else
      std::printf(" shapes differ: %td x %td and %td x %td\n", l.a.b.extent(0), l.a.a.extent(1), l.b.b.extent(0), l.b.a.extent(1));
  }
  if (!others.sentences.empty()) std::printf("\n");
  for (const std::string& s : others.sentences) std::printf("%s\n", s.c_str());
  if (furthest != nullptr)
    std::printf("\nlargest change: %s, ||a - b|| %.4g\n", escaped(furthest->name).c_str(), furthest->distance);
  else if (only_a.empty() && only_b.empty() && others.sentences.empty() &&
           std::all_of(lines.begin(), lines.end(), [](const line& l) { return l.fits && l.distance == 0; }))
    std::printf("\nno difference\n");
}

void diff_adapters(const diff_options& o) {
  const std::optional<base_model> base = open_base_if_given(o.base);
  std::vector<source> a;
  std::vector<source> b;
  a.push_back(load(o.a, base ? &*base : nullptr, nameless::allowed));
  b.push_back(load(o.b, base ? &*base : nullptr, nameless::allowed));
  // One module against one module: a nameless one means the other's.
  for (auto* const s : {&a, &b}) {
    const lora::adapter& other = (s == &a ? b : a).front().adapter;
    if (s->front().adapter.modules.empty()) continue;  // tensors alone
    std::string& name = s->front().adapter.modules.front().name;
    if (!name.empty()) continue;
    if (other.modules.size() != 1)
      throw lora::bind_error(
          ("'" + s->front().path + "': it names no module, and '" + (s == &a ? b : a).front().path + "' has several").c_str());
    name = other.modules.front().name;
  }
  const bool nameless_pair = !a.front().adapter.modules.empty() && a.front().adapter.modules.front().name.empty();
  if (!base || nameless_pair) return diff_sources({a.front(), b.front()});
  const adapted_base model_a(*base, std::move(a), {1.0f});
  const adapted_base model_b(*base, std::move(b), {1.0f});
  diff_sources({model_a.sources().front(), model_b.sources().front(), &model_a, &model_b});
}

struct change {
  lora::index_t differing = 0;
  lora::index_t first = -1;  // of the elements that differ, in C order
  double largest = 0;
  double squares = 0;
};

template <class T>
[[nodiscard]] change compared(const lora::any_view& a, const lora::any_view& b) {
  change c;
  const auto* const x = static_cast<const T*>(a.data());
  const auto* const y = static_cast<const T*>(b.data());
  for (lora::index_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(x + i, y + i, sizeof(T)) == 0) continue;
    double d = 0;
    if constexpr (std::is_same_v<T, double>)
      d = std::abs(x[i] - y[i]);
    else
      d = std::abs(static_cast<double>(static_cast<float>(x[i])) - static_cast<double>(static_cast<float>(y[i])));
    if (c.differing++ == 0) c.first = i;
    if (!(d <= c.largest)) c.largest = d;  // a NaN stays
    c.squares += d * d;
  }
  return c;
}

void diff_bases(const diff_options& o) {
  const auto a = lora::io::sharded::open(o.a);
  const auto b = lora::io::sharded::open(o.b);
  std::map<std::string, const lora::io::safetensors::tensor*> names_a;
  std::map<std::string, const lora::io::safetensors::tensor*> names_b;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    names_a.emplace(a.tensor(i).name(), &a.tensor(i));
    bytes += a.tensor(i).size_bytes();
  }
  for (std::size_t i = 0; i < b.size(); ++i) names_b.emplace(b.tensor(i).name(), &b.tensor(i));
  std::vector<std::string> only_a;
  std::vector<std::string> only_b;
  std::size_t same = 0;
  std::string furthest;
  double largest = 0;
  std::vector<std::string> lines;
  progress shown("diff", bytes);
  match(names_a, names_b, only_a, only_b, [&](const std::string& name, const auto* x, const auto* y) {
    shown.advance(x->size_bytes());
    const std::string label = column(escaped(name), 44);
    char line[160];
    const bool shapes = x->rank() == y->rank() && std::equal(x->shape(), x->shape() + x->rank(), y->shape());
    if (!shapes || x->type() != y->type()) {
      lora::detail::text t;
      t << lora::name_of(x->type()) << " " << lora::detail::shape_text{x->shape(), x->rank()} << " and " << lora::name_of(y->type()) << " "
        << lora::detail::shape_text{y->shape(), y->rank()};
      lines.push_back(label + " " + t.c_str());
      return;
    }
    if (x->size_bytes() == 0 || std::memcmp(x->view().data(), y->view().data(), x->size_bytes()) == 0) {
      ++same;
      return;
    }
    change c;
    switch (x->type()) {
      case lora::dtype::f32:
        c = compared<float>(x->view(), y->view());
        break;
      case lora::dtype::f16:
        c = compared<lora::float16>(x->view(), y->view());
        break;
      case lora::dtype::bf16:
        c = compared<lora::bfloat16>(x->view(), y->view());
        break;
      case lora::dtype::f64:
        c = compared<double>(x->view(), y->view());
        break;
      default:
        lines.push_back(label + " " + lora::name_of(x->type()) + ", bytes differ");
        return;
    }
    std::snprintf(line, sizeof line, " %5s %12td %10.4g %10.4g", lora::name_of(x->type()), c.differing, c.largest, std::sqrt(c.squares));
    lines.push_back(label + line);
    if (furthest.empty() || c.largest > largest) {
      largest = c.largest;
      furthest = name;
    }
  });
  std::printf("a: %s (base model, %zu tensors)\nb: %s (base model, %zu tensors)\n", escaped(o.a).c_str(), a.size(), escaped(o.b).c_str(),
              b.size());
  print_only("a", o.a, only_a);
  print_only("b", o.b, only_b);
  std::printf("%zu tensors are the same, byte by byte\n", same);
  if (!lines.empty()) std::printf("\n%s %5s %12s %10s %10s\n", column("tensor", 44).c_str(), "type", "differing", "max |a-b|", "||a - b||");
  for (const std::string& l : lines) std::printf("%s\n", l.c_str());
  if (!furthest.empty()) std::printf("\nlargest change: %s, |a - b| %.4g\n", escaped(furthest).c_str(), largest);
  if (lines.empty() && only_a.empty() && only_b.empty()) std::printf("\nno difference\n");
}

}  // namespace

void diff(const diff_options& o) {
  const bool a = format_of(o.a) == format::base;
  const bool b = format_of(o.b) == format::base;
  if (a != b)
    throw lora::io_error(("'" + (a ? o.a : o.b) + "' is a base and '" + (a ? o.b : o.a) + "' an adapter: they cannot be compared").c_str());
  a ? diff_bases(o) : diff_adapters(o);
}

}  // namespace program
