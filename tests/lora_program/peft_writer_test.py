# SPDX-License-Identifier: Apache-2.0
"""peft_writer_test.py PEFT_KINDS: every kind of adapter that save_peft writes, loaded by PEFT, gives what its arrays say, computed here in
float64; and PEFT misses no tensor of its own and leaves none of ours unread. 77 (skipped) where PEFT is not there."""
import os
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import torch
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.emb = torch.nn.Embedding(9, 6)
        self.q, self.v = torch.nn.Linear(6, 8), torch.nn.Linear(6, 5)
        self.conv = torch.nn.Conv2d(2, 4, (3, 2))
        self.norm = torch.nn.LayerNorm(6)
        self.cls = torch.nn.Module()
        self.cls.dense, self.cls.out = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
        self.name_or_path = ""


def expected(name, arrays, x):
    """The module in float64, from its formula: the matrix [out, in] formed whole."""
    module = Model().double().get_submodule(name)
    ours = {k.removeprefix(name + "."): v.double() for k, v in arrays.items() if k.startswith(name + ".")}
    with torch.no_grad():
        for parameter in ("weight", "bias"):
            if parameter in ours:
                getattr(module, parameter).copy_(ours[parameter])
        if "rows" in ours:
            module.weight[[7, 0, 3]] = ours["rows"]
        if "a" in ours:
            w = module.weight.T if name == "emb" else module.weight.flatten(1)
            merged = w + ours["scale"] * ours["b"] @ ours["a"]
            if "magnitude" in ours:
                merged *= (ours["magnitude"] / merged.norm(dim=1))[:, None]
            module.weight.copy_(merged.T if name == "emb" else merged.view_as(module.weight))
        if "lora_bias" in ours:
            module.bias += ours["scale"] * ours["lora_bias"]
        return module(x.double() if x.is_floating_point() else x)


warnings.simplefilter("ignore")
worst = 0.0
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.argv[1], folder], check=True)
    for case in ("biases", "dora", "embedding", "rows"):
        path = f"{folder}/{case}"
        arrays = load_file(path + ".safetensors")
        model = PeftModel.from_pretrained(Model(), path).eval()
        result = set_peft_model_state_dict(model, load_peft_weights(path))
        lost = [k for k in result.missing_keys if "lora_" in k or "modules_to_save" in k or "trainable_tokens_delta" in k]
        if lost or result.unexpected_keys:
            sys.exit(f"FAILED: {case}: PEFT misses {lost} and does not know {result.unexpected_keys}")
        torch.manual_seed(2)
        for name in ("q", "v", "cls.dense", "cls.out", "emb", "conv", "norm"):
            x = torch.arange(9) if name == "emb" else torch.randn(2, 2, 5, 4) if name == "conv" else torch.randn(3, 8 if "cls" in name else 6)
            with torch.no_grad():
                got = model.base_model.model.get_submodule(name)(x)
            want = expected(name, arrays, x)
            error = float(((got - want).abs() / want.abs().clamp(min=1)).max())
            changed = any(k.startswith(name + ".") for k in arrays)
            with torch.no_grad():
                if changed and torch.allclose(want, Model().double().get_submodule(name)(x.double() if x.is_floating_point() else x), atol=0.01):
                    sys.exit(f"FAILED: {case}, {name}: the adapter changes nothing, so that nothing is tested")
            worst = max(worst, error)
            if not error < 2e-5:
                sys.exit(f"FAILED: {case}, {name}: {error}")
print(f"PEFT computes with every kind that save_peft writes what it should; largest difference {worst:.2g}")
