# SPDX-License-Identifier: Apache-2.0
"""peft_test.py LORA: what `lora compose` wrote, loaded by PEFT: the sum of the layers' outputs. 77 (skipped) where PEFT is not there."""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

DATA = pathlib.Path("tests/data/peft")


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj = torch.nn.Linear(12, 20), torch.nn.Linear(12, 7, bias=False)


class Tiny(torch.nn.Module):
    """The base of the fixtures (tests/data/peft/make.py)."""
    def __init__(self):
        super().__init__()
        self.model, self.lm = torch.nn.Module(), torch.nn.Module()
        self.model.layers = torch.nn.ModuleList([Block(), Block()])
        self.lm.head = torch.nn.Linear(20, 5)
        self.load_state_dict(load_file(DATA / "plain" / "base.safetensors"))


def outputs(folder, inputs):
    model = PeftModel.from_pretrained(Tiny(), folder).eval()
    return {name: model.base_model.model.get_submodule(name)(x).detach().double().numpy() for name, x in inputs.items()}


torch.manual_seed(0)
names = [f"model.layers.{i}.{n}" for i in (0, 1) for n in ("q_proj", "v_proj")] + ["lm.head"]
inputs = {n: torch.randn(3, 20 if n == "lm.head" else 12) for n in names}
base = {n: Tiny().get_submodule(n)(x).detach().double().numpy() for n, x in inputs.items()}
for first, second, weights in (("plain", "f16", (0.5, -2.0)), ("rslora", "bf16", (1.0, 0.25)), ("pattern_regex_first", "big_rank", (0.75, 1.0))):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], "compose", "--adapter", f"{DATA / first}={weights[0]}", "--adapter", f"{DATA / second}={weights[1]}", "--output", folder], check=True)
        got, one, two = (outputs(f, inputs) for f in (folder, DATA / first, DATA / second))
        for n in names:
            want = base[n] + weights[0] * (one[n] - base[n]) + weights[1] * (two[n] - base[n])
            if not np.allclose(got[n], want, rtol=1e-5, atol=2e-5):
                sys.exit(f"FAILED: {first} and {second}, {n}: {np.abs(got[n] - want).max()}")
print("PEFT computes with the composed adapters what their parts add up to")
