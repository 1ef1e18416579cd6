# SPDX-License-Identifier: Apache-2.0
"""peft_test.py LORA: what `lora compose` wrote, loaded by PEFT: the sum of the layers' outputs; what `lora merge` wrote beside PEFT's own merge.
77 (skipped) where PEFT is not there."""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers.pytorch_utils import Conv1D
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


class Normed(Tiny):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(6)


class Gpt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.proj = Conv1D(18, 6), Conv1D(6, 6)


class GptWithHead(Gpt):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(6, 5)


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
MERGED = {"plain": Tiny, "rslora": Tiny, "bf16": Tiny, "pattern_regex_first": Tiny, "bias_all": Normed, "dora": Tiny, "dora_weighted": Tiny, "dora_off": Tiny, "dora_bias": Tiny,
          "conv1d": Gpt, "conv1d_dora": Gpt, "conv1d_head": GptWithHead}
for case, model_class in MERGED.items():
    weight = json.loads((DATA / case / "expect.json").read_text()).get("weight", 1.0)
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/merged.safetensors"
        subprocess.run([sys.argv[1], "merge", "--base", DATA / case / "base.safetensors", "--adapter", f"{DATA / case}={weight}", "--output", out], check=True, stdout=subprocess.DEVNULL)
        ours = load_file(out)
        model = model_class()
        base = load_file(DATA / case / "base.safetensors")
        model.load_state_dict(base)
        peft = PeftModel.from_pretrained(model, str(DATA / case))
        for layer in peft.modules():
            if hasattr(layer, "set_scale") and hasattr(layer, "lora_A"):
                layer.set_scale("default", weight)
        theirs = peft.merge_and_unload().state_dict()
        if ours.keys() != theirs.keys():
            sys.exit(f"FAILED: {case}: {ours.keys() ^ theirs.keys()}")
        if all(torch.equal(ours[n], base[n]) for n in base):
            sys.exit(f"FAILED: {case}: nothing was merged")
        for n in theirs:
            if not torch.allclose(ours[n], theirs[n], rtol=4e-6, atol=4e-6):
                sys.exit(f"FAILED: merged {case}, {n}: {(ours[n] - theirs[n]).abs().max()}")
# B's bias over a base without one: both refuse.
for case in ("lora_bias", "bias_lora_only"):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.argv[1], "merge", "--base", DATA / case / "base.safetensors", "--adapter", DATA / case, "--output", f"{folder}/m"], capture_output=True)
        model = Tiny()
        model.load_state_dict(load_file(DATA / case / "base.safetensors"))
        try:
            PeftModel.from_pretrained(model, str(DATA / case)).merge_and_unload()
            sys.exit(f"FAILED: PEFT merged {case}")
        except RuntimeError:
            if done.returncode != 1:
                sys.exit(f"FAILED: {case} was merged")
        # With one, the biases of B go into it, scaled.
        base = load_file(DATA / case / "base.safetensors")
        for i in (0, 1):
            base[f"model.layers.{i}.v_proj.bias"] = torch.zeros(7)
        save_file(base, f"{folder}/base.safetensors")
        subprocess.run([sys.argv[1], "merge", "--base", f"{folder}/base.safetensors", "--adapter", DATA / case, "--output", f"{folder}/m"], check=True, stdout=subprocess.DEVNULL)
        model = Tiny()
        for i in (0, 1):
            model.model.layers[i].v_proj = torch.nn.Linear(12, 7)
        model.load_state_dict(base)
        theirs, ours = PeftModel.from_pretrained(model, str(DATA / case)).merge_and_unload().state_dict(), load_file(f"{folder}/m")
        for n in theirs:
            if not torch.allclose(ours[n], theirs[n], rtol=4e-6, atol=4e-6):
                sys.exit(f"FAILED: merged {case}, {n}: {(ours[n] - theirs[n]).abs().max()}")
print(f"PEFT's merge of {len(MERGED) + 2} adapters is what `lora merge` writes")
print("PEFT computes with the composed adapters what their parts add up to")
