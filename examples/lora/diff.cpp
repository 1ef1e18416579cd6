// SPDX-License-Identifier: Apache-2.0
#include "source.hpp"
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

[[nodiscard]] std::map<std::string, lora::low_rank_term> terms_of(const source& s) {
  std::map<std::string, lora::low_rank_term> out;
  for (const auto& m : s.adapter.modules)
    if (!out.emplace(m.name, term_of(s.adapter, m)).second)
      throw lora::bind_error(("'" + s.path + "': the module '" + m.name + "' is adapted twice").c_str());
  return out;
}

void diff_adapters(const diff_options& o) {
  std::optional<base_model> base;
  if (!o.base.empty()) base = open_base(o.base);
  source a = load(o.a, base ? &*base : nullptr, nameless::allowed);
  source b = load(o.b, base ? &*base : nullptr, nameless::allowed);
  // One module against one module: a nameless one means the other's.
  for (source* const s : {&a, &b}) {
    source& other = s == &a ? b : a;
    std::string& name = s->adapter.modules.front().name;
    if (!name.empty()) continue;
    if (other.adapter.modules.size() != 1)
      throw lora::bind_error(("'" + s->path + "': it names no module, and '" + other.path + "' has several").c_str());
    name = other.adapter.modules.front().name;
  }

  const auto terms_a = terms_of(a);
  const auto terms_b = terms_of(b);
  std::vector<std::string> only_a;
  std::vector<std::string> only_b;
  struct line {
    std::string name;
    lora::low_rank_term a, b;
    double norm_a, norm_b, distance;
    bool fits;
  };
  std::vector<line> lines;
  progress shown("diff", terms_a.size());
  match(terms_a, terms_b, only_a, only_b, [&](const std::string& name, const lora::low_rank_term& x, const lora::low_rank_term& y) {
    line l{name, x, y, lora::low_rank_norm({&x, 1}), lora::low_rank_norm({&y, 1}), 0, true};
    l.fits = x.a.extent(1) == y.a.extent(1) && x.b.extent(0) == y.b.extent(0);
    if (l.fits) l.distance = distance(x, y);
    lines.push_back(std::move(l));
    shown.advance(1);
  });

  std::printf("a: %s (%s, %zu modules)\nb: %s (%s, %zu modules)\n", escaped(a.path).c_str(), name_of(a.kind), a.adapter.modules.size(),
              escaped(b.path).c_str(), name_of(b.kind), b.adapter.modules.size());
  print_only("a", a.path, only_a);
  print_only("b", b.path, only_b);
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
    std::printf("\n%s %9s %17s %21s  ||a - b||\n", column("module", width).c_str(), "rank a b", "scale a b", "||s B A|| a b");
  for (const line& l : lines) {
    std::printf("%s %4td %4td %8.5g %8.5g %10.4g %10.4g ", column(escaped(l.name), width).c_str(), l.a.a.extent(0), l.b.a.extent(0),
                static_cast<double>(l.a.scale), static_cast<double>(l.b.scale), l.norm_a, l.norm_b);
    if (l.fits)
      std::printf("%10.4g %s\n", l.distance, bar(l.distance, largest, 16).c_str());
    else
      std::printf(" shapes differ: %td x %td and %td x %td\n", l.a.b.extent(0), l.a.a.extent(1), l.b.b.extent(0), l.b.a.extent(1));
  }
  if (furthest != nullptr)
    std::printf("\nlargest change: %s, ||a - b|| %.4g\n", escaped(furthest->name).c_str(), furthest->distance);
  else if (only_a.empty() && only_b.empty() &&
           std::all_of(lines.begin(), lines.end(), [](const line& l) { return l.fits && l.distance == 0; }))
    std::printf("\nno difference\n");
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
