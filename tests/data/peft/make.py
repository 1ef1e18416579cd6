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
from peft.tuners.lora import Embedding as LoraEmbedding
from peft.tuners.lora import Linear as LoraLinear
from peft.utils.other import TrainableTokensWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
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


class Tables(nn.Module):
    """Two embeddings, one of them square, and a linear layer, square too: its
    fan_in_fan_out must not turn the tables, nor theirs the layer."""

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(19, 12)
        self.model.positions = nn.Embedding(12, 12)
        self.model.proj = nn.Linear(12, 12)
        self.name_or_path = "tables"


class Scaled(nn.Module):
    """As Gemma: the embedding's class multiplies its output, and PEFT its own terms."""

    class Embedding(nn.Embedding):
        embed_scale = 16**0.5

        def forward(self, ids):
            return super().forward(ids) * self.embed_scale

    def __init__(self):
        super().__init__()
        self.embed_tokens = Scaled.Embedding(11, 16)
        self.name_or_path = "scaled"


def tied_llama():
    """The only weights that matter here: model.embed_tokens, whose table is lm_head's."""
    config = LlamaConfig(
        vocab_size=19,
        hidden_size=12,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


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

TABLES = ["embed_tokens", "positions", "proj"]
HEAD = ["lm_head"]
BOTH = ["embed_tokens", "lm_head"]
ROWS_AT = [7, 3, 4, 18]  # not sorted; 3 and 4 are neighbours
EMBEDDING_CASES = {
    "embedding": dict(config=dict(r=4, lora_alpha=6, target_modules=TABLES), base=Tables),
    "embedding_pattern": dict(
        config=dict(
            r=4,
            lora_alpha=6,
            use_rslora=True,
            rank_pattern={"embed_tokens": 9},
            alpha_pattern={"positions": 2.5},
            target_modules=TABLES,
        ),
        base=Tables,
        dtype=torch.bfloat16,
        weight=-0.75,
    ),
    "embedding_dora": dict(
        config=dict(r=3, lora_alpha=6, use_dora=True, target_modules=TABLES), base=Tables, weight=0.5
    ),
    "embedding_scaled": dict(
        config=dict(r=3, lora_alpha=6, target_modules=["embed_tokens"]), base=Scaled
    ),
    "embedding_scaled_dora": dict(
        config=dict(r=3, lora_alpha=6, use_dora=True, target_modules=["embed_tokens"]), base=Scaled
    ),
    "tied_head": dict(config=dict(r=3, lora_alpha=6, target_modules=HEAD), base=tied_llama),
    "tied_both": dict(config=dict(r=3, lora_alpha=6, target_modules=BOTH), base=tied_llama),
    "tied_ensured": dict(  # lm_head's pair is the transpose of embed_tokens'; both are saved
        config=dict(
            r=3, lora_alpha=6, ensure_weight_tying=True, target_modules=["embed_tokens"]
        ),
        base=tied_llama,
    ),
    "tied_dora": dict(
        config=dict(r=3, lora_alpha=6, use_dora=True, target_modules=BOTH), base=tied_llama
    ),
    "tokens": dict(
        config=dict(r=3, lora_alpha=6, target_modules=["q_proj"], trainable_token_indices=ROWS_AT),
        base=tied_llama,
        weight=0.5,  # which rows do not heed
    ),
    "tokens_named": dict(
        config=dict(
            r=3,
            lora_alpha=6,
            target_modules=["q_proj"],
            trainable_token_indices={"embed_tokens": ROWS_AT, "lm_head": ROWS_AT},
        ),
        base=tied_llama,
        dtype=torch.float16,
    ),
    "tokens_apart": dict(  # rows of their own: not tied any more
        config=dict(
            r=3,
            lora_alpha=6,
            target_modules=["q_proj"],
            trainable_token_indices={"embed_tokens": ROWS_AT, "lm_head": [3, 5]},
        ),
        base=tied_llama,
    ),
    "tokens_head": dict(  # lm_head is adapted over the rows that it shares
        config=dict(r=3, lora_alpha=6, target_modules=HEAD, trainable_token_indices=ROWS_AT),
        base=tied_llama,
        merge=False,  # PEFT's merge of this one is another model than its forward
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


def wrapped_layers(model):
    """Name in the base model to what PEFT put there: adapted layers and token rows."""
    kinds = (LoraLinear, LoraEmbedding, TrainableTokensWrapper)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not any(name.startswith(outer + ".") for outer in found):
            found[name] = module
    return {name.removeprefix("base_model.model."): module for name, module in found.items()}


def make_embedding_case(out, seed, *, config, dtype=None, base=Tables, weight=1.0, merge=True):
    """As make_case, for embeddings and what is tied to them. Inputs of an embedding
    are all its tokens; those of a linear layer are vectors."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model_class, base = base, base()
    weights = base.state_dict()
    if model_class is tied_llama:  # of which lm_head.weight is the same memory, and the rest does not matter
        weights = {k: v for k, v in weights.items() if "embed" in k or "q_proj" in k}
    original = {k: v.clone() for k, v in base.state_dict().items()}
    save_file({k: v.clone() for k, v in weights.items()}, out / "base.safetensors", metadata={"format": "pt"})

    model = get_peft_model(base, LoraConfig(**config))
    for name, parameter in model.named_parameters():
        if "lora_embedding" in name or "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
        if "trainable_tokens_delta" in name:
            nn.init.normal_(parameter)
        if "lora_magnitude_vector" in name:
            with torch.no_grad():
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 2))
    # PEFT would add a copy of the whole table; the adapter is the same without.
    model.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink()
    if dtype is not None:
        file = out / "adapter_model.safetensors"
        cast = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        save_file(cast, file, metadata={"format": "pt"})
    if "rank_pattern" in config:
        assert len(config["rank_pattern"]) == 1 and len(config["alpha_pattern"]) == 1  # in any order

    fresh = model_class()
    fresh.load_state_dict(original)
    loaded = PeftModel.from_pretrained(fresh, str(out)).eval()
    layers = wrapped_layers(loaded)
    outputs, modules = {}, {}
    for name, layer in layers.items():
        if hasattr(layer, "set_scale"):
            layer.set_scale("default", weight)
        inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
        while hasattr(inner, "original_module"):
            inner = inner.original_module
        is_table = isinstance(inner, nn.Embedding)
        x = torch.arange(inner.num_embeddings) if is_table else torch.randn(ROWS, inner.in_features)
        with torch.no_grad():
            y = layer(x)
            assert not torch.allclose(y, inner(x), atol=0.05)
        np.save(out / f"x_{name}.npy", x.numpy())
        np.save(out / f"y_{name}.npy", y.numpy())
        outputs[name] = (x, y)
        modules[name] = {"embedding": is_table}
        if hasattr(layer, "scaling"):
            modules[name]["r"] = layer.r["default"]
            modules[name]["scaling"] = layer.scaling["default"]
    expect = {
        "peft_version": peft.__version__,
        "torch_version": torch.__version__.split("+")[0],
        "modules": modules,
        "tied": model_class is tied_llama,
    }
    if weight != 1.0:
        expect["weight"] = weight
    if model_class is Scaled:
        expect["embed_scale"] = Scaled.Embedding.embed_scale
    if merge:
        # Layer by layer: merge_and_unload() of tied layers adds what belongs to one to both.
        merged = {}
        for name, layer in layers.items():
            alone = PeftModel.from_pretrained(fresh_like(model_class, original), str(out)).eval()
            layer = wrapped_layers(alone)[name]
            if hasattr(layer, "set_scale"):
                layer.set_scale("default", weight)
            (layer if hasattr(layer, "merge") else layer.token_adapter).merge()
            inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
            merged[name + ".weight"] = inner.weight.detach().clone()
        save_file(merged, out / "merged.safetensors", metadata={"format": "pt"})
    (out / "expect.json").write_text(json.dumps(expect, indent=2) + "\n")
    return modules


def fresh_like(model_class, weights):
    model = model_class()
    model.load_state_dict(weights)
    return model


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items(), start=1):
        print(name)
        for module, info in make_case(out / name, seed, **case).items():
            print(f"  {module:<24} r {info['r']:>2}  scaling {info['scaling']!r}")
    for seed, (name, case) in enumerate(EMBEDDING_CASES.items(), start=101):
        print(name)
        for module, info in make_embedding_case(out / name, seed, **case).items():
            print(f"  {module:<24} {info}")


if __name__ == "__main__":
    main()
