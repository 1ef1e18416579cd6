// SPDX-License-Identifier: Apache-2.0
//
// The library behind a C interface, for round_trip.py. An array here is a handle: a view and what keeps it alive. Errors come back as
// null, with the sentence in bridge_error().
#include <lora/interop/dlpack.hpp>
#include <lora/io/npz_writer.hpp>

#include <memory>
#include <string>

namespace {

struct array {
  lora::any_view view;
  std::shared_ptr<const void> owner;
  bool copied = false;
};

std::string last_error;
int live = 0;  // owners that the consumer of an export has not released

template <class Action>
auto guarded(Action&& action) -> decltype(action()) {
  last_error.clear();
  try {
    return action();
  } catch (const lora::error& e) {
    last_error = e.what();
  }
  return {};
}

template <class Managed>
array* import(Managed* managed) {
  return guarded([&] {
    auto tensor = std::make_shared<lora::dlpack_tensor>(lora::from_dlpack(managed));
    const lora::any_view view = tensor->view();
    const bool copied = tensor->copied();
    return new array{view, std::move(tensor), copied};
  });
}

/** Counts itself, so that the test sees when the consumer lets go. */
std::shared_ptr<const void> counted(std::shared_ptr<const void> owner) {
  ++live;
  return {owner.get(), [owner](const void*) { --live; }};
}

}  // namespace

extern "C" {

const char* bridge_error() { return last_error.c_str(); }
int bridge_live() { return live; }

array* bridge_import(lora::DLManagedTensorVersioned* m) { return import(m); }
array* bridge_import_legacy(lora::DLManagedTensor* m) { return import(m); }
void* bridge_export(const array* a) {
  return guarded([&]() -> void* { return lora::to_dlpack(a->view, counted(a->owner), a->copied); });
}
void* bridge_export_legacy(const array* a) {
  return guarded([&]() -> void* { return lora::to_dlpack_legacy(a->view, counted(a->owner)); });
}
void bridge_delete(lora::DLManagedTensorVersioned* m) { m->deleter(m); }
void bridge_free(array* a) { delete a; }

/** An array of our own, moved into the struct: 0, 1, 2, ... in C order. */
void* bridge_make(long rows, long columns) {
  return guarded([&]() -> void* {
    auto a = lora::uninit<float>(rows, columns);
    for (lora::index_t i = 0; i < a.size(); ++i) a.data()[i] = static_cast<float>(i);
    return lora::to_dlpack(std::move(a));
  });
}

/** "f32 [2, 3] strides [3, 1] read-only aligned" */
const char* bridge_describe(const array* a) {
  static std::string text;
  lora::detail::text t;
  t << lora::name_of(a->view.type()) << " " << lora::detail::shape_text{a->view.shape(), a->view.rank()} << " strides "
    << lora::detail::shape_text{a->view.strides(), a->view.rank()} << (a->view.read_only() ? " read-only" : "")
    << (a->view.is_aligned() ? "" : " unaligned") << (a->copied ? " copied" : "");
  text = t.c_str();
  return text.c_str();
}

array* bridge_open_npy(const char* path, int swap) {
  return guarded([&] {
    const auto file = lora::io::npy::open(path, {.swap = swap != 0});
    return new array{file.view(), file.owner(), file.bytes_copied() != 0};
  });
}
array* bridge_open_npz(const char* path, const char* name) {
  return guarded([&]() -> array* {
    const auto file = lora::io::npz::open(path);
    file.verify();
    const auto* const m = file.find(name);
    if (m == nullptr) return nullptr;
    return new array{m->view(), m->owner(), m->bytes_copied() != 0 || m->deflated()};
  });
}
int bridge_save_npy(const char* path, const array* a) {
  return guarded([&] {
    lora::io::save_npy(path, a->view);
    return 1;
  });
}
int bridge_save_npz(const char* path, int count, const char* const* names, const array* const* arrays) {
  return guarded([&] {
    lora::io::npz_writer file(path);
    for (int i = 0; i < count; ++i) file.add(names[i], arrays[i]->view);
    file.commit();
    return 1;
  });
}

}  // extern "C"
