// SPDX-License-Identifier: Apache-2.0
#include <lora/interop/dlpack.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace {

using lora::DLManagedTensor;
using lora::DLManagedTensorVersioned;
using lora::dlpack_tensor;
using lora::from_dlpack;
using lora::to_dlpack;
using lora::to_dlpack_legacy;

template <class Error = lora::error, class Action>
std::string refusal(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

[[nodiscard]] bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/** A producer of either struct that counts its deleter's calls. */
template <class Managed>
struct producer {
  Managed managed{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  alignas(64) float elements[64] = {};
  int deleted = 0;

  explicit producer(std::vector<std::int64_t> extents = {2, 3}, std::vector<std::int64_t> steps = {})
      : shape(std::move(extents)), strides(std::move(steps)) {
    for (int i = 0; i < 64; ++i) elements[i] = static_cast<float>(i);
    if constexpr (requires { managed.version; }) managed.version = {1, 0};
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { ++static_cast<producer*>(self->manager_ctx)->deleted; };
    auto& t = managed.dl_tensor;
    t.data = elements;
    t.device = {static_cast<lora::DLDeviceType>(1), 0};
    t.ndim = static_cast<std::int32_t>(shape.size());
    t.dtype = {2, 32, 1};
    t.shape = shape.data();
    t.strides = strides.empty() ? nullptr : strides.data();
  }
  producer(const producer&) = delete;
  producer& operator=(const producer&) = delete;
};
using versioned = producer<DLManagedTensorVersioned>;
using legacy = producer<DLManagedTensor>;

/** What the import says, "" when it succeeds; the deleter must have run exactly once in any case. */
template <class Producer = versioned, class Change>
std::string import_with(Change&& change, std::vector<std::int64_t> extents = {2, 3}, std::vector<std::int64_t> steps = {}) {
  Producer p(std::move(extents), std::move(steps));
  change(p);
  std::string what = refusal([&] { (void)from_dlpack(&p.managed); });
  CHECK(p.deleted == 1);
  return what;
}

}  // namespace

TEST_CASE("interop/dlpack: an array moves into a struct that frees it: filled strides, no offset, writable") {
  auto a = lora::full(lora::extents{2, 3}, 1.5f);
  float* const elements = a.data();
  DLManagedTensorVersioned* m = to_dlpack(std::move(a));
  CHECK(m->version.major == 1);
  CHECK(m->flags == 0);
  const auto& t = m->dl_tensor;
  CHECK(t.data == elements);
  CHECK(static_cast<int>(t.device.device_type) == 1);
  CHECK(t.device.device_id == 0);
  CHECK(t.ndim == 2);
  CHECK(t.dtype.code == 2);
  CHECK(t.dtype.bits == 32);
  CHECK(t.dtype.lanes == 1);
  CHECK(t.shape[0] == 2);
  CHECK(t.shape[1] == 3);
  CHECK(t.strides[0] == 3);
  CHECK(t.strides[1] == 1);
  CHECK(t.byte_offset == 0);
  m->deleter(m);  // under the address sanitizer: freed, and freed once
  DLManagedTensor* old = to_dlpack_legacy(lora::zeros<std::uint8_t>(3));
  CHECK(old->dl_tensor.dtype.code == 1);
  CHECK(old->dl_tensor.dtype.bits == 8);
  old->deleter(old);
}

TEST_CASE("interop/dlpack: a view is exported with its owner, which the deleter releases once; const is read-only") {
  auto owner = std::make_shared<std::vector<float>>(24, 2.0f);
  const std::weak_ptr<std::vector<float>> alive = owner;
  const lora::ndview<float, 2> v(owner->data(), {4, 6});
  const lora::ndview<const float, 2> c = v;
  DLManagedTensorVersioned* mutable_one = to_dlpack(v(lora::range(lora::_, lora::_, -1), lora::range(1, 6, 2)), owner);
  DLManagedTensorVersioned* const_one = to_dlpack(c, owner);
  DLManagedTensorVersioned* copied_one = to_dlpack(v, owner, true);
  DLManagedTensor* old = to_dlpack_legacy(v, owner);
  CHECK(mutable_one->flags == 0);
  CHECK(const_one->flags == lora::dlpack_read_only);
  CHECK(copied_one->flags == lora::dlpack_is_copied);
  CHECK(mutable_one->dl_tensor.data == owner->data() + 18 + 1);
  CHECK(mutable_one->dl_tensor.strides[0] == -6);
  CHECK(mutable_one->dl_tensor.strides[1] == 2);
  CHECK(contains(refusal<lora::dtype_error>([&] { (void)to_dlpack_legacy(c, owner); }),
                 "read-only, which the struct of DLPack before 1.0 cannot say"));
  owner.reset();
  mutable_one->deleter(mutable_one);
  const_one->deleter(const_one);
  old->deleter(old);
  CHECK(!alive.expired());
  copied_one->deleter(copied_one);
  CHECK(alive.expired());
}

TEST_CASE("interop/dlpack: strides of axes of length 1 are those of a contiguous array; no elements means null") {
  float x[24] = {};
  const auto strides_of = [&](std::vector<lora::index_t> shape, std::vector<lora::index_t> stride) {
    const lora::any_view v(x, lora::dtype::f32, shape.data(), shape.size(), stride.data(), false);
    DLManagedTensorVersioned* const m = to_dlpack(v, nullptr);
    const std::vector<lora::index_t> out(m->dl_tensor.strides, m->dl_tensor.strides + shape.size());
    const bool none = v.size() == 0;
    CHECK((m->dl_tensor.data == nullptr) == none);
    m->deleter(m);
    return out;
  };
  using strides = std::vector<lora::index_t>;
  CHECK(strides_of({1, 4}, {-99, 1}) == strides{4, 1});
  CHECK(strides_of({4, 1}, {1, PTRDIFF_MAX}) == strides{1, 1});
  CHECK(strides_of({2, 1, 3}, {3, 0, 1}) == strides{3, 3, 1});
  CHECK(strides_of({1, 1, 1}, {7, -8, 9}) == strides{1, 1, 1});
  CHECK(strides_of({2, 1, 3}, {1, 77, 2}) == strides{1, 2, 2});  // F order stays F order
  CHECK(strides_of({2, 3}, {-3, 1}) == strides{-3, 1});
  CHECK(strides_of({2, 3}, {0, 1}) == strides{0, 1});  // broadcast
  CHECK(strides_of({3, 0, 2}, {9, 9, 9}) == strides{2, 2, 1});
  CHECK(strides_of({}, {}) == strides{});
}

TEST_CASE("interop/dlpack: every dtype of whole bytes survives the way there and back; the packed ones are refused by name") {
  alignas(8) const unsigned char bytes[64] = {};
  const lora::index_t shape[] = {2, 3};
  std::size_t exchanged = 0;
  for (std::size_t i = 0; i < lora::dtype_count; ++i) {
    const auto type = static_cast<lora::dtype>(i);
    CAPTURE(lora::name_of(type));
    const lora::any_view v(bytes, type, shape, 2);
    if (lora::size_of(type) == 0) {
      const std::string what = refusal<lora::dtype_error>([&] { (void)to_dlpack(v, nullptr); });
      CHECK(contains(what, "is not exchanged: its elements are parts of bytes"));
      CHECK(contains(what, lora::name_of(type)));
      continue;
    }
    const dlpack_tensor t = from_dlpack(to_dlpack(v, nullptr));
    CHECK(t.view().type() == type);
    CHECK(t.view().data() == bytes);
    CHECK(t.view().rank() == 2);
    CHECK(t.view().extent(1) == 3);
    CHECK(t.view().stride(0) == 3);
    CHECK(t.view().read_only());
    ++exchanged;
  }
  CHECK(exchanged == 19);
}

TEST_CASE("interop/dlpack: an import is a view, and calls the deleter exactly once, also when it is moved about") {
  versioned p;
  {
    dlpack_tensor t = from_dlpack(&p.managed);
    CHECK(!t.copied());
    CHECK(!t.view().read_only());
    CHECK(t.view().as<float, 2>().data() == p.elements);
    CHECK(t.view().as<float, 2>()(1, 2) == 5.0f);  // null strides: C order
    dlpack_tensor moved = std::move(t);
    CHECK(t.view().size() == 0);
    dlpack_tensor assigned;
    assigned = std::move(moved);
    dlpack_tensor& self = assigned;
    assigned = std::move(self);
    CHECK(assigned.view().as<float, 2>()(1, 2) == 5.0f);
    CHECK(p.deleted == 0);
    versioned q;
    dlpack_tensor other = from_dlpack(&q.managed);
    other = std::move(assigned);
    CHECK(q.deleted == 1);
    CHECK(p.deleted == 0);
  }
  CHECK(p.deleted == 1);
  legacy l;
  {
    dlpack_tensor first = from_dlpack(&l.managed);
    const dlpack_tensor t = std::move(first);
    CHECK(!t.view().read_only());
    CHECK(t.view().as<float, 2>()(1, 0) == 3.0f);
  }
  CHECK(l.deleted == 1);
  versioned no_deleter;
  no_deleter.managed.deleter = nullptr;
  CHECK(from_dlpack(&no_deleter.managed).copied() == false);
}

TEST_CASE("interop/dlpack: flags, byte_offset, strides of every sign, rank 0 to 8, elements that are not aligned") {
  versioned locked;
  locked.managed.flags = lora::dlpack_read_only | lora::dlpack_is_copied;
  {
    const dlpack_tensor t = from_dlpack(&locked.managed);
    CHECK(t.copied());
    CHECK(t.view().read_only());
    CHECK(contains(refusal<lora::dtype_error>([&] { (void)t.view().as<float, 2>(); }), "read-only"));
    CHECK(t.view().as<const float, 2>()(0, 1) == 1.0f);
  }
  versioned strided({2, 3}, {-8, 2});
  strided.managed.dl_tensor.byte_offset = 40;
  {
    const dlpack_tensor t = from_dlpack(&strided.managed);
    CHECK(t.view().as<float, 2>()(1, 2) == 10.0f - 8 + 4);
  }
  versioned repeated({4, 2}, {0, 1});
  {
    const dlpack_tensor t = from_dlpack(&repeated.managed);
    CHECK(t.view().as<float, 2>()(3, 1) == 1.0f);
  }
  versioned scalar(std::vector<std::int64_t>{});
  scalar.managed.dl_tensor.shape = nullptr;
  {
    const dlpack_tensor t = from_dlpack(&scalar.managed);
    CHECK(t.view().rank() == 0);
    CHECK(t.view().size() == 1);
  }
  versioned eight({1, 1, 2, 1, 1, 1, 1, 2}, {99, INT64_MAX, 2, 7, 7, 7, INT64_MIN, 1});
  {
    const dlpack_tensor t = from_dlpack(&eight.managed);
    CHECK(t.view().rank() == 8);
    CHECK(t.view().is_contiguous());
    CHECK(t.view().stride(6) == 2);  // no garbage is left in axes of length 1
  }
  versioned empty({3, 0}, {INT64_MAX, INT64_MIN});
  empty.managed.dl_tensor.data = nullptr;
  {
    const dlpack_tensor t = from_dlpack(&empty.managed);
    CHECK(t.view().size() == 0);
    CHECK(t.view().stride(1) == 1);
    CHECK(t.view().as<float, 2>().extent(0) == 3);
  }
  versioned odd;
  odd.managed.dl_tensor.byte_offset = 1;
  {
    const dlpack_tensor t = from_dlpack(&odd.managed);
    CHECK(!t.view().is_aligned());
    CHECK(contains(refusal<lora::dtype_error>([&] { (void)t.view().as<float, 2>(); }), "not aligned for f32"));
  }
}

TEST_CASE("interop/dlpack: of another major version only the deleter is touched") {
  struct {
    lora::DLPackVersion version;
    void* manager_ctx;
    void (*deleter)(DLManagedTensorVersioned*);
  } future{};  // shorter than the struct: the address sanitizer sees any look behind the deleter
  int deleted = 0;
  future.version = {2, 0};
  future.manager_ctx = &deleted;
  future.deleter = [](DLManagedTensorVersioned* self) { ++*static_cast<int*>(self->manager_ctx); };
  const auto memory = std::make_unique<unsigned char[]>(sizeof future);
  std::memcpy(memory.get(), &future, sizeof future);
  void* volatile hidden = memory.get();  // g++ 12 would see, and call an error, what never happens
  const std::string what = refusal<lora::value_error>([&] { (void)from_dlpack(static_cast<DLManagedTensorVersioned*>(hidden)); });
  CHECK(what == "from_dlpack: version 2.0 of DLPack; only 1.x is understood");
  CHECK(deleted == 1);
  CHECK(import_with([](auto& p) { p.managed.version = {1, 99}; }) == "");
  CHECK(contains(import_with([](auto& p) { p.managed.version = {0, 8}; }), "version 0.8"));
}

TEST_CASE("interop/dlpack: what cannot be taken is refused by name, and given back") {
  REQUIRE(import_with([](auto&) {}) == "");
  REQUIRE(import_with<legacy>([](auto&) {}) == "");
  CHECK(contains(refusal<lora::value_error>([] { (void)from_dlpack(static_cast<DLManagedTensor*>(nullptr)); }), "the tensor is null"));
  CHECK(contains(refusal<lora::value_error>([] { (void)from_dlpack(static_cast<DLManagedTensorVersioned*>(nullptr)); }),
                 "the tensor is null"));
  const auto device = [](int number) {
    return import_with([&](auto& p) { p.managed.dl_tensor.device.device_type = static_cast<lora::DLDeviceType>(number); });
  };
  CHECK(device(2) == "from_dlpack: the array is in the memory of CUDA (device 2); copy it to the CPU first");
  CHECK(contains(device(10), "ROCm"));
  CHECK(contains(device(99), "another device (device 99)"));
  const auto type = [](unsigned code, unsigned bits, unsigned lanes = 1) {
    return import_with<legacy>([&](auto& p) {
      p.managed.dl_tensor.dtype = {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), static_cast<std::uint16_t>(lanes)};
    });
  };
  CHECK(type(2, 32, 4) == "from_dlpack: elements of 4 lanes are not supported");
  CHECK(type(2, 32, 0) == "from_dlpack: elements of 0 lanes are not supported");
  CHECK(contains(type(2, 128), "elements of code 2 and 128 bits are not supported"));
  for (const unsigned code : {3u, 7u, 8u, 9u, 15u, 16u, 17u, 18u, 255u}) CHECK(contains(type(code, 8), "are not supported"));
  CHECK(contains(type(17, 4), "code 17 and 4 bits"));
  CHECK(contains(type(6, 1), "code 6 and 1 bits"));
  CHECK(contains(type(4, 32), "code 4 and 32 bits"));
  CHECK(type(4, 16) == "");
  CHECK(import_with([](auto& p) { p.managed.dl_tensor.ndim = 9; }) == "from_dlpack: an array of rank 9: the highest supported rank is 8");
  CHECK(contains(import_with([](auto& p) { p.managed.dl_tensor.ndim = -1; }), "an array of rank -1"));
  CHECK(contains(import_with([](auto& p) { p.managed.dl_tensor.shape = nullptr; }), "the shape is null"));
  CHECK(contains(import_with([](auto& p) { p.managed.dl_tensor.data = nullptr; }), "shape [2, 3] has elements, but data is null"));
  CHECK(contains(import_with([](auto&) {}, {2, -3}), "shape [2, -3] of f32 has a negative extent or does not fit the address space"));
  CHECK(contains(import_with([](auto&) {}, {INT64_MAX, 2}), "does not fit the address space"));
  CHECK(contains(import_with([](auto&) {}, {0, INT64_MAX / 2, 4}), "does not fit the address space"));
  // strides that fit no address space, in elements and in bytes, below 0 and above the end
  for (const auto& steps : std::vector<std::vector<std::int64_t>>{
           {INT64_MAX, 1}, {INT64_MIN, 1}, {INT64_MAX / 2, INT64_MAX / 2}, {INT64_MAX / 4, 1}, {-(INT64_MAX / 4), 1}, {INT64_MIN / 4, 1}}) {
    CAPTURE(steps[0]);
    CHECK(contains(import_with([](auto&) {}, {2, 3}, steps), "reaches outside the address space"));
  }
  CHECK(contains(import_with([](auto& p) { p.managed.dl_tensor.byte_offset = UINT64_MAX; }), "reaches outside the address space"));
  CHECK(contains(
      import_with([](auto& p) { p.managed.dl_tensor.byte_offset = UINT64_MAX - reinterpret_cast<std::uintptr_t>(p.elements) - 8; }),
      "reaches outside the address space"));
}
