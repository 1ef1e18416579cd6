# SPDX-License-Identifier: Apache-2.0
"""round_trip.py BRIDGE: real NumPy against the library: DLPack in both directions, .npy and .npz written by each and read by the other.
PyTorch is tried as well where it can be imported. Exit code 1 when something differs."""
import ctypes
import gc
import io
import itertools
import pathlib
import sys
import tempfile
import warnings
import weakref
import zipfile

import numpy as np

bridge = ctypes.PyDLL(sys.argv[1])  # PyDLL keeps the GIL: NumPy's deleters want it
void = ctypes.c_void_p
for name, result, arguments in [
        ("error", ctypes.c_char_p, []), ("live", ctypes.c_int, []), ("import", void, [void]), ("import_legacy", void, [void]),
        ("export", void, [void]), ("export_legacy", void, [void]), ("delete", None, [void]), ("free", None, [void]),
        ("make", void, [ctypes.c_long, ctypes.c_long]), ("describe", ctypes.c_char_p, [void]),
        ("open_npy", void, [ctypes.c_char_p, ctypes.c_int]), ("open_npz", void, [ctypes.c_char_p, ctypes.c_char_p]),
        ("save_npy", ctypes.c_int, [ctypes.c_char_p, void]),
        ("save_npz", ctypes.c_int, [ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(void)])]:
    function = getattr(bridge, "bridge_" + name)
    function.restype, function.argtypes = result, arguments
capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype, capsule_new.argtypes = ctypes.py_object, [void, ctypes.c_char_p, void]
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype, capsule_pointer.argtypes = void, [ctypes.py_object, ctypes.c_char_p]
capsule_name = ctypes.pythonapi.PyCapsule_SetName
capsule_name.argtypes = [ctypes.py_object, ctypes.c_char_p]

VERSIONED, LEGACY = b"dltensor_versioned", b"dltensor"
USED = {VERSIONED: b"used_dltensor_versioned", LEGACY: b"used_dltensor"}
checks = 0


def check(condition, *what):
    global checks
    checks += 1
    if not condition:
        print("FAILED:", *what)
        raise SystemExit(1)


def refused(call, words):
    result = call()
    check(not result and words in bridge.bridge_error().decode(), words, "!=", bridge.bridge_error())


class Array:
    """An array of the library."""

    def __init__(self, handle):
        check(handle, bridge.bridge_error())
        self.handle = handle

    def __del__(self):
        if getattr(self, "handle", None):
            bridge.bridge_free(self.handle)

    @classmethod
    def of(cls, source, legacy=False):
        """Takes a NumPy array (or a tensor of PyTorch) through its __dlpack__."""
        capsule = source.__dlpack__() if legacy else source.__dlpack__(max_version=(1, 0))
        name = LEGACY if legacy else VERSIONED
        pointer = capsule_pointer(capsule, name)
        capsule_name(capsule, USED[name])
        return cls((bridge.bridge_import_legacy if legacy else bridge.bridge_import)(pointer))

    def describe(self):
        return bridge.bridge_describe(self.handle).decode()


class Exported:
    """What numpy.from_dlpack and torch.from_dlpack take."""

    def __init__(self, array, legacy=False, pointer=None):
        self.array, self.legacy, self.pointer = array, legacy, pointer

    def __dlpack__(self, *, max_version=None, **_):
        if self.pointer:
            pointer = self.pointer
        else:
            pointer = (bridge.bridge_export_legacy if self.legacy else bridge.bridge_export)(self.array.handle)
        check(pointer, bridge.bridge_error())
        self.name = LEGACY if self.legacy else VERSIONED
        return capsule_new(pointer, self.name, None)

    def __dlpack_device__(self):
        return (1, 0)


OURS = {"bool": "bool", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8", "uint16": "u16", "uint32": "u32",
        "uint64": "u64", "float16": "f16", "float32": "f32", "float64": "f64", "complex64": "c64"}


def samples():
    """Every dtype; every way in which an array can lie in memory."""
    for name in OURS:
        base = np.arange(48).astype(name) if name != "bool" else np.arange(48) % 3 == 0
        if name == "complex64":
            base = base + 1j * base[::-1]
        yield base
        yield base.reshape(4, 12)
        yield base.reshape(2, 3, 8)[:, ::-1, 1::2]
    base = np.arange(120, dtype="f4").reshape(2, 3, 4, 5)
    yield from (base.T, np.asfortranarray(base), base[:, 1], base[..., ::-1], base[1:, :, ::3], base[:, :1], base[:1, :, :1], base[0:0],
                base[:, :, 2:2, :], np.array(3.0), np.zeros((0,)), np.zeros((3, 0, 2), order="F"), base.reshape((1, 1, 2, 3, 4, 5, 1, 1)),
                np.broadcast_to(np.float32([1, 2, 3]), (4, 3)), np.asfortranarray(np.ones((5, 1), "f4")), base[:, 1:2, :, 0], base.swapaxes(0, 2),
                np.ones((7, 3), "i2")[::-1, ::-1], np.arange(200000, dtype="u1")[::3], np.arange(300000, dtype="f8").reshape(300, 1000)[:, :999].T)
    locked = np.arange(6.0)
    locked.flags.writeable = False
    yield locked


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


def dlpack():
    for a in samples():
        ours = Array.of(a)
        text = ours.describe()
        words = f"{OURS[a.dtype.name]} [{', '.join(map(str, a.shape))}] strides"
        check(text.startswith(words), text, words)
        check(("read-only" in text) == (not a.flags.writeable), text)
        for axis, (extent, stride) in enumerate(zip(a.shape, a.strides)):
            if extent > 1 and a.size:
                check(int(text.split("strides [")[1].split("]")[0].split(",")[axis]) * a.itemsize == stride, text, a.strides)
        back = np.from_dlpack(Exported(ours))
        check(same(back, a) and back.flags.writeable == a.flags.writeable, text)
        check(a.size == 0 or back.__array_interface__["data"][0] == a.__array_interface__["data"][0], "copied:", text)
        check(back.flags.c_contiguous == a.flags.c_contiguous and back.flags.f_contiguous == a.flags.f_contiguous, text)
        if a.flags.writeable:
            old = Array.of(a, legacy=True)
            # NumPy cannot know that an old struct may be written, and so does not.
            check(same(np.from_dlpack(Exported(old, legacy=True)), a), text)
            if a.size:
                back.flat[0] = a.flat[0]  # through NumPy into our view into NumPy's array
        else:
            refused(lambda: bridge.bridge_export_legacy(ours.handle), "is read-only, which the struct of DLPack before 1.0 cannot say")
    # copies that NumPy makes for us are ours
    a = np.arange(3.0)
    capsule = a.__dlpack__(max_version=(1, 0), copy=True)
    pointer = capsule_pointer(capsule, VERSIONED)
    capsule_name(capsule, USED[VERSIONED])
    check("copied" in Array(bridge.bridge_import(pointer)).describe(), "the flag IS_COPIED is lost")
    # an unaligned array is carried
    raw = np.zeros(17, "u1")
    check("unaligned" in Array.of(raw[1:].view("f8")).describe(), "an unaligned array is not seen")
    # 64-bit complex numbers have no dtype here
    capsule = np.zeros(2, "c16").__dlpack__(max_version=(1, 0))
    pointer = capsule_pointer(capsule, VERSIONED)
    capsule_name(capsule, USED[VERSIONED])
    refused(lambda: bridge.bridge_import(pointer), "elements of code 5 and 128 bits are not supported")
    high = np.zeros((1,) * 9, "f4")
    watch = weakref.ref(high)
    capsule = high.__dlpack__(max_version=(1, 0))
    del high
    pointer = capsule_pointer(capsule, VERSIONED)
    capsule_name(capsule, USED[VERSIONED])
    check(watch() is not None, "the capsule keeps the array")
    refused(lambda: bridge.bridge_import(pointer), "the highest supported rank is 8")
    check(watch() is None, "a refused array is not given back")


def lifetimes():
    a = np.arange(5.0)
    watch = weakref.ref(a)
    ours = Array.of(a)
    del a
    check(watch() is not None, "an imported array is freed too early")
    back = np.from_dlpack(Exported(ours))
    check(bridge.bridge_live() == 1, bridge.bridge_live())
    del ours
    gc.collect()
    check(watch() is not None and back[4] == 4, "an exported array is freed too early")
    slice_of_back = back[1:]
    del back
    gc.collect()
    check(watch() is not None and slice_of_back[3] == 4 and bridge.bridge_live() == 1, "freed while a slice lives")
    del slice_of_back
    gc.collect()
    check(watch() is None and bridge.bridge_live() == 0, "not freed")
    # a capsule that nobody takes
    a = np.arange(5.0)
    watch = weakref.ref(a)
    ours = Array.of(a)
    bridge.bridge_delete(bridge.bridge_export(ours.handle))
    check(bridge.bridge_live() == 0, "the deleter does not release")
    del a, ours
    gc.collect()
    check(watch() is None, "not freed")
    made = np.from_dlpack(Exported(None, pointer=bridge.bridge_make(300, 7)))
    check(made.flags.writeable and np.array_equal(made, np.arange(2100, dtype="f4").reshape(300, 7)), "an array of ours")


def npy(folder):
    path = str(folder / "a.npy").encode()
    for a in samples():
        stream = io.BytesIO()
        np.save(stream, a)
        ours = Array.of(a)
        check(bridge.bridge_save_npy(path, ours.handle), bridge.bridge_error())
        check((folder / "a.npy").read_bytes() == stream.getvalue(), "save_npy differs from np.save:", a.dtype, a.shape, a.strides)
        for version in [(1, 0), (2, 0), (3, 0)]:
            with open(folder / "b.npy", "wb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.lib.format.write_array(file, a, version=version)
            ours = Array(bridge.bridge_open_npy(str(folder / "b.npy").encode(), 0))
            back = np.from_dlpack(Exported(ours))
            check(same(back, a) and (a.size == 0 or not back.flags.writeable), a.dtype, a.shape)
            check("read-only" in ours.describe() and "copied" not in ours.describe(), ours.describe())
            check(back.flags.f_contiguous == a.flags.f_contiguous or not a.flags.forc, a.shape, a.strides)
        big = a.astype(a.dtype.newbyteorder(">"))
        np.save(folder / "c.npy", big)
        place = str(folder / "c.npy").encode()
        check(same(np.from_dlpack(Exported(Array(bridge.bridge_open_npy(place, 1)))), a), "swapped:", a.dtype)
        if a.itemsize > 1:
            refused(lambda: bridge.bridge_open_npy(place, 0), "is big-endian")
    np.save(folder / "o.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    refused(lambda: bridge.bridge_open_npy(str(folder / "o.npy").encode(), 0), "pickled Python objects")
    np.save(folder / "s.npy", np.zeros(2, [("a", "f4"), ("b", "i4")]))
    refused(lambda: bridge.bridge_open_npy(str(folder / "s.npy").encode(), 0), "structured arrays")


def npz(folder):
    arrays = {f"a{i}": a for i, a in enumerate(samples())}
    arrays["ü/ß"] = np.arange(3)
    paths = {"stored": folder / "stored.npz", "deflated": folder / "deflated.npz", "streamed": folder / "streamed.npz"}
    np.savez(paths["stored"], **arrays)
    np.savez_compressed(paths["deflated"], **arrays)

    class Pipe(io.RawIOBase):  # cannot seek: the sizes go behind the data
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, b):
            self.data += bytes(b)
            return len(b)

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", method) as archive:
            for name, a in arrays.items():
                stream = io.BytesIO()
                np.save(stream, a)
                with archive.open(name + ".npy", "w", force_zip64=method == zipfile.ZIP_STORED) as member:
                    member.write(stream.getvalue())
        paths["streamed"].write_bytes(pipe.data)
        for path in paths.values():
            for name, a in arrays.items():
                ours = Array(bridge.bridge_open_npz(str(path).encode(), name.encode()))
                check(same(np.from_dlpack(Exported(ours)), a), path.name, name)
    # ours
    handles = [Array.of(a) for a in arrays.values()]
    names = (ctypes.c_char_p * len(handles))(*[n.encode() for n in arrays])
    pointers = (void * len(handles))(*[h.handle for h in handles])
    written = []
    for name in ("ours.npz", "again.npz"):
        check(bridge.bridge_save_npz(str(folder / name).encode(), len(handles), names, pointers), bridge.bridge_error())
        written.append((folder / name).read_bytes())
    check(written[0] == written[1], "the same arrays give other bytes")
    with np.load(folder / "ours.npz", allow_pickle=False) as read:
        check(list(read) == list(arrays), list(read))
        for name, a in arrays.items():
            check(same(read[name], a), name)
    with zipfile.ZipFile(folder / "ours.npz") as archive:
        check(archive.testzip() is None, "checksums")
    for name, a in arrays.items():
        ours = Array(bridge.bridge_open_npz(str(folder / "ours.npz").encode(), name.encode()))
        check("copied" not in ours.describe() and same(np.from_dlpack(Exported(ours)), a), name)
        address = np.from_dlpack(Exported(ours)).__array_interface__["data"][0]
        check(a.size == 0 or address % 64 == 0, "not at a multiple of 64:", name)


def torch():
    try:
        import torch
    except ImportError:
        return print("PyTorch is not importable here: its part is skipped")
    for name in ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn",
                 "float8_e5m2"]:
        t = torch.arange(24).reshape(4, 6).to(getattr(torch, name))
        for view in (t, t.T, t[1:, ::2], t[:, :1], t[:0]):
            try:
                ours = Array.of(view, legacy=True)
            except (BufferError, RuntimeError) as error:
                print(f"PyTorch {torch.__version__} does not export {name}: {error}")
                break
            back = torch.utils.dlpack.from_dlpack(Exported(ours, legacy=True).__dlpack__())
            check(back.dtype == view.dtype and back.shape == view.shape and torch.equal(back.view(view.dtype).float(), view.float()), name)
            check(view.numel() == 0 or back.data_ptr() == view.data_ptr(), name)


with tempfile.TemporaryDirectory() as scratch:
    dlpack()
    lifetimes()
    npy(pathlib.Path(scratch))
    npz(pathlib.Path(scratch))
    torch()
    gc.collect()
    check(bridge.bridge_live() == 0, "exports that were never given back:", bridge.bridge_live())
print(f"NumPy {np.__version__}: {checks} checks passed")
