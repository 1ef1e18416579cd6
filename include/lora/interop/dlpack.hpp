// SPDX-License-Identifier: Apache-2.0
//
// DLPack 1.x: arrays to and from NumPy, PyTorch, JAX and whoever else speaks it, without a copy. The structs are those of the header
// dlpack/dlpack.h, version 1.1, of github.com/dmlc/dlpack. They are declared here, in namespace lora, so that nothing needs to be
// installed; when that header (1.0 or newer) was included before this one, its own are used.
//
//   DLManagedTensorVersioned* m = lora::to_dlpack(std::move(array));       // whoever gets m calls its deleter, once
//   lora::dlpack_tensor t = lora::from_dlpack(m);                           // calls it when t goes
//   auto x = t.view().as<const float, 2>();
//
// Elements on the CPU, in whole bytes: bool, the integers, f16 f32 f64 bf16, the 8-bit floats, complex64. The 4- and 6-bit types are not
// exchanged (two packings of them are in use), nor are vectors of several lanes.
#ifndef LORA_INTEROP_DLPACK_HPP
#define LORA_INTEROP_DLPACK_HPP

#include <lora/nd/any_view.hpp>
#include <lora/nd/array.hpp>

#include <memory>
#include <utility>

// Files that see the structs of dlpack.h and files that see ours may meet in one program: what mentions them has a name of its own.
#ifdef DLPACK_MAJOR_VERSION
#if DLPACK_MAJOR_VERSION != 1
#error "lora: the dlpack/dlpack.h that was included is not of version 1; include another, or none"
#endif
#define LORA_DLPACK_ABI dlpack_included
#else
#define LORA_DLPACK_ABI dlpack_declared
#endif

namespace lora::inline v0 {
inline namespace LORA_DLPACK_ABI {

#ifdef DLPACK_MAJOR_VERSION
using ::DLDataType;
using ::DLDevice;
using ::DLDeviceType;
using ::DLManagedTensor;
using ::DLManagedTensorVersioned;
using ::DLPackVersion;
using ::DLTensor;
#else
struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};
enum DLDeviceType : std::int32_t { kDLCPU = 1 };
struct DLDevice {
  DLDeviceType device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements
  std::uint64_t byte_offset;
};
struct DLManagedTensor {  // before 1.0: cannot say that an array is read-only
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor* self);
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  std::uint64_t flags;
  DLTensor dl_tensor;
};
#endif
static_assert(sizeof(DLTensor) == 48 && sizeof(DLManagedTensor) == 64 && sizeof(DLManagedTensorVersioned) == 80,
              "lora: DLPack's structs are exchanged between libraries; their layout is fixed");

/** The bits of DLManagedTensorVersioned::flags. */
inline constexpr std::uint64_t dlpack_read_only = 1;
inline constexpr std::uint64_t dlpack_is_copied = 2;
inline constexpr std::uint64_t dlpack_subbyte_padded = 4;

}  // namespace LORA_DLPACK_ABI

namespace detail {

struct dlpack_type {
  dtype type;
  std::uint8_t code;
};

// safetensors' F8_E4M3 is the variant without infinities, DLPack's e4m3fn; DLPack's e4m3 (8), e3m4 (7) and e4m3b11fnuz (9) are others.
inline constexpr dlpack_type dlpack_types[] = {
    {dtype::i8, 0},           {dtype::i16, 0},      {dtype::i32, 0},          {dtype::i64, 0},      {dtype::u8, 1},
    {dtype::u16, 1},          {dtype::u32, 1},      {dtype::u64, 1},          {dtype::f16, 2},      {dtype::f32, 2},
    {dtype::f64, 2},          {dtype::bf16, 4},     {dtype::c64, 5},          {dtype::boolean, 6},  {dtype::f8_e4m3, 10},
    {dtype::f8_e4m3fnuz, 11}, {dtype::f8_e5m2, 12}, {dtype::f8_e5m2fnuz, 13}, {dtype::f8_e8m0, 14},
};

[[nodiscard]] inline const char* dlpack_device_name(int device) noexcept {
  switch (device) {
    case 1:
      return "the CPU";
    case 2:
      return "CUDA";
    case 3:
      return "CUDA's pinned host memory";
    case 4:
      return "OpenCL";
    case 7:
      return "Vulkan";
    case 8:
      return "Metal";
    case 10:
      return "ROCm";
    case 11:
      return "ROCm's pinned host memory";
    case 13:
      return "CUDA's managed memory";
    case 14:
      return "oneAPI";
    case 15:
      return "WebGPU";
    case 16:
      return "Hexagon";
    default:
      return "another device";
  }
}

/**
 * Gives axes of length 1 the stride that a contiguous array would have there, and arrays without elements C strides: some consumers
 * look at them, and garbage in them must not overflow later. What is contiguous then is so by every definition.
 */
inline void normalise_strides(const index_t* shape, index_t* stride, std::size_t rank) noexcept {
  if (product(shape, rank) == 0) return fill_strides(shape, rank, order::C, stride);
  const bool f_order = !contiguous_in(shape, stride, rank, order::C) && contiguous_in(shape, stride, rank, order::F);
  index_t next = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t axis = f_order ? i : rank - 1 - i;
    if (shape[axis] == 1) stride[axis] = next;
    if (!checked_mul(stride[axis], shape[axis], next)) next = 1;  // beyond the last element: the view itself is addressable
  }
}

inline namespace LORA_DLPACK_ABI {

/** What an exported struct keeps alive. Deleted through the struct's own deleter. */
template <class Managed>
struct dlpack_export {
  Managed managed{};
  std::int64_t shape[max_rank] = {};
  std::int64_t strides[max_rank] = {};
  std::shared_ptr<const void> owner;

  static void destroy(Managed* self) noexcept {
    if (self != nullptr) delete static_cast<dlpack_export*>(self->manager_ctx);
  }
};

template <class Managed>
[[nodiscard]] Managed* export_dlpack(const any_view& v, std::shared_ptr<const void> owner) {
  const dlpack_type* known = nullptr;
  for (const dlpack_type& t : dlpack_types)
    if (t.type == v.type()) known = &t;
  if (known == nullptr)
    raise<dtype_error>(text() << "to_dlpack: dtype " << name_of(v.type())
                              << " is not exchanged: its elements are parts of bytes, and two packings of them are in use");
  auto e = std::make_unique<dlpack_export<Managed>>();
  std::array<index_t, max_rank> stride{};
  for (std::size_t i = 0; i < v.rank(); ++i) stride[i] = v.stride(i);
  normalise_strides(v.shape(), stride.data(), v.rank());
  for (std::size_t i = 0; i < v.rank(); ++i) {
    e->shape[i] = v.extent(i);
    e->strides[i] = stride[i];
  }
  DLTensor& t = e->managed.dl_tensor;
  t.data = v.size() == 0 ? nullptr : const_cast<void*>(v.data());
  t.device = {static_cast<DLDeviceType>(1), 0};
  t.ndim = static_cast<std::int32_t>(v.rank());
  t.dtype = {known->code, static_cast<std::uint8_t>(bits_of(v.type())), 1};
  t.shape = e->shape;
  t.strides = e->strides;
  t.byte_offset = 0;
  e->owner = std::move(owner);
  e->managed.manager_ctx = e.get();
  e->managed.deleter = &dlpack_export<Managed>::destroy;
  return &e.release()->managed;
}

}  // namespace LORA_DLPACK_ABI
}  // namespace detail

inline namespace LORA_DLPACK_ABI {

/**
 * A view for export, with whatever keeps its elements alive.
 *
 * The struct is marked read-only when the view is. Strides are always filled in; axes of length 1 get the stride of a contiguous array;
 * data is null when there are no elements; byte_offset is 0.
 *
 * @param v       any strides, negative and 0 too (NumPy takes them; PyTorch refuses negative ones by itself)
 * @param owner   released by the deleter, whichever thread calls it; when empty, the elements must outlive every consumer
 * @param copied  says that the elements are a copy made for the consumer, who may then write
 * @return the struct, which whoever receives it gives back to its deleter exactly once
 * @throws dtype_error for the 4- and 6-bit types; std::bad_alloc. `owner` is then released.
 * @par Cost      One allocation of about 300 bytes.
 */
[[nodiscard]] inline DLManagedTensorVersioned* to_dlpack(const any_view& v, std::shared_ptr<const void> owner, bool copied = false) {
  DLManagedTensorVersioned* const m = detail::export_dlpack<DLManagedTensorVersioned>(v, std::move(owner));
  m->version = {1, 1};
  m->flags = (v.read_only() ? dlpack_read_only : 0) | (copied ? dlpack_is_copied : 0);
  return m;
}

/** The struct of DLPack before 1.0, for old consumers. @throws dtype_error also for a read-only view: this struct cannot say so. */
[[nodiscard]] inline DLManagedTensor* to_dlpack_legacy(const any_view& v, std::shared_ptr<const void> owner) {
  if (v.read_only())
    detail::raise<dtype_error>(
        detail::text() << "to_dlpack_legacy: the array is read-only, which the struct of DLPack before 1.0 cannot say; "
                          "use to_dlpack, or copy it");
  return detail::export_dlpack<DLManagedTensor>(v, std::move(owner));
}

/** An array that goes with the struct: it is freed by the deleter. */
template <class T, std::size_t R>
[[nodiscard]] DLManagedTensorVersioned* to_dlpack(ndarray<T, R>&& array) {
  auto owner = std::make_shared<ndarray<T, R>>(std::move(array));
  const any_view v(owner->view());
  return to_dlpack(v, std::move(owner));
}
template <class T, std::size_t R>
[[nodiscard]] DLManagedTensor* to_dlpack_legacy(ndarray<T, R>&& array) {
  auto owner = std::make_shared<ndarray<T, R>>(std::move(array));
  const any_view v(owner->view());
  return to_dlpack_legacy(v, std::move(owner));
}
template <class T, std::size_t R>
void to_dlpack(const ndarray<T, R>&) = delete;  // lora: the array would stay while others use it; std::move it, or export a view
template <class T, std::size_t R>
void to_dlpack_legacy(const ndarray<T, R>&) = delete;  // lora: the array would stay while others use it; std::move it, or export a view

/**
 * An array that came through DLPack: owns the struct, and calls its deleter exactly once, when it goes. Move-only.
 *
 * @par Lifetime   The view is valid as long as this object.
 * @par Threads    As the elements. The producer says on which threads its deleter may run.
 */
class dlpack_tensor {
 public:
  dlpack_tensor() noexcept = default;
  dlpack_tensor(dlpack_tensor&& other) noexcept
      : versioned_(std::exchange(other.versioned_, nullptr)),
        legacy_(std::exchange(other.legacy_, nullptr)),
        view_(std::exchange(other.view_, any_view())),
        copied_(std::exchange(other.copied_, false)) {}
  dlpack_tensor& operator=(dlpack_tensor&& other) noexcept {
    if (this != &other) {
      release();
      versioned_ = std::exchange(other.versioned_, nullptr);
      legacy_ = std::exchange(other.legacy_, nullptr);
      view_ = std::exchange(other.view_, any_view());
      copied_ = std::exchange(other.copied_, false);
    }
    return *this;
  }
  dlpack_tensor(const dlpack_tensor&) = delete;
  dlpack_tensor& operator=(const dlpack_tensor&) = delete;
  ~dlpack_tensor() { release(); }

  /** Read-only when the producer says so. Not necessarily aligned: any_view::is_aligned() tells, as<T, R>() refuses. */
  [[nodiscard]] const any_view& view() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  any_view view() && = delete;  // lora: a view of a temporary dlpack_tensor would dangle; name it
  /** Whether the producer made the elements for us alone. */
  [[nodiscard]] bool copied() const noexcept { return copied_; }

 private:
  friend dlpack_tensor from_dlpack(DLManagedTensorVersioned*);
  friend dlpack_tensor from_dlpack(DLManagedTensor*);

  void release() noexcept {
    view_ = any_view();
    if (auto* const m = std::exchange(versioned_, nullptr); m != nullptr && m->deleter != nullptr) m->deleter(m);
    if (auto* const m = std::exchange(legacy_, nullptr); m != nullptr && m->deleter != nullptr) m->deleter(m);
  }

  // The deleter first: without exceptions nothing is unwound, and the producer's memory must go back all the same.
  template <class Error>
  [[noreturn]] void refuse(const detail::text& why) {
    release();
    detail::raise<Error>(why);
  }

  void read(const DLTensor& t, bool read_only) {
    using detail::text;
    const auto device = static_cast<int>(t.device.device_type);
    if (device != 1)
      refuse<value_error>(text() << "from_dlpack: the array is in the memory of " << detail::dlpack_device_name(device) << " (device "
                                 << device << "); copy it to the CPU first");
    if (t.ndim < 0 || static_cast<std::size_t>(t.ndim) > max_rank)
      refuse<shape_error>(text() << "from_dlpack: an array of rank " << t.ndim << ": the highest supported rank is " << max_rank);
    if (t.dtype.lanes != 1) refuse<dtype_error>(text() << "from_dlpack: elements of " << t.dtype.lanes << " lanes are not supported");
    const detail::dlpack_type* known = nullptr;
    for (const detail::dlpack_type& k : detail::dlpack_types)
      if (k.code == t.dtype.code && bits_of(k.type) == t.dtype.bits) known = &k;
    if (known == nullptr)
      refuse<dtype_error>(
          text() << "from_dlpack: elements of code " << t.dtype.code << " and " << t.dtype.bits
                 << " bits are not supported (code 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool, 7-17 small floats)");
    const auto rank = static_cast<std::size_t>(t.ndim);
    if (rank != 0 && t.shape == nullptr) refuse<value_error>(text() << "from_dlpack: the shape is null");
    std::array<index_t, max_rank> shape{};
    std::array<index_t, max_rank> stride{};
    for (std::size_t i = 0; i < rank; ++i) shape[i] = static_cast<index_t>(t.shape[i]);
    const auto width = static_cast<index_t>(size_of(known->type));
    const detail::shape_text shape_shown{shape.data(), rank};
    if (!addressable(shape.data(), rank, size_of(known->type)))
      refuse<shape_error>(text() << "from_dlpack: shape " << shape_shown << " of " << name_of(known->type)
                                 << " has a negative extent or does not fit the address space");
    detail::fill_strides(shape.data(), rank, order::C, stride.data());
    for (std::size_t i = 0; i < rank && t.strides != nullptr; ++i) stride[i] = static_cast<index_t>(t.strides[i]);
    detail::normalise_strides(shape.data(), stride.data(), rank);
    const bool empty = detail::product(shape.data(), rank) == 0;
    if (!empty && t.data == nullptr)
      refuse<value_error>(text() << "from_dlpack: shape " << shape_shown << " has elements, but data is null");

    // From the first byte that the view reaches to one past the last: inside the address space, and not around its end.
    const auto reach = detail::span_of(shape.data(), stride.data(), rank);
    index_t below = 0;
    index_t bytes = 0;
    const bool fits = reach.fits && checked_mul(reach.below, width, below) && checked_mul(reach.size, width, bytes) &&
                      t.byte_offset <= static_cast<std::uint64_t>(PTRDIFF_MAX);  // no object is larger: the pointer may move no further
    auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(t.data));
    std::uint64_t end = 0;
    if (!fits || !checked_add(address, t.byte_offset, address) || address < static_cast<std::uint64_t>(below) ||
        !checked_add(address - static_cast<std::uint64_t>(below), static_cast<std::uint64_t>(bytes), end))
      refuse<shape_error>(text() << "from_dlpack: shape " << shape_shown << " with strides " << detail::shape_text{stride.data(), rank}
                                 << " reaches outside the address space");
    const void* const data = t.data == nullptr ? nullptr : static_cast<const std::byte*>(t.data) + t.byte_offset;
    view_ = any_view(data, known->type, shape.data(), rank, stride.data(), read_only);
  }

  DLManagedTensorVersioned* versioned_ = nullptr;
  DLManagedTensor* legacy_ = nullptr;
  any_view view_;
  bool copied_ = false;
};

/**
 * Takes an array from another library. The struct belongs to the result, or, when it is refused, has been given back to its deleter: in
 * either case the caller must not call that.
 *
 * Strides that are null mean C order; byte_offset is honoured; elements may be unaligned. The bytes of a bool array are taken on trust.
 *
 * @throws value_error for null, another major version (of which nothing but the deleter is touched) and arrays that are not on the CPU;
 *         dtype_error for types that dtype does not name; shape_error for ranks above 8 and extents or strides that do not fit.
 * @par Cost  None: no allocation, no element is read.
 */
[[nodiscard]] inline dlpack_tensor from_dlpack(DLManagedTensorVersioned* managed) {
  if (managed == nullptr) detail::raise<value_error>(detail::text() << "from_dlpack: the tensor is null");
  dlpack_tensor t;
  t.versioned_ = managed;
  if (managed->version.major != 1)
    t.refuse<value_error>(detail::text() << "from_dlpack: version " << managed->version.major << "." << managed->version.minor
                                         << " of DLPack; only 1.x is understood");
  // Every type with packed elements is refused by read(); the flag needs no look.
  t.copied_ = (managed->flags & dlpack_is_copied) != 0;
  t.read(managed->dl_tensor, (managed->flags & dlpack_read_only) != 0);
  return t;
}

/** The struct of DLPack before 1.0, which cannot say that an array is read-only: the result can be written through. */
[[nodiscard]] inline dlpack_tensor from_dlpack(DLManagedTensor* managed) {
  if (managed == nullptr) detail::raise<value_error>(detail::text() << "from_dlpack: the tensor is null");
  dlpack_tensor t;
  t.legacy_ = managed;
  t.read(managed->dl_tensor, false);
  return t;
}

}  // namespace LORA_DLPACK_ABI
}  // namespace lora::inline v0

#undef LORA_DLPACK_ABI

#endif
