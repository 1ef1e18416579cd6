# SPDX-License-Identifier: Apache-2.0
"""check.py WRITE [--peft]: what the library's writers wrote, read by the formats' own libraries: safetensors, gguf and json; with --peft
by PEFT, whose forward pass must be W x + s B (A x). WRITE is the program that writes. Exit code 1 when something differs, 77 (skipped)
when a library is not there."""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

try:
    import gguf
    from safetensors import safe_open
    from safetensors.numpy import save
    if "--peft" in sys.argv:
        import peft
        import torch
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

MODULES = {"model.layers.0.q_proj": (4, 20, 12, "F32", 6 / 4), "model.layers.1.v_proj": (3, 7, 12, "F16", 0.1 / 3), "lm.head": (2, 5, 20, "BF16", 6 / 2)}
checks = 0


def check(condition, *what):
    global checks
    checks += 1
    if not condition:
        print("FAILED:", *what)
        raise SystemExit(1)


def rule(rows, columns, module):
    return ((7 * np.arange(rows * columns) + 3 * module) % 23 - 11).reshape(rows, columns) / 8


def factors(number, name):
    rank, out, inside = MODULES[name][:3]
    b = rule(rank, out, number).T if name == "lm.head" else rule(out, rank, number)
    return rule(rank, inside, number), b


def widened(raw, dtype):
    """float64 of the bytes of F32, F16 or BF16."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype("f8")
    return np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype("f8")


def tensors_of(path):
    """Name -> (dtype, float64), through the real reader's own table; NumPy has no bf16, so elements come from their bytes."""
    raw = path.read_bytes()
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    data = raw[8 + int.from_bytes(raw[:8], "little"):]
    with safe_open(path, framework="numpy") as file:
        check(set(file.keys()) == set(header) - {"__metadata__"}, sorted(file.keys()))
        for name in file.keys():
            if header[name]["dtype"] != "BF16":
                check(file.get_tensor(name).shape == tuple(header[name]["shape"]), name)
        metadata = file.metadata()
    return {k: (v["dtype"], widened(data[slice(*v["data_offsets"])], v["dtype"]).reshape(v["shape"])) for k, v in header.items() if k != "__metadata__"}, metadata


def safetensors_files(folder):
    tensors, metadata = tensors_of(folder / "peft" / "adapter_model.safetensors")
    check(metadata == {"format": "pt"}, metadata)
    check(len(tensors) == 6, tensors.keys())
    kohya, _ = tensors_of(folder / "kohya.safetensors")
    check(len(kohya) == 9, kohya.keys())
    for number, (name, (rank, out, inside, dtype, scale)) in enumerate(MODULES.items()):
        a, b = factors(number, name)
        key = "lora_unet_" + name.replace(".", "_")
        for got, want in [(tensors[f"base_model.model.{name}.lora_A.weight"], a), (tensors[f"base_model.model.{name}.lora_B.weight"], b),
                          (kohya[key + ".lora_down.weight"], a), (kohya[key + ".lora_up.weight"], b)]:
            check(got[0] == dtype and np.array_equal(got[1], want), name, got, want)
        alpha = kohya[key + ".alpha"]
        check(alpha[1].shape == () and np.float32(alpha[1] / rank) == np.float32(scale), alpha, scale)
    # The bytes are those of the reference's writer.
    ours = (folder / "kohya.safetensors").read_bytes()
    with safe_open(folder / "kohya.safetensors", framework="numpy") as file:
        plain = {k: file.get_tensor(k) for k in file.keys() if kohya[k][0] != "BF16"}
    check(len(plain) == 7, plain.keys())
    again = save(plain)
    length = int.from_bytes(again[:8], "little")
    order = [k for k in json.loads(again[8:8 + length])]
    check([k for k in json.loads(ours[8:8 + int.from_bytes(ours[:8], "little")]) if k in plain] == order, order)


def gguf_file(folder):
    reader = gguf.GGUFReader(folder / "adapter.gguf")
    text = {k: f.contents() for k, f in reader.fields.items()}
    check(text["general.architecture"] == "llama" and text["general.type"] == "adapter" and text["general.name"] == "made", text)
    check(text["adapter.type"] == "lora" and text["adapter.lora.alpha"] == 6.0, text)
    tensors = {t.name: t for t in reader.tensors}
    check(len(tensors) == 6, tensors.keys())
    for number, (name, (rank, out, inside, dtype, _)) in enumerate(MODULES.items()):
        for suffix, want in zip(("lora_a", "lora_b"), factors(number, name)):
            t = tensors[f"{name}.weight.{suffix}"]
            check(t.tensor_type.name == dtype and list(t.shape) == list(want.shape)[::-1], name, t.shape)
            check(np.array_equal(widened(t.data.tobytes(), dtype).reshape(want.shape), want), name)
    # The bytes of the tensors lie where the real writer puts them.
    check(reader.data_offset % 32 == 0 and (folder / "adapter.gguf").stat().st_size % 32 == 0)


def json_file(folder):
    got = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    a, b = factors(0, "model.layers.0.q_proj")
    check(got["module"] == "model.layers.0.q_proj" and (got["rank"], got["in_dim"], got["out_dim"], got["alpha"]) == (4, 12, 20, 6), got)
    check(got["a"] == a.flatten().tolist() and got["b"] == b.flatten().tolist(), "elements")


def peft_folder(folder):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.v_proj = torch.nn.Linear(12, 20), torch.nn.Linear(12, 7, bias=False)

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.lm = torch.nn.Module(), torch.nn.Module()
            self.model.layers = torch.nn.ModuleList([Block(), Block()])
            self.lm.head = torch.nn.Linear(20, 5)

    torch.manual_seed(1)
    base = Tiny()
    model = peft.PeftModel.from_pretrained(base, str(folder / "peft"))
    for number, (name, (rank, out, inside, dtype, scale)) in enumerate(MODULES.items()):
        layer = model.base_model.model.get_submodule(name)
        check(layer.r["default"] == rank, name, layer.r)
        check(np.float32(layer.scaling["default"]) == np.float32(scale), name, layer.scaling)
        a, b = (torch.from_numpy(f) for f in factors(number, name))
        x = torch.randn(3, inside)
        want = layer.base_layer(x).double() + scale * (x.double() @ a.T @ b.T)
        error = (layer(x).double() - want).abs()
        # W x is PEFT's on both sides; what is left: A x and B t in f32, the scale and the sum, each within u of what it adds up.
        bound = (inside + rank + 4) * 2.0**-24 * (abs(scale) * (x.double().abs() @ a.abs().T @ b.abs().T) + 2 * want.abs())
        check(bool((error <= bound).all()), name, error.max())
    adapted = [n for n, m in model.base_model.model.named_modules() if hasattr(m, "scaling")]
    check(set(adapted) == set(MODULES), adapted)


with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    subprocess.run([sys.argv[1], scratch], check=True, stdout=subprocess.DEVNULL)
    if "--peft" in sys.argv:
        peft_folder(folder)
    else:
        safetensors_files(folder)
        gguf_file(folder)
        json_file(folder)
print(f"{checks} checks passed")
