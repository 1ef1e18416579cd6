// SPDX-License-Identifier: Apache-2.0
//
// save_npy: an array as a .npy file, byte for byte what NumPy 2's np.save writes for it (version 1.0).
//
//   lora::io::save_npy("y.npy", y);                       // a view, an array, an any_view
//   lora::io::save_npy("t.npy", y.view().transpose());    // F order stays F order: nothing is transposed on the way
//
// The file appears whole under its name or not at all: it is written beside it, brought to the disk and renamed. bfloat16 and the other
// types that NumPy has no name for are refused; NumPy could read them back only as raw bytes, and as which type nobody could say.
#ifndef LORA_IO_NPY_WRITER_HPP
#define LORA_IO_NPY_WRITER_HPP

#include <lora/io/detail/atomic_file.hpp>
#include <lora/io/detail/npy_layout.hpp>
#include <lora/nd/broadcast.hpp>

namespace lora::inline v0::io {

/**
 * Writes an array.
 *
 * @param path  replaced if it is there; a symbolic link is replaced, not followed. Readers that have the old file mapped keep it.
 * @param v     any strides. C order is written as C, F order as F; what is neither is written in C order, gathered piece by piece.
 * @throws dtype_error when .npy has no such type (bf16, f8, f6, f4), before anything is written; io_error naming the path and the
 *         system's words, and the old file is still there.
 * @par Cost     One write of the elements, and two fsync. Memory: none, or 64 KiB for strided arrays.
 * @par Threads  The elements are read.
 */
inline void save_npy(const std::string& path, const any_view& v) {
  const detail::npy_layout layout(v, path);
  detail::atomic_file file(path);
  layout.write([&](const void* data, std::size_t size) { file.write(data, size); });
  file.commit();
}

/** The same for a typed array; a temporary one is fine, it lives until the call returns. */
template <detail::gives_view Owner>
void save_npy(const std::string& path, const Owner& owner) {
  save_npy(path, any_view(owner.view()));
}

}  // namespace lora::inline v0::io

#endif
