# SPDX-License-Identifier: Apache-2.0
"""differential_test.py DRIVER [--lora PROGRAM] [--jobs N] [--seed S] [--only I] [--keep FOLDER]

Random adapters, made and computed with by PEFT, against what the library makes of the same files (driver.cpp). A job is a random base of linear
layers, Conv1D, an embedding, a convolution, experts and a norm, or a Llama whose lm_head is tied, and one to three random LoraConfigs with weights over it. Either every module's output and
merged weight lies within a derived bound of the float64 result from the stored factors, or the library refuses for a reason that stands in
REFUSALS and applies to the job. PEFT's own results are held to the same oracle, so that a wrong oracle fails too. Some jobs also go through
the program. 77 (skipped) where PEFT is not there; every failure says how to run its job alone."""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import traceback
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import numpy as np
    import peft
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper
    from safetensors.torch import load_file, save_file
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.pytorch_utils import Conv1D
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

# The refusals that are right: the words, the reason, and what must be true of the job. Anything else is a failure, and so is a job that
# a line says must be refused and is not.
REFUSALS = [
    ("their sum is not defined", "DoRA beside another adapter in one module: PEFT's result depends on the order of its calls", lambda j: j.dora_meets),
    (r"the field 'init_lora_weights' is", "PiSSA and OLoRA that were not converted: they belong to a base that PEFT rewrites on load", lambda j: j.unconverted),
    (r"square matrices of .* cannot be told", "experts that are all square: their class knows how they lie, the files do not", lambda j: j.square_experts),
    (r"(lookahead|lookbehind|a backreference|a named group|a flag).* is not supported|is not supported \(position", "a pattern outside the subset of Python's re", lambda j: j.odd_pattern),
    (r"fan_in_fan_out is (true|false), but the weight of .* lies the other way", "PEFT saves one flag for a file, that of the layer it wrapped last", lambda j: j.flag_lies),
]

EPS = 2.0**-23
U16 = {torch.float16: (2.0**-11, -14), torch.bfloat16: (2.0**-8, -126)}
TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
EMBED, HEAD = "model.embed_tokens", "lm_head"
NAMES = ["q_proj", "k_proj", "v_proj", "xq_proj", "fc1", "fc2", "c_attn", "out.0"]  # xq_proj ends in q_proj, but not at a dot


class Failure(Exception):
    pass


class Net(nn.Module):
    """Modules by dotted name; nobody calls it as a whole."""

    def __init__(self, modules):
        super().__init__()
        for name, make in modules.items():
            at = self
            *path, last = name.split(".")
            for part in path:
                if part not in at._modules:
                    at.add_module(part, nn.Module())
                at = at._modules[part]
            at.add_module(last, make())
        self.name_or_path = "net"
        if EMBED in modules:  # PEFT saves copies of these two
            self.get_input_embeddings = lambda: self.model.embed_tokens
            self.get_output_embeddings = lambda: getattr(self, HEAD, None)


class Experts(nn.Module):
    """One matrix for each expert in a bare parameter, [experts, in, out] when is_transposed, as transformers' models have them."""

    def __init__(self, experts, sizes, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        for name, (inside, out) in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(experts, *((inside, out) if is_transposed else (out, inside)))))

    def forward(self, x, parameter):
        return x @ experts_of(getattr(self, parameter), self.is_transposed).transpose(1, 2)


def experts_of(parameter, is_transposed):
    """[experts, out, in], whichever way they are stored."""
    return parameter.transpose(1, 2) if is_transposed else parameter


class Job:
    """Everything that is drawn for one job, from its number alone."""

    def __init__(self, seed, number):
        self.draw = draw = random.Random(f"{seed}/{number}")
        torch.manual_seed(draw.randrange(2**31))
        self.number = number
        self.features = set()
        self.unconverted = self.odd_pattern = self.dora_meets = self.flag_lies = self.undecided = self.copies_meet = self.square_experts = False
        self.modules = {}
        self.kinds = {}
        self.smaller = {}
        self.geometry = {}
        self.parameters = []
        self.tied = {}
        self.base_dtype = draw.choice((torch.float32, torch.float32, torch.float16, torch.bfloat16))
        if draw.random() < 0.15:
            self.draw_llama()
        else:
            self.draw_net()
        self.configs = []
        self.weights = []
        count = draw.choice((1, 1, 1, 2, 3))
        for i in range(count):
            self.configs.append(self.config(count))
            self.weights.append(draw.choice((1.0, 1.0, 1.0, 0.5, -0.75, 2.0, 0.0)))

    def draw_net(self):
        draw = self.draw
        square_conv1d = draw.random() < 0.5  # squares of both kinds in one base cannot be told apart, see docs/compatibility.md
        gpt = draw.random() < 0.3
        for layer in range(draw.randint(1, 2)):
            for name in draw.sample(NAMES, draw.randint(1, 3)):
                self.add_linear(f"model.layers.{layer}.{name}", gpt and draw.random() < 0.7, square_conv1d)
        if draw.random() < 0.4:
            self.add_linear(HEAD, False, square_conv1d)
        if draw.random() < 0.3:
            self.add(EMBED, "embedding", nn.Embedding, draw.randint(3, 40), draw.randint(1, 20))
        if draw.random() < 0.25:
            kernel = draw.choice((1, 2, 3)), draw.choice((1, 3))
            stride = draw.choice((1, 1, 2)), draw.choice((1, 1, 2))
            padding = draw.randint(0, 1), draw.randint(0, 1)
            self.geometry["model.conv"] = dict(kernel_size=kernel, stride=stride, padding=padding)
            self.add("model.conv", "conv2d", nn.Conv2d, draw.randint(1, 5), draw.randint(1, 9), bias=draw.random() < 0.5, **self.geometry["model.conv"])
        self.add("model.norm", "norm", nn.LayerNorm, draw.randint(1, 9))
        if not gpt and draw.random() < 0.2:  # PEFT takes none beside Conv1D
            sizes = {n: (draw.choice((1, 3, 8, 17)), draw.choice((1, 2, 8, 12))) for n in draw.choice((("down_proj",), ("gate_up_proj", "down_proj")))}
            self.add("model.experts", "experts", Experts, draw.choice((2, 3, 5)), sizes, draw.random() < 0.5)
            self.parameters = [f"model.experts.{n}" for n in draw.sample(list(sizes), draw.randint(1, len(sizes)))]
            self.square_experts = all(len(set(sizes[n.rsplit(".", 1)[-1]])) == 1 for n in self.parameters)
            self.features.add("experts")

    def draw_llama(self):
        """The head's weight is the table of the embedding; the file has it once."""
        draw = self.draw
        self.llama = LlamaConfig(vocab_size=draw.randint(6, 40), hidden_size=draw.choice((4, 12, 20)), intermediate_size=draw.choice((3, 12, 17)), num_hidden_layers=1,
                                 num_attention_heads=2, num_key_value_heads=draw.choice((1, 2)), max_position_embeddings=8, tie_word_embeddings=True)
        self.tied = {HEAD: EMBED}
        self.features.add("tied")
        for name, module in self.build().named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                self.kinds[name] = "linear" if isinstance(module, nn.Linear) else "embedding"
                self.smaller[name] = min(module.weight.shape)
        self.kinds["model.norm"] = "norm"

    def build(self):
        return LlamaForCausalLM(self.llama) if self.tied else Net(self.modules)

    def weight_name(self, name):
        return self.tied.get(name, name) + ".weight"

    def add(self, name, kind, make, *arguments, **options):
        self.kinds[name] = kind
        self.modules[name] = lambda: make(*arguments, **options)

    def add_linear(self, name, conv1d, square_conv1d):
        size = lambda: self.draw.choice((1, 2, 3, 7, 8, 12, 16, 17, 33, 64, 130))
        inside, out = size(), size()
        if self.draw.random() < 0.2 and (conv1d == square_conv1d):
            out = inside
        elif inside == out and conv1d != square_conv1d:
            out += 1
        self.smaller[name] = min(inside, out)  # PiSSA and OLoRA would cut the rank to it
        if conv1d:
            self.add(name, "conv1d", Conv1D, out, inside)
        else:
            self.add(name, "linear", nn.Linear, inside, out, bias=self.draw.random() < 0.6)

    def keys(self, values):
        """Keys as people write them: names, ends of names, expressions, unescaped dots, and some that match nothing."""
        keys = {}
        for _ in range(self.draw.randint(1, 4)):
            name = self.draw.choice([*self.kinds, *self.parameters])
            last = name.rsplit(".", 1)[-1]
            key = self.draw.choice((name, re.escape(name), last, ".*" + last, rf"layers\.\d+\.{last}", f"layers.[0-9].{last}", f"^{name}", f"{last}|fc1", r"layers\.0\..*",
                                    r"layers\.(0|1)\.[a-z_]+proj", r"[a-z]+\.layers\.\d.*", last[1:], "layers.1", r"\w+_proj", f"(?:{last})", f"{last[0]}.+", "proj", f"{last}$",
                                    "model.layers." + last, "nothing"))
            if self.draw.random() < 0.02:
                key = f"(?!x){last}"
                self.odd_pattern = True
            keys[key] = values()
        return keys

    def config(self, count):
        draw = self.draw
        adaptable = [n for n, k in self.kinds.items() if k not in ("norm", "experts")]
        chosen = draw.sample(adaptable, draw.randint(1, min(6, len(adaptable))))
        if not any(self.kinds[n] in ("linear", "conv1d") for n in chosen):
            chosen.append(next(n for n in adaptable if self.kinds[n] in ("linear", "conv1d") and n not in chosen))
        self.features |= {self.kinds[n] for n in chosen} & {"embedding", "conv2d"}
        tokens = count == 1 and EMBED in self.kinds and EMBED not in chosen and draw.random() < 0.6
        how = draw.random()
        targets = chosen if how < 0.6 else sorted({n.split(".", 2)[-1] for n in chosen}) if how < 0.8 else "|".join(map(re.escape, chosen))
        config = dict(r=draw.choice((1, 2, 3, 4, 5, 8, 16, 24)), lora_alpha=draw.choice((1, 2, 3, 8, 16, 6.5, 0, -4)), target_modules=targets, use_rslora=draw.random() < 0.3,
                      fan_in_fan_out=draw.random() < 0.3, lora_dropout=draw.choice((0.0, 0.1)), init_lora_weights=draw.choice((True, False, "gaussian")))
        if draw.random() < 0.3:
            config["rank_pattern"] = self.keys(lambda: draw.randint(1, 9))
        if draw.random() < 0.3:
            config["alpha_pattern"] = self.keys(lambda: draw.choice((1, 4, 7.5, 20)))
        kind = draw.random()
        if self.parameters:  # which PEFT adapts with nothing else
            config.update(target_parameters=self.parameters, lora_dropout=0.0, fan_in_fan_out=False)
        elif kind < (0.22 if count == 1 else 0.08) and not (tokens and HEAD in chosen and self.tied):
            config["use_dora"] = True
            self.features.add("dora")
        elif kind < 0.4 and not any(self.kinds[n] == "embedding" for n in chosen):
            config.update(lora_bias=True, init_lora_weights=draw.random() < 0.5)  # other ways to begin, PEFT does not allow with it
            self.features.add("lora_bias")
        elif kind < 0.55 and all(self.kinds[n] == "linear" for n in chosen) and min(self.smaller[n] for n in chosen) >= config["r"] and not config.get("rank_pattern") and not (config["use_rslora"] and config.get("alpha_pattern")):
            config.update(init_lora_weights=draw.choice(("pissa", "olora")), lora_alpha=draw.choice((1, 4, 6.5)))  # they divide by it
            self.features.add("pissa, olora")
        if count == 1 and config["init_lora_weights"] not in ("pissa", "olora") and draw.random() < 0.3:
            config["bias"] = draw.choice(("all", "lora_only"))
            self.features.add("bias")
        if count == 1 and draw.random() < 0.15:
            free = [n for n, k in self.kinds.items() if n not in chosen and n not in self.tied and k in ("linear", "norm", "conv2d")]
            if free:
                config["modules_to_save"] = [draw.choice(free)]
                self.features.add("modules_to_save")
        if tokens:
            rows = lambda: sorted(draw.sample(range(3), draw.randint(1, 3)), key=lambda _: draw.random())
            one = rows()
            ways = [{EMBED: one}, one]
            if self.tied and HEAD not in chosen:
                ways += [{"embed_tokens": one, HEAD: one}, {"embed_tokens": one, HEAD: rows()}]
            config["trainable_token_indices"] = draw.choice(ways)
            self.features.add("trainable_tokens")
        if any(self.kinds[n] == "conv1d" for n in chosen):
            self.features.add("conv1d")
        config["save_embedding_layers"] = not tokens and HEAD not in config.get("modules_to_save", []) and draw.random() < (0.4 if count == 1 else 0.05)  # of save_pretrained
        return config

    def describe(self):
        shapes = {n: tuple(t.shape) for n, t in self.build().state_dict().items()}
        return json.dumps({"base": shapes, "kinds": self.kinds, "dtype": TYPES[self.base_dtype], "weights": self.weights, "configs": self.configs}, default=str)

    def words(self):
        """What the driver must be told."""
        geometry = [f"{n}:{g['stride'][0]},{g['stride'][1]},{g['padding'][0]},{g['padding'][1]}" for n, g in self.geometry.items()]
        return [*map(str, self.weights), *(f"{a}={b}" for a, b in self.tied.items()), *geometry]

    def matrix_input(self, name, x):
        """Inputs as a matrix: patches of images, and rows with one 1 for ids."""
        if name in self.geometry:
            x = nn.functional.unfold(x.double(), **self.geometry[name]).transpose(1, 2).flatten(0, 1)
        elif self.kinds.get(name) == "embedding":
            x = nn.functional.one_hot(x, self.build().get_submodule(name).num_embeddings)
        return f64(x)

    def matrix_output(self, name, y):
        return f64(y.flatten(2).transpose(1, 2).flatten(0, 1) if name in self.geometry else y)


def adapted(model):
    return {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def make_adapter(job, state, config, folder):
    """PEFT wraps, "trains" and saves; the tensors may then be narrowed, and the patterns get back the order they were written in."""
    draw = job.draw
    config = dict(config)
    save_embedding_layers = config.pop("save_embedding_layers")
    base = job.build()
    base.load_state_dict(state, strict=not job.tied)
    model = get_peft_model(base, LoraConfig(**config))
    converted = None
    if config["init_lora_weights"] in ("pissa", "olora"):
        job.unconverted |= draw.random() < 0.15
        if not job.unconverted:
            converted = str(folder) + "_initial"
            init = model.peft_config["default"].init_lora_weights
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(converted, save_embedding_layers=False)
            model.peft_config["default"].init_lora_weights = init
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            if "magnitude" in name:
                p.mul_(torch.empty_like(p).uniform_(0.5, 2))
            else:
                p.add_(torch.randn_like(p) * (0.5 if "lora_" in name else 0.2))
    model.save_pretrained(str(folder), save_embedding_layers=save_embedding_layers, path_initial_model_for_weight_conversion=converted)
    file = folder / "adapter_config.json"
    saved = json.loads(file.read_text())
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key) and (key == "rank_pattern" or draw.random() < 0.5):  # PEFT sorts the keys; a rank must stay what it was
            assert sorted(saved[key]) == sorted(config[key])
            saved[key] = {k: saved[key][k] for k in config[key]}
    file.write_text(json.dumps(saved, indent=2))
    dtype = draw.choice((torch.float32, torch.float32, torch.float16, torch.bfloat16))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({n: t.to(dtype).contiguous() for n, t in tensors.items()}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return saved["fan_in_fan_out"]


def load(job, state, folder, dtype=torch.float32):
    base = job.build()
    base.load_state_dict(state, strict=not job.tied)
    model = PeftModel.from_pretrained(base.to(dtype), str(folder / "a0"), adapter_name="a0")
    for i in range(1, len(job.configs)):
        model.load_adapter(str(folder / f"a{i}"), adapter_name=f"a{i}")
    model.base_model.set_adapter([f"a{i}" for i in range(len(job.configs))])
    for layer in adapted(model).values():
        for i, weight in enumerate(job.weights):
            layer.set_scale(f"a{i}", weight)
    return model.eval()


def f64(tensor):
    return tensor.detach().double().numpy()


def matrix_of(kind, weight):
    """[out, in], whichever way it is stored."""
    w = f64(weight)
    return w.T if kind in ("conv1d", "embedding") else w.reshape(w.shape[0], -1)


def token_indices(config, name):
    """Of which rows PEFT saved the trained ones of a module, in its order."""
    given = config["trainable_token_indices"]
    return given if isinstance(given, list) else next(rows for end, rows in given.items() if name.endswith(end))


class Oracle:
    """One matrix in float64 with its terms: from the tensors in the files; scalings as PEFT reports them."""

    def __init__(self, w, bias, dtype):
        self.w = w
        self.bias = bias
        self.dtype = dtype
        self.delta = np.zeros_like(self.w)
        self.size = np.zeros_like(self.w)  # of all that is added up for an element
        self.own_bias = np.zeros(self.w.shape[0])
        self.terms = []
        self.rank = 0
        self.factor = None
        self.steps = self.w.shape[1] + 8

    @classmethod
    def of_module(cls, job, name, state, files, layer):
        kind = job.kinds[name]
        at = f"base_model.model.{name}."
        weight = state[job.weight_name(name)]
        bias = state.get(name + ".bias")
        rows = indices = None
        for file, config in zip(files, job.configs):
            bias = file.get(at + "bias", file.get(at + "base_layer.bias", bias))
            source = f"base_model.model.{job.tied.get(name, name)}."  # a copy of the table goes into the parameter that both have
            for key in (source + "base_layer.weight", source + "weight", at + "base_layer.weight", at + "weight"):
                weight = file.get(key, weight)
            for owner in (job.tied.get(name, name), name):
                if (key := f"base_model.model.{owner}.token_adapter.trainable_tokens_delta") in file:
                    rows, indices = f64(file[key]), token_indices(config, owner)
        matrix = matrix_of(kind, weight)
        if rows is not None:
            matrix = matrix.copy()
            (matrix.T if kind == "embedding" else matrix)[indices] = rows
        self = cls(matrix, None if bias is None else f64(bias), weight.dtype)
        for i, file in enumerate(files):
            a, b = (file.get(at + k) for k in (("lora_embedding_A", "lora_embedding_B") if kind == "embedding" else ("lora_A.weight", "lora_B.weight")))
            if a is not None:
                self.add(f64(a), f64(b), layer.scaling[f"a{i}"], file.get(at + "lora_B.bias"), file.get(at + "lora_magnitude_vector"))
        return self

    @classmethod
    def of_expert(cls, weight, number, pairs):
        """`pairs`: A [experts x rank, in], B [out, rank x experts] and the scale of each adapter."""
        self = cls(f64(weight[number]), None, weight.dtype)
        for a, b, scale in pairs:
            experts = len(weight)
            self.add(f64(a).reshape(experts, -1, a.shape[1])[number], f64(b).reshape(b.shape[0], -1, experts)[:, :, number], scale)
        return self

    def add(self, a, b, scale, bias=None, magnitude=None):
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        self.terms.append((a, b, scale))
        self.delta += scale * (b @ a)
        self.size += abs(scale) * (abs(b) @ abs(a))
        self.rank += len(a)
        self.steps += len(a)
        if bias is not None:
            self.own_bias += scale * f64(bias)
        if magnitude is not None:
            self.factor = f64(magnitude).reshape(-1) / np.sqrt(((self.w + self.delta) ** 2).sum(1))
            self.spread = np.sqrt(((abs(self.w) + self.size) ** 2).sum(1) / ((self.w + self.delta) ** 2).sum(1))

    def forward(self, x):
        """y, what ours may err by, and what PEFT's sum of separate products may, which forms the norm of DoRA in f32."""
        y = x @ self.w.T
        size = abs(x) @ abs(self.w).T
        for a, b, s in self.terms:
            y = y + s * ((x @ a.T) @ b.T)
            size = size + abs(s) * ((abs(x) @ abs(a).T) @ abs(b).T)
        g = np.ones(len(self.w)) if self.factor is None else self.factor
        bias = self.own_bias + (0 if self.bias is None else self.bias)
        biases = abs(self.own_bias) + (0 if self.bias is None else abs(self.bias))
        ours = 4 * self.steps * EPS * (abs(g) * size + biases)
        theirs = ours if self.factor is None else 4 * self.steps * EPS * (2 + 2 * abs(g)) * (1 + self.spread) * (size + biases)
        return g * y + bias, ours, theirs

    def merged(self, dtype=None):
        """W, the bound of the f32 chain, and that with the one rounding to W's type, or to this one."""
        dtype = dtype or self.dtype
        g = 1.0 if self.factor is None else self.factor[:, None]
        exact = g * (self.w + self.delta)
        chain = 4 * (self.rank + 8) * EPS * abs(g) * (abs(self.w) + self.size)
        if dtype == torch.float32:
            return exact, chain, chain
        unit, lowest = U16[dtype]
        exponent = np.maximum(np.frexp(abs(exact) + chain)[1] - 1, lowest)
        return exact, chain, chain + unit * np.exp2(exponent)


Result = collections.namedtuple("Result", "state files expected merged worst")


def make_job(job, folder):
    """Writes base, adapters and inputs; returns the oracle's expectations after holding PEFT to them."""
    state = {n: (t + 0.3 * torch.randn_like(t)).to(job.base_dtype) for n, t in job.build().state_dict().items() if n.removesuffix(".weight") not in job.tied}
    save_file(state, folder / "base.safetensors", metadata={"format": "pt"})
    wide = {n: t.float() for n, t in state.items()}
    flags = [make_adapter(job, wide, c, folder / f"a{i}") for i, c in enumerate(job.configs)]
    if job.unconverted:
        return None
    files = [load_file(folder / f"a{i}" / "adapter_model.safetensors") for i in range(len(job.configs))]
    copies = [k for f in files for k in f if k.endswith(".weight") and ".lora_" not in k]
    job.copies_meet = bool(copies) and len(files) > 1
    if copies and not all(c.get("modules_to_save") for c in job.configs):
        job.features.add("base_copy")
    if job.copies_meet:
        return None
    model = load(job, wide, folder)
    layers = adapted(model)
    experts = {n: layers.pop(n) for n, layer in list(layers.items()) if isinstance(layer, ParamWrapper)}
    for flag, file in zip(flags, files):
        mine = [n for n in layers if f"base_model.model.{n}.lora_A.weight" in file and job.kinds[n] in ("linear", "conv1d") and n not in job.tied]
        biased = [n for n, k in job.kinds.items() if k in ("linear", "conv1d") and f"base_model.model.{n}.bias" in file]  # nothing else tells of these
        square = [n for n in {*mine, *biased} if n not in job.tied and state[n + ".weight"].shape[0] == state[n + ".weight"].shape[1]]
        told = mine + [n for n, k in job.kinds.items() if k in ("linear", "conv1d") and n + ".bias" in state]  # by A and B, or by the length of the bias
        contradicted = any((job.kinds[n] == "conv1d") != flag for n in told if len(set(state[n + ".weight"].shape)) == 2)
        wrong = any((job.kinds[n] == "conv1d") != flag for n in square)
        job.flag_lies |= bool(square) and contradicted
        job.undecided |= wrong and not contradicted
    for n in layers:
        dora = [c.get("use_dora", False) for c, f in zip(job.configs, files) if any(f"base_model.model.{n}.{k}" in f for k in ("lora_A.weight", "lora_embedding_A"))]
        job.dora_meets |= len(dora) > 1 and any(dora)
    inputs, expected = {}, {}
    worst = 0.0
    for name, kind in job.kinds.items():
        if kind in ("norm", "experts"):
            continue
        layer = model.base_model.model.get_submodule(name)
        oracle = Oracle.of_module(job, name, state, files, layers.get(name))
        said = any(key.startswith(f"base_model.model.{name}.") for f in files for key in f)
        if kind != "linear" and not said or kind == "embedding" and not any(".lora_" in key or ".token_adapter." in key for f in files for key in f if f".{name}." in key):
            continue  # nothing in the files says that it is one
        rows = job.draw.choice((1, 3, 17))
        if kind == "embedding":
            x = torch.randint(oracle.w.shape[1], (rows,))
        elif kind == "conv2d":
            x = torch.randn(rows, state[name + ".weight"].shape[1], 4, 5)
        else:
            x = torch.randn(rows, oracle.w.shape[1])
        y = job.matrix_output(name, layer(x))
        inputs[name] = x
        expected[name] = oracle
        if job.dora_meets and name in layers:
            continue
        worst = max(worst, hold_peft(name, y, oracle, job.matrix_input(name, x)))
    for at, layer in experts.items():
        pairs = [(f[f"base_model.model.{at}.lora_A.weight"], f[f"base_model.model.{at}.lora_B.weight"], layer.scaling[f"a{i}"]) for i, f in enumerate(files)]
        outermost = min(experts, key=len)
        parameter = f"{outermost}.{layer.parameter_name}"
        weight = experts_of(state[parameter], layer.get_base_layer().is_transposed)
        x = torch.randn(3, weight.shape[2])
        y = f64(experts[outermost](x, layer.parameter_name))
        for e in range(len(weight)):
            name = f"{parameter}[{e}]"
            inputs[name] = x.clone()
            expected[name] = Oracle.of_expert(weight, e, pairs)
            worst = max(worst, hold_peft(name, y[e], expected[name], f64(x)))
    save_file(inputs, folder / "x.safetensors")
    merged = {}
    if not job.dora_meets and not job.tied:  # there one merge after the other goes into one parameter
        narrow = load(job, wide, folder, job.base_dtype)
        for name, layer in adapted(narrow).items():
            if isinstance(layer, ParamWrapper):
                layer.merge()
                weight = experts_of(layer.get_param(), layer.get_base_layer().is_transposed)
                merged |= {f"{min(experts, key=len)}.{layer.parameter_name}[{e}]": f64(weight[e]) for e in range(len(weight))}
                continue
            try:
                layer.merge()
                merged[name] = matrix_of(job.kinds[name], layer.get_base_layer().weight)
            except RuntimeError as refused:  # lora_bias over a base without one
                merged[name] = str(refused)
    return Result(state, files, expected, merged, worst)


def hold_peft(name, y, oracle, x):
    exact, _, theirs = oracle.forward(x)
    error = abs(y - exact)
    if not (error <= theirs).all():
        raise Failure(f"{name}: PEFT is {np.nanmax(error / theirs):.3g} of its bound from the oracle: the oracle is wrong")
    return float((error / theirs).max(initial=0))


def check_answers(job, result, folder, notes, seen):
    ours = load_file(folder / "ours.safetensors")
    inputs = load_file(folder / "x.safetensors")
    for name, oracle in result.expected.items():
        y, bound, _ = oracle.forward(job.matrix_input(name, inputs[name]))
        kind = re.sub(r"\[\d+\]$", "", name) in job.parameters and "experts" or job.kinds[name]
        hold(seen, f"forward of {kind}", name, job.matrix_output(name, ours[name + ".y"]), y, bound, tight=bound / 10)
        exact, chain, allowed = oracle.merged()
        got = ours[name + ".merged"]
        if got.dtype != oracle.dtype:
            raise Failure(f"{name}: merged is {got.dtype}")
        hold(seen, "merged " + TYPES[oracle.dtype], name, f64(got), exact, allowed, tight=allowed - 0.9 * chain)
        if kind == "embedding":
            hold(seen, "merged table " + TYPES[oracle.dtype], name, f64(ours[name + ".table"]).T, exact, allowed, tight=allowed - 0.9 * chain)
        peft_merged = result.merged.get(name)
        if isinstance(peft_merged, np.ndarray) and oracle.dtype == job.base_dtype and peft_merged.shape == exact.shape:
            seen["PEFT merged " + TYPES[job.base_dtype]] = max(seen["PEFT merged " + TYPES[job.base_dtype]], float((abs(peft_merged - exact) / np.maximum(allowed, 1e-300)).max(initial=0)))
        if not job.tied:  # whose merges PEFT was not asked for
            unheld = isinstance(peft_merged, str) and oracle.own_bias.any()  # of a bias times 0 ours says that there is none
            if unheld != (name in notes):
                raise Failure(f"{name}: PEFT's merge says {peft_merged!r}, ours {notes.get(name)!r}")
        if oracle.bias is not None and name not in notes:
            hold(seen, "bias", name, f64(ours[name + ".bias"]), oracle.bias + oracle.own_bias, 32 * EPS * (abs(oracle.bias) + abs(oracle.own_bias)))
    for name, kind in job.kinds.items():  # of a norm
        for file in result.files:
            for part in ("weight", "bias"):
                key = f"base_model.model.{name}.{part}"
                if kind == "norm" and key in file:
                    if f"{name}.{part}" not in ours or not np.array_equal(f64(ours[f"{name}.{part}"]), f64(file[key])):
                        raise Failure(f"the trained {part} of {name} does not arrive")


def hold(seen, what, name, got, exact, bound, tight=None):
    if got.shape != exact.shape:
        raise Failure(f"{what} {name}: shape {got.shape}, not {exact.shape}")
    error = abs(got - exact)
    share = float((error / np.maximum(bound, 1e-300)).max(initial=0))
    seen[what] = max(seen[what], share)
    if not (error <= bound).all():
        raise Failure(f"{what} of {name}: {share:.3g} of the bound")
    if tight is not None and not (error <= tight).all():
        raise Failure(f"{what} of {name}: within the bound ({share:.3g} of it), but not within the tighter one: a rounding too many")


def through_program(program, job, result, folder, seen):
    """The same job through `lora apply` for one module, and `lora merge`."""
    inputs = load_file(folder / "x.safetensors")
    model = ["--base", folder / "base.safetensors", *(w for tie in job.tied.items() for w in ("--tied", "=".join(tie)))]
    model += [w for i, weight in enumerate(job.weights) for w in ("--adapter", f"{folder / f'a{i}'}={weight}")]

    def run(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Failure(f"lora {arguments[0]}: {done.stderr.strip()}")

    name = next(n for n, o in result.expected.items() if o.terms)
    np.save(folder / "x.npy", inputs[name].numpy())
    geometry = job.geometry.get(name, {})
    shape = [w for key in ("stride", "padding") if key in geometry for w in (f"--{key}", ",".join(map(str, np.broadcast_to(geometry[key], 2))))]
    run("apply", *model, "--module", name, "--input", folder / "x.npy", "--output", folder / "y.npy", *shape)
    y, bound, _ = result.expected[name].forward(job.matrix_input(name, inputs[name]))
    hold(seen, "program: apply", name, job.matrix_output(name, torch.from_numpy(np.load(folder / "y.npy"))), y, bound, tight=bound / 10)
    merge = ("merge", *model, "--output", folder / "merged.safetensors")
    try:
        run(*merge)
    except Failure as refused:  # a bias of B over a base without one, also when it is zero
        if "cannot be merged" in str(refused) and "lora_bias" in job.features and any(o.bias is None for o in result.expected.values()):
            return
        raise
    if any(o.bias is None and o.own_bias.any() for o in result.expected.values()):
        raise Failure("lora merge: a bias of B over a base without one must be refused")
    merged = load_file(folder / "merged.safetensors")
    if merged.keys() - {f"{head}.weight" for head in job.tied} != result.state.keys():
        raise Failure("lora merge: other tensors than the base's")

    def weight_of(name):
        """As a matrix [out, in]; one of the experts', or of a tied module that goes on sharing its table."""
        expert = re.fullmatch(r"(.*)\.(\w+)\[(\d+)\]", name)
        if expert:
            return f64(experts_of(merged[f"{expert[1]}.{expert[2]}"], job.build().get_submodule(expert[1]).is_transposed)[int(expert[3])])
        return matrix_of(job.kinds[name], merged.get(name + ".weight", merged.get(job.weight_name(name))))
    for name, oracle in result.expected.items():
        exact, chain, allowed = oracle.merged(job.base_dtype)  # also of a copy in the adapter that has another
        hold(seen, "program: merge", name, weight_of(name), exact, allowed, tight=allowed - 0.9 * chain)
        if oracle.bias is not None:
            unit = 2.0**-24 if job.base_dtype == torch.float32 else U16[job.base_dtype][0]
            want = oracle.bias + oracle.own_bias
            hold(seen, "program: bias", name, f64(merged[name + ".bias"]), want, 32 * EPS * (abs(oracle.bias) + abs(oracle.own_bias)) + unit * abs(want) + 2.0**-25 * (job.base_dtype == torch.float16))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--lora")
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("LORA_TEST_SEED", random.SystemRandom().randrange(10**6))))
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    print(f"seed {options.seed} (LORA_TEST_SEED or --seed); PEFT {peft.__version__}, torch {torch.__version__}", flush=True)
    driver = subprocess.Popen([options.driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seen = collections.defaultdict(float)
    outcomes, drawn, failures = collections.Counter(), collections.Counter(), []
    programs, of_kind = 0, collections.Counter()
    for number in [options.only] if options.only is not None else range(options.jobs):
        with tempfile.TemporaryDirectory(prefix="lora-peft-") as scratch:
            folder = pathlib.Path(scratch)
            if options.keep:
                folder = options.keep
                folder.mkdir(parents=True)
            job = Job(options.seed, number)
            try:
                try:
                    result = make_job(job, folder)
                except (KeyError, ValueError) as own:
                    if not re.search(r"base_model\.model\.|_initial does not exist", str(own)):
                        raise
                    outcomes["not compared: PEFT cannot load or convert what it made itself"] += 1
                    continue
                for feature in job.features | {f"{len(job.configs)} adapters", "base " + TYPES[job.base_dtype]}:
                    drawn[feature] += 1
                if job.copies_meet:
                    outcomes["not compared: copies of the base beside another adapter: in PEFT the order of loading decides"] += 1
                    continue
                driver.stdin.write(" ".join([str(folder), *job.words()]) + "\n")
                driver.stdin.flush()
                notes = {}
                while (answer := driver.stdout.readline()).startswith("note "):
                    _, module, sentence = answer.split(" ", 2)
                    notes[module] = sentence.strip()
                if answer.startswith("refused "):
                    right = [why for words, why, applies in REFUSALS if re.search(words, answer) and applies(job)]
                    if not right:
                        raise Failure("refused: " + answer[8:].strip())
                    outcomes["refused: " + right[0]] += 1
                elif answer != "done\n":
                    raise Failure(f"the driver ended ({driver.poll()}) with {answer!r}")
                elif job.dora_meets or job.unconverted:
                    raise Failure("accepted, but it must be refused")
                elif job.undecided:
                    outcomes["not compared: how a square weight lies cannot be told from these files"] += 1
                else:
                    check_answers(job, result, folder, notes, seen)
                    outcomes["agrees"] += 1
                    seen["PEFT forward"] = max(seen["PEFT forward"], result.worst)
                    rare = {"experts", "base_copy", "tied"} & job.features
                    if options.lora and (programs < 20 or any(of_kind[f] < 5 for f in rare)) and not notes and any(o.terms for o in result.expected.values()):
                        through_program(options.lora, job, result, folder, seen)
                        programs += 1
                        of_kind.update(rare)
            except Exception as f:  # of PEFT too: a job that it cannot make is to be drawn otherwise
                failures.append(number)
                if not isinstance(f, Failure):
                    traceback.print_exc()
                print(f"FAILED job {number}: {f}\n  {job.describe()}\n  alone: --seed {options.seed} --only {number} --keep FOLDER", flush=True)
                if driver.poll() is not None:
                    driver = subprocess.Popen([options.driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print("drawn: " + ", ".join(f"{n} {f}" for f, n in sorted(drawn.items())))
    for what, count in outcomes.most_common():
        print(f"{count:5d} {what}")
    for what, share in sorted(seen.items()):
        print(f"  {what}: at most {share:.3f} of the bound")
    if options.lora:
        print(f"  {programs} of them through the program", *(f", {n} with {f}" for f, n in of_kind.items()), sep="")
    if options.only is None and not failures and (outcomes["agrees"] < options.jobs // 2 or options.lora and programs < 20):
        sys.exit("FAILED: too few jobs were compared")
    sys.exit(f"FAILED: jobs {failures}" if failures else 0)


if __name__ == "__main__":
    main()
