# SPDX-License-Identifier: Apache-2.0
"""Make small oracle fixtures with real PEFT: adapters and what PEFT computes.

    pip install -r ../../../examples/data/digits/requirements.txt
    python make.py [outdir]        (default: the folder of this file)

Every case is a folder with a base model, an adapter as PEFT saved it, inputs,
the outputs of PEFT's own LoRA layers, and the ranks and scalings that PEFT
reports. README.md describes the cases and the files. Weights are random, B
included, so that every adapter matters. Two runs on one machine write the same
bytes.
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
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

ROWS = 3  # inputs for each module


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(12, 20)
        self.v_proj = nn.Linear(12, 7, bias=False)


class Tiny(nn.Module):
    """Modules model.layers.{0,1}.{q_proj,v_proj} and lm.head. Nobody calls it as a
    whole: each fixture is about single layers."""

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([Block(), Block()])
        self.lm = nn.Module()
        self.lm.head = nn.Linear(20, 5)
        self.name_or_path = "tiny"  # becomes base_model_name_or_path


class Normed(Tiny):
    """Tiny with a norm, whose bias no adapter could change but bias="all" does."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)


class Gpt(nn.Module):
    """GPT-2's layers: Conv1D holds W as [in, out]; `proj` is square."""

    def __init__(self):
        super().__init__()
        self.attn = Conv1D(18, 6)
        self.proj = Conv1D(6, 6)
        self.name_or_path = "gpt"


class GptWithHead(Gpt):
    """With a Linear wrapped last, PEFT saves fan_in_fan_out false."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 5)


# A key matches when the module's name ends in it, at a dot; it is a regular
# expression, and the first matching key wins. PEFT saves the patterns sorted but
# reads them in the order of the file, so the order below is put back by hand.
# In both pattern cases it differs from the sorted one and decides the outcome.
REGEX_FIRST = {
    "rank_pattern": {
        "proj": 9,  # matches nothing: not a whole name between dots
        r"layers\..*\.q_proj": 3,  # takes both q_proj
        "layers.1.q_proj": 5,  # never reached
        "head": 2,
    },
    "alpha_pattern": {
        "v_proj|head": 2.5,
        r"^lm\.head": 30,  # never reached
        r"model\.layers\.[1-9]\.q_proj": 7,
        "layers.0.v_proj": 40,  # never reached
    },
}
SPECIFIC_FIRST = {
    "rank_pattern": {
        "model.layers.1.q_proj": 5,  # only this one
        r"layers\..*\.q_proj": 3,  # the other q_proj
        "head": 2,
    },
    "alpha_pattern": {
        r"^lm\.head": 30,
        "layers.0.v_proj": 40,
        r"[a-z]+\.layers\.\d+\.v_proj": 1,  # the other v_proj
        "layers.1": 50,  # matches nothing: the end of the name is missing
    },
}

ALL = ["q_proj", "v_proj", "lm.head"]
GPT = ["attn", "proj"]
CASES = {
    "plain": dict(config=dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "rslora": dict(
        config=dict(r=6, lora_alpha=9, use_rslora=True, target_modules=ALL)
    ),
    "pattern_regex_first": dict(
        config=dict(r=4, lora_alpha=6, target_modules=ALL, **REGEX_FIRST)
    ),
    "pattern_specific_first": dict(
        config=dict(
            r=4, lora_alpha=6, use_rslora=True, target_modules=ALL, **SPECIFIC_FIRST
        )
    ),
    "f16": dict(
        config=dict(r=4, lora_alpha=6, target_modules=ALL), dtype=torch.float16
    ),
    "bf16": dict(
        config=dict(r=4, lora_alpha=6, target_modules=ALL), dtype=torch.bfloat16
    ),
    "big_rank": dict(
        config=dict(
            r=24, lora_alpha=6.5, target_modules=r"model\.layers\.1\..*_proj|lm\.head"
        )
    ),
    "named": dict(
        config=dict(r=2, lora_alpha=3, target_modules=["q_proj"]), adapter="second"
    ),
    "lora_bias": dict(
        config=dict(r=4, lora_alpha=6, lora_bias=True, target_modules=ALL), weight=-0.75
    ),
    "bias_all": dict(
        config=dict(r=4, lora_alpha=6, bias="all", target_modules=["q_proj"]),
        base=Normed,
        plain=["lm.head"],
    ),
    "bias_lora_only": dict(
        config=dict(
            r=4, lora_alpha=6, bias="lora_only", lora_bias=True, target_modules=ALL
        ),
        weight=0.5,
    ),
    "dora": dict(config=dict(r=4, lora_alpha=6, use_dora=True, target_modules=ALL)),
    "dora_weighted": dict(
        config=dict(
            r=9, lora_alpha=6, use_dora=True, use_rslora=True, target_modules=ALL
        ),
        dtype=torch.bfloat16,
        weight=-1.5,
    ),
    "dora_off": dict(  # a weight of 0 leaves m / |W| * W x, not the base
        config=dict(r=2, lora_alpha=6, use_dora=True, target_modules=["q_proj"]),
        weight=0.0,
    ),
    "dora_bias": dict(
        config=dict(r=4, lora_alpha=6, use_dora=True, bias="all", target_modules=["q_proj"])
    ),
    "conv1d": dict(config=dict(r=3, lora_alpha=6, target_modules=GPT), base=Gpt),
    "conv1d_dora": dict(
        config=dict(r=3, lora_alpha=6, use_dora=True, target_modules=GPT), base=Gpt
    ),
    "conv1d_head": dict(  # the flag is false, the shape of attn says otherwise
        config=dict(r=3, lora_alpha=6, target_modules=["attn", "head"]), base=GptWithHead
    ),
}


def restore_pattern_order(file, config):
    """Write the patterns in the order of `config`; nothing else changes."""
    saved = json.loads(file.read_text())
    for key in ("rank_pattern", "alpha_pattern"):
        if key in config:
            assert saved[key] == config[key]
            assert list(saved[key]) != list(config[key]), "the order must matter"
            saved[key] = config[key]
    file.write_text(json.dumps(saved, indent=2))


def lora_layers(model):
    """Name in the base model to PEFT's layer."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear)
    }


def randomize(model, layers, config, adapter):
    """What PEFT leaves at zero, at the base's value or at the norms of W."""
    for layer in layers.values():
        if config.get("lora_bias"):
            nn.init.normal_(layer.lora_B[adapter].bias)
        if config.get("use_dora"):
            magnitude = layer.lora_magnitude_vector[adapter].weight
            with torch.no_grad():
                magnitude.mul_(torch.empty_like(magnitude).uniform_(0.5, 2))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "lora_" not in name and parameter.requires_grad:
            nn.init.normal_(parameter)


def make_case(
    out, seed, *, config, adapter="default", dtype=None, base=Tiny, weight=1.0, plain=()
):
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)

    model_class, base = base, base()
    save_file(base.state_dict(), out / "base.safetensors", metadata={"format": "pt"})

    model = get_peft_model(base, LoraConfig(**config), adapter_name=adapter)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B[adapter].weight, std=0.5)
    randomize(model, lora_layers(model), config, adapter)
    # The model has no embeddings; saying so keeps PEFT from asking the model hub.
    model.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink()  # the model card, an empty form

    folder = out if adapter == "default" else out / adapter
    if "rank_pattern" in config:
        restore_pattern_order(folder / "adapter_config.json", config)
    if dtype is not None:
        weights = folder / "adapter_model.safetensors"
        cast = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
        save_file(cast, weights, metadata={"format": "pt"})

    # From here on only the saved files count.
    fresh = model_class()
    fresh.load_state_dict(load_file(out / "base.safetensors"))
    linears = [
        n for n, m in fresh.named_modules() if isinstance(m, (nn.Linear, Conv1D))
    ]
    loaded = PeftModel.from_pretrained(fresh, str(folder), adapter_name=adapter).eval()
    layers = lora_layers(loaded)
    modules = {}
    for name, layer in layers.items():
        if weight != 1.0:
            layer.set_scale(adapter, weight)
        x = torch.randn(ROWS, layer.in_features)
        with torch.no_grad():
            y = layer(x)
            assert not torch.allclose(y, layer.base_layer(x), atol=0.05)
        assert y.dtype == torch.float32
        np.save(out / f"x_{name}.npy", x.numpy())
        np.save(out / f"y_{name}.npy", y.numpy())
        modules[name] = {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "r": layer.r[adapter],
            "lora_alpha": layer.lora_alpha[adapter],
            "scaling": layer.scaling[adapter],
        }
    for name in plain:  # not adapted, but with a trained bias
        layer = loaded.get_submodule("base_model.model." + name)
        x = torch.randn(ROWS, layer.in_features)
        np.save(out / f"x_{name}.npy", x.numpy())
        np.save(out / f"y_{name}.npy", layer(x).detach().numpy())
    expect = {
        "peft_version": peft.__version__,
        "torch_version": torch.__version__.split("+")[0],
        "adapter_name": adapter,
        "adapter_dir": folder.relative_to(out).as_posix(),
        "adapter_dtype": {None: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype],
        "modules": modules,
        "not_adapted": [name for name in linears if name not in layers],
    }
    if weight != 1.0:
        expect["weight"] = weight
    (out / "expect.json").write_text(json.dumps(expect, indent=2) + "\n")
    return modules


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items(), start=1):
        print(name)
        for module, info in make_case(out / name, seed, **case).items():
            print(f"  {module:<24} r {info['r']:>2}  scaling {info['scaling']!r}")


if __name__ == "__main__":
    main()
