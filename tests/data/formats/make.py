#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the adapter files of this folder with the libraries that define their formats, and expect.json: what each adapter is.

    pip install numpy==2.4.6 safetensors==0.8.0 gguf==0.19.0 peft==0.21.2 torch==2.15.0
    python make.py [outdir]        (default: the folder of this file)

expect.json has for each file and module the rank, the scale and d = s B (A x) for x[i] = (i mod 7 - 3) / 4, computed here in float64
from the arrays before they were written; the scales of the files that carry PEFT's configuration are those that PEFT's own layers
report. Weights are random, B included. Two runs write the same bytes, but for the order of several keys of __metadata__, which is random
in safetensors' own writer.
"""
import json
import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes its set of target modules in hash order
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

from pathlib import Path

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
expect = {}


def factors(seed, rank, out, inside, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(rank, inside, generator=g) / 4).to(dtype), torch.randn(out, rank, generator=g).to(dtype)


def note(file, module, a, b, scale):
    a, b = a.reshape(a.shape[:2]).double().numpy(), b.reshape(b.shape[:2]).double().numpy()
    x = (np.arange(a.shape[1]) % 7 - 3) / 4
    expect.setdefault(file, {})[module] = {"rank": a.shape[0], "scale": float(np.float32(scale)), "d": (float(np.float32(scale)) * (b @ (a @ x))).tolist()}


def kohya():
    file, tensors = "kohya.safetensors", {}
    cases = [  # key, module, rank, out, in, dtype, alpha, shape of the kernel
        ("lora_unet_down_blocks_0_attentions_0_to_q", "down_blocks.0.attentions.0.to_q", 4, 10, 6, torch.float16, 2.0, ()),
        ("lora_unet_down_blocks_0_attentions_0_to_out_0", "down_blocks.0.attentions.0.to_out.0", 2, 6, 10, torch.bfloat16, None, ()),
        ("lora_unet_mid_block_proj_in", "mid_block.proj_in", 3, 7, 5, torch.float32, 0.0, (1, 1)),
        ("lora_unet_mid_block_ff_net_0_proj", "mid_block.ff.net.0.proj", 8, 9, 4, torch.float32, 1.5, ()),
    ]
    for seed, (key, module, rank, out, inside, dtype, alpha, kernel) in enumerate(cases):
        a, b = factors(seed, rank, out, inside, dtype)
        tensors[key + ".lora_down.weight"] = a.reshape(*a.shape, *kernel).contiguous()
        tensors[key + ".lora_up.weight"] = b.reshape(*b.shape, *kernel).contiguous()
        if alpha is not None:
            tensors[key + ".alpha"] = torch.tensor(alpha, dtype=dtype)
        note(file, module, a, b, alpha / rank if alpha else 1.0)
    save_file(tensors, OUT / file, metadata={"ss_network_module": "networks.lora", "ss_network_dim": "4", "format": "pt"})


def diffusers_old():
    file, tensors = "diffusers_old.safetensors", {}
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    layer = "text_encoder.text_model.encoder.layers.0.self_attn"
    for seed, (key, module, rank, out, inside) in enumerate([
            (block + ".processor.to_q_lora", block + ".to_q", 4, 8, 6), (block + ".processor.to_out_lora", block + ".to_out.0", 4, 6, 8),
            (layer + ".to_k_lora", layer + ".k_proj", 2, 5, 5), (layer + ".to_out_lora", layer + ".out_proj", 2, 5, 5)]):
        a, b = factors(10 + seed, rank, out, inside)
        tensors[key + ".down.weight"], tensors[key + ".up.weight"] = a, b
        note(file, module, a, b, 1.0)
    layer = "text_encoder.text_model.encoder.layers.1.self_attn.v_proj"
    a, b = factors(20, 2, 5, 5)
    tensors[layer + ".lora_linear_layer.down.weight"], tensors[layer + ".lora_linear_layer.up.weight"] = a, b
    note(file, layer, a, b, 1.0)
    save_file(tensors, OUT / file, metadata={"format": "pt"})


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_v = nn.Linear(6, 8), nn.Linear(6, 9)
        self.to_out = nn.ModuleList([nn.Linear(8, 6)])


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.mid_block, self.up_blocks = Attention(), nn.ModuleList([Attention()])


def diffusers_new():
    """As diffusers does it: PEFT's state and configuration, each key behind the name of its component."""
    tensors, metadata = {}, {}
    for component, config in [("unet", LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_v", "to_out.0"], rank_pattern={"mid_block.to_v": 2},
                                                  alpha_pattern={"up_blocks.0.to_q": 5}, use_rslora=True)),
                              ("text_encoder", LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"]))]:
        torch.manual_seed(len(component))
        model = get_peft_model(Unet(), config)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(p)
        for key, value in get_peft_model_state_dict(model).items():
            tensors[component + key.removeprefix("base_model.model")] = value.contiguous()
        for key, value in config.to_dict().items():
            metadata[f"{component}.{key}"] = sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for name, layer in model.base_model.model.named_modules():
            if hasattr(layer, "scaling"):
                note("diffusers_new.safetensors", component + "." + name, layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach(),
                     layer.scaling["default"])
    save_file(tensors, OUT / "diffusers_new.safetensors", metadata={"format": "pt", "lora_adapter_metadata": json.dumps(metadata, sort_keys=True)})
    tensors = {}
    for seed, (module, alpha) in enumerate([("transformer.blocks.0.to_q", 8.0), ("transformer.blocks.0.to_k", None)]):
        a, b = factors(30 + seed, 4, 5, 6, torch.bfloat16)
        tensors[module + ".lora_A.weight"], tensors[module + ".lora_B.weight"] = a, b
        if alpha is not None:
            tensors[module + ".alpha"] = torch.tensor(alpha)
        note("diffusers_alpha.safetensors", module, a, b, alpha / 4 if alpha else 1.0)
    save_file(tensors, OUT / "diffusers_alpha.safetensors", metadata={"format": "pt"})


def gguf_file(file, alpha, quantised=False, dtype=np.float32, alignment=None, **more):
    writer = gguf.GGUFWriter(OUT / file, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    if alpha is not None:
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for key, value in more.items():
        writer.add_key_value(key.replace("__", "."), value, gguf.GGUFValueType.ARRAY if isinstance(value, list) else gguf.GGUFValueType.get_type(value))
    for seed, (name, rank, out, inside) in enumerate([("blk.0.attn_q", 4, 64, 32), ("blk.1.ffn_down", 2, 33, 48), ("output", 3, 5, 32)]):
        a, b = factors(40 + seed, rank, out, inside)
        a, b = a.numpy().astype(dtype), b.numpy().astype(dtype)
        if quantised and rank == 4:
            writer.add_tensor(name + ".weight.lora_a", gguf.quantize(a, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        elif dtype == np.float32 and seed == 1 and not quantised:
            raw = torch.from_numpy(a).bfloat16()
            writer.add_tensor(name + ".weight.lora_a", raw.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
            a = raw.float().numpy()
        else:
            writer.add_tensor(name + ".weight.lora_a", a)
        writer.add_tensor(name + ".weight.lora_b", b)
        if not quantised:
            note(file, name, torch.from_numpy(a), torch.from_numpy(b), alpha / rank if alpha else 1.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def plain_json():
    a, b = factors(50, 3, 4, 5)
    common = {"rank": 3, "in_dim": 5, "out_dim": 4}
    lists = {"a": a.flatten().tolist(), "b": b.flatten().tolist()}  # doubles, which hold each float exactly
    for file, text, scale in [("alpha.json", json.dumps({**lists, "alpha": 12, **common, "module": "fc1"}), 4.0),
                              ("no_alpha.json", json.dumps({**common, **lists}, indent=1), 1.0),
                              ("zero_alpha.json", json.dumps({**common, **lists, "alpha": 0.0, "note": "anything"}, sort_keys=True), 0.0)]:
        (OUT / file).write_text(text, encoding="utf-8")
        note(file, "fc1", a, b, scale)


kohya()
diffusers_old()
diffusers_new()
gguf_file("adapter.gguf", 8.0, alignment=64, adapter__lora__task_name="demo", tokens=["a", "b"])
gguf_file("adapter_f16.gguf", None, dtype=np.float16)
gguf_file("quantised.gguf", 8.0, quantised=True)
gguf_file("alora.gguf", 8.0, adapter__alora__invocation_tokens=[1, 2])
plain_json()
(OUT / "expect.json").write_text(json.dumps(expect, indent=1, sort_keys=True) + "\n", encoding="utf-8")
