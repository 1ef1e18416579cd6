#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What NumPy writes, for the tests of io/npy and io/npz without NumPy (needs NumPy 2.x; run in this folder):
headers.txt   the header of a .npy file for many types, shapes and orders: "<dtype> <order> <shape> <header without its padding> <length>"
*.npz         the same arrays stored, deflated, and written to a pipe; a big-endian array; an array of objects"""
import io
import zipfile

import numpy as np

ARRAYS = {
    "w": np.arange(6, dtype="f4").reshape(2, 3),
    "f": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)),
    "scalar": np.array(-7, dtype="i8"),
    "empty": np.zeros((3, 0), dtype="f2"),
    "mask": np.array([True, False, True]),
    "bytes": np.arange(256, dtype="u1").repeat(4),
}


def npy(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


class Pipe(io.RawIOBase):  # cannot seek: the sizes go behind the data
    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, b):
        self.file.write(b)
        return len(b)


np.savez("stored.npz", **ARRAYS)
np.savez_compressed("deflated.npz", **ARRAYS)
with open("streamed.npz", "wb") as file, zipfile.ZipFile(Pipe(file), "w") as archive:
    for number, (name, array) in enumerate(ARRAYS.items()):  # versions 1, 2 and 3; both methods; both widths of the descriptor
        info = zipfile.ZipInfo(name + ".npy")
        info.compress_type = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
        with archive.open(info, "w", force_zip64=number % 3 == 0) as member:
            member.write(npy(array, (1 + number % 3, 0)))
np.savez("big_endian.npz", x=np.arange(6, dtype=">i4").reshape(2, 3), c=np.array([1 + 2j], dtype=">c8"))
np.savez("object.npz", x=np.array([None, {}], dtype=object))

with open("headers.txt", "w", encoding="ascii") as out:
    for name in "bool i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8".split():
        for shape in [(), (0,), (3,), (2, 3), (3, 1), (1, 1, 4), (2, 0, 5), (12, 345, 67), (1,) * 8, (123456789012, 0), (2, 3, 4, 5, 1, 2, 1, 2)]:
            for order in "CF":
                array = np.zeros(shape, dtype=name, order=order)
                header = npy(array)[: 10 + int.from_bytes(npy(array)[8:10], "little")]
                fortran = "F" if not array.flags.c_contiguous else "C"
                text = header[10:].decode("ascii").rstrip()
                print(array.dtype.name, order, "x".join(map(str, shape)) or "-", fortran, len(header), text, sep="\t", file=out)
