# SPDX-License-Identifier: Apache-2.0
"""Make small oracle fixtures with real PEFT: convolutions, and parameters that hold a matrix for each expert.

    pip install -r ../../../examples/data/digits/requirements.txt
    python make.py [outdir]        (default: the folder of this file)

README.md describes the cases and the files. Weights are random, B included.
Two runs on one machine write the same bytes.
"""

import os
import sys

# PYTHONHASHSEED: PEFT writes its set of target modules in hash order.
PINNED_ENV = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
if any(os.environ.get(key) != value for key, value in PINNED_ENV.items()):
    os.environ.update(PINNED_ENV)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import json
from pathlib import Path

import numpy as np
import peft
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from safetensors.torch import load_file, save_file
from torch import nn

PREFIX = "base_model.model."


class Body(nn.Module):
    """Convolutions of every kind that has a fixture, and a Linear beside them. Nobody calls it as a whole."""

    def __init__(self, **layers):
        super().__init__()
        self.body = nn.ModuleDict(layers)
        self.name_or_path = "body"


def convolutions():
    return Body(
        one=nn.Conv2d(6, 10, 1),
        one_strided=nn.Conv2d(5, 4, 1, stride=(2, 1), bias=False),
        three=nn.Conv2d(5, 7, 3, stride=2, padding=1),
        uneven=nn.Conv2d(4, 6, (2, 3), stride=(1, 2), padding=(2, 0)),
        linear=nn.Linear(9, 8),
    )


def dilated():
    return Body(dilated=nn.Conv2d(4, 5, 3, dilation=(2, 1), padding=1))


def same():
    return Body(same=nn.Conv2d(4, 5, 3, dilation=2, padding="same"))


def grouped():
    return Body(grouped=nn.Conv2d(4, 6, 3, groups=2))


def one_axis():
    return Body(signal=nn.Conv1d(4, 6, 3))


class Experts(nn.Module):
    """y_e = x_e W_e^T by each of two parameters, [experts, out, in]: transformers' Mixtral and its kin."""

    is_transposed = False

    def __init__(self, experts=3, hidden=6, inner=5):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.randn(experts, hidden, inner))

    def forward(self, x):
        return {p: x[p] @ getattr(self, p).transpose(1, 2) for p in x}


class TurnedExperts(nn.Module):
    """[experts, in, out]: gpt-oss and Llama 4. Its down_proj is square: only gate_up_proj tells how it lies."""

    is_transposed = True

    def __init__(self, experts=3, hidden=6, inner=6):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(experts, hidden, 2 * inner))
        self.down_proj = nn.Parameter(torch.randn(experts, inner, hidden))

    def forward(self, x):
        return {p: x[p] @ getattr(self, p) for p in x}


class Mixer(nn.Module):
    """A parameter of two axes, with another name than weight."""

    def __init__(self):
        super().__init__()
        self.in_proj = nn.Parameter(torch.randn(7, 4))

    def forward(self, x):
        return {"in_proj": x["in_proj"] @ self.in_proj.T}


class Moe(nn.Module):
    def __init__(self, experts, **more):
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.experts = experts
        for name, module in more.items():
            setattr(self, name, module)
        self.name_or_path = "moe"


CONV = ["one", "one_strided", "three", "uneven", "linear"]
BOTH = ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
CASES = {
    "plain": dict(config=dict(r=3, lora_alpha=6, target_modules=CONV, rank_pattern={"three": 4}), base=convolutions),
    "f16": dict(config=dict(r=3, lora_alpha=5, target_modules=CONV), base=convolutions, dtype=torch.float16),
    # Without the convolution that has no bias: PEFT cannot merge a bias of B into it.
    "bias": dict(
        config=dict(r=2, lora_alpha=5, target_modules=["one", "three", "uneven", "linear"], lora_bias=True),
        base=convolutions,
        weight=-0.75,
    ),
    "dora": dict(config=dict(r=3, lora_alpha=6, target_modules=CONV, use_dora=True), base=convolutions),
    "dora_weighted": dict(
        config=dict(r=3, lora_alpha=6, target_modules=CONV, use_dora=True, use_rslora=True, bias="lora_only"),
        base=convolutions,
        weight=-1.5,
    ),
    # PEFT makes A without the base's dilation: its forward fails, its merge is the product that LoRA means.
    "dilated": dict(config=dict(r=3, lora_alpha=6, target_modules=["dilated"]), base=dilated, merged=True),
    "grouped": dict(config=dict(r=4, lora_alpha=6, target_modules=["grouped"]), base=grouped, refused=True),
    "one_axis": dict(config=dict(r=3, lora_alpha=6, target_modules=["signal"]), base=one_axis, refused=True),
    "experts": dict(
        config=dict(r=2, lora_alpha=6, target_modules=[], target_parameters=BOTH, rank_pattern={r"experts\.down_proj": 4}),
        base=lambda: Moe(Experts()),
        modules=["mlp.experts"],
    ),
    "experts_turned": dict(
        config=dict(r=2, lora_alpha=3, target_modules=[], target_parameters=BOTH, use_rslora=True),
        base=lambda: Moe(TurnedExperts()),
        modules=["mlp.experts"],
        weight=0.5,
    ),
    "parameters": dict(
        config=dict(
            r=2,
            lora_alpha=6,
            target_modules=["lin"],
            target_parameters=["mixer.in_proj", "experts.gate_up_proj", "head.weight"],
        ),
        base=lambda: Moe(Experts(), mixer=Mixer(), head=nn.Linear(5, 4, bias=False), lin=nn.Linear(4, 3)),
        modules=["mlp.experts", "mixer"],
    ),
}


def layers_of(model):
    return {n.removeprefix(PREFIX): m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def inputs_of(module):
    """One input for a layer, by what it is."""
    if isinstance(module, nn.Conv2d):
        return torch.randn(2, module.in_channels, 5, 6)
    if isinstance(module, nn.Linear):
        return torch.randn(3, module.in_features)
    x = {}
    for name, p in module.named_parameters(recurse=False):
        if p.dim() == 3:
            x[name] = torch.randn(p.shape[0], 3, p.shape[1] if module.is_transposed else p.shape[2])
        else:
            x[name] = torch.randn(3, p.shape[1])
    return x


def make_case(out, seed, *, config, base, dtype=None, weight=1.0, merged=False, refused=False, modules=None):
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = base()
    save_file({k: v.clone() for k, v in model.state_dict().items()}, out / "base.safetensors", metadata={"format": "pt"})
    model = get_peft_model(model, LoraConfig(**config))
    for layer in layers_of(model).values():
        nn.init.normal_(layer.lora_B["default"].weight, std=0.5)
        if config.get("lora_bias"):
            nn.init.normal_(layer.lora_B["default"].bias)
        if config.get("use_dora"):
            magnitude = layer.lora_magnitude_vector["default"].weight
            with torch.no_grad():
                magnitude.mul_(torch.empty_like(magnitude).uniform_(0.5, 2))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "lora_" not in name and parameter.requires_grad:
            nn.init.normal_(parameter)
    model.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink()  # the model card, an empty form
    if dtype is not None:
        file = out / "adapter_model.safetensors"
        save_file({n: t.to(dtype) for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    expect = {"peft_version": peft.__version__, "torch_version": torch.__version__.split("+")[0], "modules": {}}
    if weight != 1.0:
        expect["weight"] = weight

    # From here on only the saved files count.
    def load():
        fresh = base()
        fresh.load_state_dict(load_file(out / "base.safetensors"))
        loaded = PeftModel.from_pretrained(fresh, str(out)).eval()
        for layer in layers_of(loaded).values():
            layer.set_scale("default", weight)
        return loaded

    if not refused:
        loaded = load()
        layers = layers_of(loaded)
        plain = load().merge_and_unload()
        for name in modules or []:
            layers.setdefault(name, loaded.get_submodule(PREFIX + name))
        for name, layer in layers.items():
            if ".base_layer" in name or (isinstance(layer, ParamWrapper) and layer.parameter_name == "weight"):
                if name != "head":
                    continue
            bare = plain.get_submodule(name)
            x = inputs_of(bare)
            with torch.no_grad():
                y_merged = bare(x)
                if merged:
                    y = y_merged
                    try:
                        layer(x)
                        raise AssertionError("PEFT's forward was expected to fail")
                    except RuntimeError as e:
                        expect["forward_fails"] = str(e)
                else:
                    y = layer(x)
            if isinstance(x, torch.Tensor):
                x, y, y_merged = {"": x}, {"": y}, {"": y_merged}
            for p in x:
                full = f"{name}.{p}" if p else name
                if modules and p and not any(full.endswith(t) for t in config["target_parameters"]):
                    continue
                torch.testing.assert_close(y[p], y_merged[p], rtol=1e-4, atol=1e-4)
                np.save(out / f"x_{full}.npy", x[p].numpy())
                np.save(out / f"y_{full}.npy", y[p].numpy())
                expect["modules"][full] = {}
                if isinstance(bare, nn.Conv2d):
                    expect["modules"][full] = {k: list(getattr(bare, k)) for k in ("stride", "padding", "dilation")}
        old = load_file(out / "base.safetensors")
        changed = {k: v.clone() for k, v in plain.state_dict().items() if not torch.equal(v, old[k])}
        save_file(changed, out / "merged.safetensors", metadata={"format": "pt"})
    (out / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")
    print(out.name, expect.get("forward_fails", ""))
    for name, tensor in load_file(out / "adapter_model.safetensors").items():
        print("   ", name, list(tensor.shape))


def same_padding():
    """What PEFT's forward and its own merge differ by for padding='same' and a dilation: said in README.md, no fixture."""
    torch.manual_seed(0)
    model = get_peft_model(same(), LoraConfig(r=3, lora_alpha=6, target_modules=["same"], init_lora_weights=False)).eval()
    x = torch.randn(1, 4, 9, 9)
    layer = model.base_model.model.body["same"]
    with torch.no_grad():
        y = layer(x)
        layer.merge()
        print("padding='same', dilation=2: forward and merge differ by", float((layer(x) - y).abs().max() / y.abs().max()), "of max |y|")


def make_kohya(out):
    """kohya's names: a 3x3 and a 1x1 convolution and a Linear; y from torch, W + s B A formed whole in f64."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(99)
    base = {
        "down.0.conv1.weight": torch.randn(6, 4, 3, 3),
        "down.0.proj_in.weight": torch.randn(5, 4, 1, 1),
        "down.0.to_q.weight": torch.randn(5, 7),
    }
    save_file(base, out / "base.safetensors", metadata={"format": "pt"})
    kohya, diffusers = {}, {}
    expect = {"modules": {}}
    for (name, w), alpha in zip(base.items(), (4.0, 2.0, None)):
        module = name.removesuffix(".weight")
        rank = 3
        down = torch.randn(rank, *w.shape[1:])
        up = torch.randn(w.shape[0], rank, *(1,) * (w.dim() - 2))
        scale = 1.0 if alpha is None else alpha / rank
        key = "lora_unet_" + module.replace(".", "_")
        kohya[key + ".lora_down.weight"], kohya[key + ".lora_up.weight"] = down, up
        diffusers[f"unet.{module}.lora.down.weight"], diffusers[f"unet.{module}.lora.up.weight"] = down, up
        if alpha is not None:
            kohya[key + ".alpha"] = diffusers[f"unet.{module}.alpha"] = torch.tensor(alpha)
        full = w.double() + scale * (up.double().flatten(1) @ down.double().flatten(1)).reshape(w.shape)
        if w.dim() == 4:
            x = torch.randn(1, w.shape[1], 5, 4)
            y = F.conv2d(x.double(), full, padding=w.shape[2] // 2)
            expect["modules"][module] = {"stride": [1, 1], "padding": [w.shape[2] // 2] * 2, "dilation": [1, 1]}
        else:
            x = torch.randn(3, w.shape[1])
            y = x.double() @ full.T
            expect["modules"][module] = {}
        np.save(out / f"x_{module}.npy", x.numpy())
        np.save(out / f"y_{module}.npy", y.float().numpy())
    save_file(kohya, out / "kohya.safetensors")
    save_file(diffusers, out / "diffusers.safetensors")
    tucker = {"lora_unet_down_0_conv1." + k: v for k, v in (("lora_down.weight", torch.randn(3, 4, 1, 1)), ("lora_up.weight", torch.randn(6, 3, 1, 1)), ("lora_mid.weight", torch.randn(3, 3, 3, 3)))}
    save_file(tucker, out / "tucker.safetensors")
    (out / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items(), start=1):
        make_case(out / name, seed, **case)
    make_kohya(out / "kohya")
    same_padding()


if __name__ == "__main__":
    main()
