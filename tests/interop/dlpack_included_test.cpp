// SPDX-License-Identifier: Apache-2.0
//
// A file that has the structs of dlpack/dlpack.h before it includes ours (here: as that header declares them), linked with one that has
// not (dlpack_test.cpp).
#include <cstdint>

#define DLPACK_MAJOR_VERSION 1
#define DLPACK_MINOR_VERSION 1
extern "C" {
typedef struct {
  uint32_t major, minor;
} DLPackVersion;
typedef enum : int32_t { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;
typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} DLDataType;
typedef struct {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensor* self);
} DLManagedTensor;
typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;
}

#include <lora/interop/dlpack.hpp>

#include <doctest/doctest.h>

TEST_CASE("interop/dlpack: with dlpack.h included before, its own structs are used") {
  ::DLManagedTensorVersioned* const m = lora::to_dlpack(lora::full(lora::extents{2, 3}, 1.5f));
  CHECK(m->dl_tensor.device.device_type == kDLCPU);
  const lora::dlpack_tensor t = lora::from_dlpack(m);
  CHECK(t.view().as<const float, 2>()(1, 2) == 1.5f);
  ::DLManagedTensor* const old = lora::to_dlpack_legacy(t.view(), nullptr);
  CHECK(lora::from_dlpack(old).copied() == false);
  static_assert(std::is_same_v<lora::DLTensor, ::DLTensor>);
}
