# SPDX-License-Identifier: Apache-2.0
"""differential_test.py DRIVER [--lora PROGRAM] [--jobs N] [--seed S] [--only I] [--keep FOLDER]

Random adapters, made and computed with by PEFT, against what the library makes of the same files (driver.cpp). A job is a random base of linear
layers, Conv1D, embeddings, convolutions and a norm, and one to three random LoraConfigs with weights over it. Either every module's output and
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
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import numpy as np
    import peft
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file, save_file
    from torch import nn
    from transformers.pytorch_utils import Conv1D
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

# What the library has. A feature that is off is drawn now and then all the same, and must then be refused with the words beside it.
FEATURES = {
    "embedding": (False, r"adapts an embedding, which is not supported"),
    "conv2d": (False, r"is not that of a matrix"),
    "modules_to_save": (False, r"'modules_to_save' is set: whole modules replaced by trained ones are not supported"),
    "trainable_tokens": (False, r"'trainable_token_indices' is set: trained embedding rows are not supported"),
}
# What the program `lora` has on top of plain adapters.
PROGRAM = {"dora": False, "lora_bias": False, "bias": False, "conv1d": False, "embedding": False, "conv2d": False, "modules_to_save": False, "trainable_tokens": False}

# The refusals that are right: the words, the reason, and what must be true of the job. Anything else is a failure, and so is a job that
# a line says must be refused and is not.
REFUSALS = [
    ("their sum is not defined", "DoRA beside another adapter in one module: PEFT's result depends on the order of its calls", lambda j: j.dora_meets),
    (r"the field 'init_lora_weights' is", "PiSSA and OLoRA that were not converted: they belong to a base that PEFT rewrites on load", lambda j: j.unconverted),
    (r"(lookahead|lookbehind|a backreference|a named group|a flag).* is not supported|is not supported \(position", "a pattern outside the subset of Python's re", lambda j: j.odd_pattern),
    (r"fan_in_fan_out is (true|false), but the weight of .* lies the other way", "PEFT saves one flag for a file, that of the layer it wrapped last", lambda j: j.flag_lies),
]

EPS = 2.0**-23
U16 = {torch.float16: (2.0**-11, -14), torch.bfloat16: (2.0**-8, -126)}
TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
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


class Job:
    """Everything that is drawn for one job, from its number alone."""

    def __init__(self, seed, number):
        self.draw = draw = random.Random(f"{seed}/{number}")
        torch.manual_seed(draw.randrange(2**31))
        self.number = number
        self.features = set()
        self.unconverted = self.odd_pattern = self.dora_meets = self.flag_lies = self.undecided = False
        self.modules = {}
        self.kinds = {}
        self.smaller = {}
        self.base_dtype = draw.choice((torch.float32, torch.float32, torch.float16, torch.bfloat16))
        square_conv1d = draw.random() < 0.5  # squares of both kinds in one base cannot be told apart, see docs/compatibility.md
        gpt = draw.random() < 0.3
        for layer in range(draw.randint(1, 2)):
            for name in draw.sample(NAMES, draw.randint(1, 3)):
                self.add_linear(f"model.layers.{layer}.{name}", gpt and draw.random() < 0.7, square_conv1d)
        if draw.random() < 0.4:
            self.add_linear("head", False, square_conv1d)
        if self.wanted("embedding", 0.25):
            self.add("model.embed", "embedding", nn.Embedding, draw.randint(3, 40), draw.randint(1, 20))
        if self.wanted("conv2d", 0.25):
            k = draw.choice((1, 3))
            self.add("model.conv", "conv2d", nn.Conv2d, draw.randint(1, 5), draw.randint(1, 9), k, padding=k // 2, bias=draw.random() < 0.5)
        self.add("model.norm", "norm", nn.LayerNorm, draw.randint(1, 9))
        self.configs = []
        self.weights = []
        count = draw.choice((1, 1, 1, 2, 3))
        for i in range(count):
            self.configs.append(self.config(count))
            self.weights.append(draw.choice((1.0, 1.0, 1.0, 0.5, -0.75, 2.0, 0.0)))

    def wanted(self, feature, share):
        return self.draw.random() < (share if FEATURES[feature][0] else 0.02)

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
            name = self.draw.choice(list(self.modules))
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
        adaptable = [n for n, k in self.kinds.items() if k != "norm"]
        chosen = draw.sample(adaptable, draw.randint(1, len(adaptable)))
        if not any(self.kinds[n] in ("linear", "conv1d") for n in chosen):
            chosen.append(next(n for n in adaptable if self.kinds[n] in ("linear", "conv1d")))
        special = any(self.kinds[n] in ("embedding", "conv2d") for n in chosen)
        for n in chosen:
            self.features |= {self.kinds[n]} & set(FEATURES)
        how = draw.random()
        targets = chosen if how < 0.6 else sorted({n.split(".", 2)[-1] for n in chosen}) if how < 0.8 else "|".join(map(re.escape, chosen))
        config = dict(r=draw.choice((1, 2, 3, 4, 5, 8, 16, 24)), lora_alpha=draw.choice((1, 2, 3, 8, 16, 6.5, 0, -4)), target_modules=targets, use_rslora=draw.random() < 0.3,
                      fan_in_fan_out=draw.random() < 0.3, lora_dropout=draw.choice((0.0, 0.1)), init_lora_weights=draw.choice((True, False, "gaussian")))
        if draw.random() < 0.3:
            config["rank_pattern"] = self.keys(lambda: draw.randint(1, 9))
        if draw.random() < 0.3:
            config["alpha_pattern"] = self.keys(lambda: draw.choice((1, 4, 7.5, 20)))
        kind = draw.random()
        if kind < (0.22 if count == 1 else 0.08):
            config["use_dora"] = True
            self.features.add("dora")
        elif kind < 0.4 and not special:
            config.update(lora_bias=True, init_lora_weights=draw.random() < 0.5)  # other ways to begin, PEFT does not allow with it
            self.features.add("lora_bias")
        elif kind < 0.55 and all(self.kinds[n] == "linear" for n in chosen) and min(self.smaller[n] for n in chosen) >= config["r"] and not config.get("rank_pattern") and not (config["use_rslora"] and config.get("alpha_pattern")):
            config.update(init_lora_weights=draw.choice(("pissa", "olora")), lora_alpha=draw.choice((1, 4, 6.5)))  # they divide by it
        if count == 1 and config["init_lora_weights"] not in ("pissa", "olora") and draw.random() < 0.3:
            config["bias"] = draw.choice(("all", "lora_only"))
            self.features.add("bias")
        if count == 1 and self.wanted("modules_to_save", 0.15):
            free = [n for n in self.modules if n not in chosen and self.kinds[n] in ("linear", "norm")]
            config["modules_to_save"] = [draw.choice(free)]
            self.features.add("modules_to_save")
        if count == 1 and "model.embed" in self.kinds and "model.embed" not in chosen and self.wanted("trainable_tokens", 0.3):
            config["trainable_token_indices"] = {"model.embed": sorted(draw.sample(range(3), draw.randint(1, 3)))}
            self.features.add("trainable_tokens")
        if any(self.kinds[n] == "conv1d" for n in chosen):
            self.features.add("conv1d")
        return config

    def describe(self):
        return json.dumps({"base": {n: (k, tuple(self.modules[n]().state_dict()["weight"].shape)) for n, k in self.kinds.items()}, "dtype": TYPES[self.base_dtype], "weights": self.weights, "configs": self.configs}, default=str)


def adapted(model):
    return {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def make_adapter(job, state, config, folder):
    """PEFT wraps, "trains" and saves; the tensors may then be narrowed, and the patterns get back the order they were written in."""
    draw = job.draw
    base = Net(job.modules)
    base.load_state_dict(state)
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
    model.save_pretrained(str(folder), save_embedding_layers=False, path_initial_model_for_weight_conversion=converted)
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
    base = Net(job.modules)
    base.load_state_dict(state)
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


class Oracle:
    """One module in float64, from the tensors in the files; ranks and scalings as PEFT reports them."""

    def __init__(self, job, name, state, files, layer):
        kind = job.kinds[name]
        at = f"base_model.model.{name}."
        weight = state[name + ".weight"]
        bias = state.get(name + ".bias")
        for file, config in zip(files, job.configs):
            for key in (at + "base_layer.bias", at + "bias"):
                bias = file.get(key, bias)
            weight = file.get(at + "weight", weight)
            if at + "token_adapter.trainable_tokens_delta" in file:
                weight = weight.clone()
                weight[config["trainable_token_indices"][name]] = file[at + "token_adapter.trainable_tokens_delta"].to(weight.dtype)
        self.w = matrix_of(kind, weight)
        self.bias = None if bias is None else f64(bias)
        self.delta = np.zeros_like(self.w)
        self.size = np.zeros_like(self.w)  # of all that is added up for an element
        self.own_bias = np.zeros(self.w.shape[0])
        self.terms = []
        self.rank = 0
        self.factor = None
        for i, file in enumerate(files):
            a, b = (file.get(at + k) for k in (("lora_embedding_A", "lora_embedding_B") if kind == "embedding" else ("lora_A.weight", "lora_B.weight")))
            if a is None:
                continue
            scale = layer.scaling[f"a{i}"]
            a, b = f64(a).reshape(a.shape[0], -1), f64(b).reshape(b.shape[0], -1)
            self.terms.append((a, b, scale))
            self.delta += scale * (b @ a)
            self.size += abs(scale) * (abs(b) @ abs(a))
            self.rank += len(a)
            if at + "lora_B.bias" in file:
                self.own_bias += scale * f64(file[at + "lora_B.bias"])
            if at + "lora_magnitude_vector" in file:
                self.factor = f64(file[at + "lora_magnitude_vector"]).reshape(-1) / np.sqrt(((self.w + self.delta) ** 2).sum(1))
                self.spread = np.sqrt(((abs(self.w) + self.size) ** 2).sum(1) / ((self.w + self.delta) ** 2).sum(1))
        self.steps = self.w.shape[1] + self.rank + 8

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

    def merged(self, dtype):
        """W, the bound of the f32 chain, and that with the one rounding to dtype."""
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
    state = {n: (t + 0.3 * torch.randn_like(t)).to(job.base_dtype) for n, t in Net(job.modules).state_dict().items()}
    save_file(state, folder / "base.safetensors", metadata={"format": "pt"})
    wide = {n: t.float() for n, t in state.items()}
    flags = [make_adapter(job, wide, c, folder / f"a{i}") for i, c in enumerate(job.configs)]
    if job.unconverted:
        return None
    files = [load_file(folder / f"a{i}" / "adapter_model.safetensors") for i in range(len(job.configs))]
    model = load(job, wide, folder)
    layers = adapted(model)
    for flag, file in zip(flags, files):
        mine = [n for n in layers if f"base_model.model.{n}.lora_A.weight" in file and job.kinds[n] in ("linear", "conv1d")]
        square = [n for n in mine if state[n + ".weight"].shape[0] == state[n + ".weight"].shape[1]]
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
        if kind == "norm":
            continue
        layer = model.base_model.model.get_submodule(name)
        oracle = Oracle(job, name, state, files, layers.get(name))
        rows = job.draw.choice((1, 3, 17))
        if kind == "embedding":
            ids = torch.randint(oracle.w.shape[1], (rows,))
            x = torch.nn.functional.one_hot(ids, oracle.w.shape[1]).float()
            y = layer(ids)
        elif kind == "conv2d":
            conv = job.modules[name]()
            image = torch.randn(rows, conv.in_channels, 4, 5)
            x = nn.functional.unfold(image, conv.kernel_size, padding=conv.padding).transpose(1, 2).reshape(-1, oracle.w.shape[1]).contiguous()
            y = layer(image).flatten(2).transpose(1, 2).reshape(len(x), -1)
        else:
            x = torch.randn(rows, oracle.w.shape[1])
            y = layer(x)
        if kind != "linear" and not oracle.terms and not any(key.startswith(f"base_model.model.{name}.") for f in files for key in f):
            continue  # nothing in the files says that it is one
        inputs[name] = x
        expected[name] = oracle
        if job.dora_meets and name in layers:
            continue
        exact, _, theirs = oracle.forward(f64(x))
        error = abs(f64(y) - exact)
        if not (error <= theirs).all():
            raise Failure(f"{name}: PEFT is {np.nanmax(error / theirs):.3g} of its bound from the oracle: the oracle is wrong")
        worst = max(worst, float((error / theirs).max(initial=0)))
    save_file(inputs, folder / "x.safetensors")
    merged = {}
    if not job.dora_meets:
        narrow = load(job, wide, folder, job.base_dtype)
        for name, layer in adapted(narrow).items():
            try:
                layer.merge()
                merged[name] = matrix_of(job.kinds[name], layer.get_base_layer().weight)
            except RuntimeError as refused:  # lora_bias over a base without one
                merged[name] = str(refused)
    return Result(state, files, expected, merged, worst)


def check_answers(job, result, folder, notes, seen):
    ours = load_file(folder / "ours.safetensors")
    inputs = load_file(folder / "x.safetensors")
    for name, oracle in result.expected.items():
        y, bound, _ = oracle.forward(f64(inputs[name]))
        hold(seen, "forward", name, f64(ours[name + ".y"]), y, bound, tight=bound / 10)
        exact, chain, allowed = oracle.merged(job.base_dtype)
        got = ours[name + ".merged"]
        if got.dtype != job.base_dtype:
            raise Failure(f"{name}: merged is {got.dtype}")
        hold(seen, "merged " + TYPES[job.base_dtype], name, f64(got), exact, allowed, tight=allowed - 0.9 * chain)
        peft_merged = result.merged.get(name)
        if isinstance(peft_merged, np.ndarray):
            seen["PEFT merged " + TYPES[job.base_dtype]] = max(seen["PEFT merged " + TYPES[job.base_dtype]], float((abs(peft_merged - exact) / np.maximum(allowed, 1e-300)).max(initial=0)))
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
    adapters = [w for i, weight in enumerate(job.weights) for w in ("--adapter", f"{folder / f'a{i}'}={weight}")]

    def run(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Failure(f"lora {arguments[0]}: {done.stderr.strip()}")

    name = next(n for n, o in result.expected.items() if o.terms)
    np.save(folder / "x.npy", inputs[name].numpy())
    run("apply", "--base", folder / "base.safetensors", *adapters, "--module", name, "--input", folder / "x.npy", "--output", folder / "y.npy")
    y, bound, _ = result.expected[name].forward(f64(inputs[name]))
    hold(seen, "program: apply", name, np.load(folder / "y.npy").astype(float), y, bound, tight=bound / 10)
    run("merge", "--base", folder / "base.safetensors", *adapters, "--output", folder / "merged.safetensors")
    merged = load_file(folder / "merged.safetensors")
    if merged.keys() != result.state.keys():
        raise Failure("lora merge: other tensors than the base's")
    for name, oracle in result.expected.items():
        exact, chain, allowed = oracle.merged(job.base_dtype)
        hold(seen, "program: merge", name, matrix_of(job.kinds[name], merged[name + ".weight"]), exact, allowed, tight=allowed - 0.9 * chain)
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
    programs = 0
    for number in [options.only] if options.only is not None else range(options.jobs):
        with tempfile.TemporaryDirectory(prefix="lora-peft-") as scratch:
            folder = pathlib.Path(scratch)
            if options.keep:
                folder = options.keep
                folder.mkdir(parents=True)
            job = Job(options.seed, number)
            try:
                result = make_job(job, folder)
                for feature in job.features | {f"{len(job.configs)} adapters", "base " + TYPES[job.base_dtype]}:
                    drawn[feature] += 1
                driver.stdin.write(" ".join([str(folder), *map(str, job.weights)]) + "\n")
                driver.stdin.flush()
                notes = {}
                while (answer := driver.stdout.readline()).startswith("note "):
                    _, module, sentence = answer.split(" ", 2)
                    notes[module] = sentence.strip()
                expect_refusal = next((FEATURES[f][1] for f in sorted(job.features) if f in FEATURES and not FEATURES[f][0]), None)
                if answer.startswith("refused "):
                    right = [why for words, why, applies in REFUSALS if re.search(words, answer) and applies(job)]
                    if expect_refusal and re.search(expect_refusal, answer):
                        right.append("a feature that the library does not have yet")
                    if not right:
                        raise Failure("refused: " + answer[8:].strip())
                    outcomes["refused: " + right[0]] += 1
                elif answer != "done\n":
                    raise Failure(f"the driver ended ({driver.poll()}) with {answer!r}")
                elif expect_refusal or job.dora_meets or job.unconverted:
                    raise Failure("accepted, but it must be refused")
                elif job.undecided:
                    outcomes["not compared: how a square weight lies cannot be told from these files"] += 1
                else:
                    check_answers(job, result, folder, notes, seen)
                    outcomes["agrees"] += 1
                    seen["PEFT forward"] = max(seen["PEFT forward"], result.worst)
                    supported = all(PROGRAM.get(f, True) for f in job.features)
                    if options.lora and programs < 20 and supported and not notes and any(o.terms for o in result.expected.values()):
                        through_program(options.lora, job, result, folder, seen)
                        programs += 1
            except Failure as f:
                failures.append(number)
                print(f"FAILED job {number}: {f}\n  {job.describe()}\n  alone: --seed {options.seed} --only {number} --keep FOLDER", flush=True)
                if driver.poll() is not None:
                    driver = subprocess.Popen([options.driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print("drawn: " + ", ".join(f"{n} {f}" for f, n in sorted(drawn.items())))
    for what, count in outcomes.most_common():
        print(f"{count:5d} {what}")
    for what, share in sorted(seen.items()):
        print(f"  {what}: at most {share:.3f} of the bound")
    if options.lora:
        print(f"  {programs} of them through the program")
    if options.only is None and not failures and (outcomes["agrees"] < options.jobs // 2 or options.lora and programs < 20):
        sys.exit("FAILED: too few jobs were compared")
    sys.exit(f"FAILED: jobs {failures}" if failures else 0)


if __name__ == "__main__":
    main()
