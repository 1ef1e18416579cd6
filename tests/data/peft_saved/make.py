# SPDX-License-Identifier: Apache-2.0
"""Make small oracle fixtures with real PEFT: what adapters replace whole, and what only looks like a plain LoRA.

    pip install -r ../../../examples/data/digits/requirements.txt
    python make.py [outdir]        (default: the folder of this file)

README.md describes the cases and the files. Two runs on one machine write the same bytes.
"""

import os
import sys

# PYTHONHASHSEED: PEFT writes its set of target modules in hash order.
PINNED_ENV = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
if any(os.environ.get(key) != value for key, value in PINNED_ENV.items()):
    os.environ.update(PINNED_ENV)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import json
import tempfile
import warnings
from pathlib import Path

import torch
from peft import BdLoraConfig, KasaConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

WORDS, WIDTH = 9, 6


class Model(nn.Module):
    """Nobody calls it as a whole: each fixture is about single modules."""

    def __init__(self, words=WORDS):
        super().__init__()
        self.emb = nn.Embedding(words, WIDTH)
        self.q = nn.Linear(WIDTH, 8)
        self.v = nn.Linear(WIDTH, 5, bias=False)
        self.conv = nn.Conv2d(2, 4, (3, 2))
        self.norm = nn.LayerNorm(WIDTH)
        self.cls = nn.Module()
        self.cls.dense = nn.Linear(8, 8)
        self.cls.out = nn.Linear(8, 3, bias=False)
        self.head = nn.Linear(WIDTH, words, bias=False)
        self.name_or_path = ""

    def get_input_embeddings(self):
        return self.emb

    def get_output_embeddings(self):
        return self.head


def train(model):
    """Everything that PEFT would save is made random."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                if "magnitude" in name:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 2))
                else:
                    parameter.normal_(std=0.5)


def answers(model, names):
    out = {}
    for name in names:
        module = model.base_model.model.get_submodule(name)
        if name == "emb":
            x = torch.arange(model.base_model.model.get_submodule("head").out_features)
        elif name == "conv":
            x = torch.randn(2, 2, 5, 4)
        else:
            x = torch.randn(3, {"cls.dense": 8, "cls.out": 8}.get(name, WIDTH))
        with torch.no_grad():
            y = module(x)
        out["x." + name], out["y." + name] = x, y.contiguous()
    return out


def with_rows(state, words, rows):
    """The state of a model whose vocabulary has grown: rows(name, tensor) below those that were there."""
    wider = ("emb.weight", "head.weight") if words != WORDS else ()
    return {k: torch.cat([v, rows(k, v)]) if k in wider else v for k, v in state.items()}


def make_case(out, seed, config, names, words=WORDS, save_embeddings=False):
    """`words`: the vocabulary is resized to that before the adapter is made; base.safetensors keeps the old one."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    base = Model()
    state = {k: v.clone() for k, v in base.state_dict().items()}
    save_file(state, out / "base.safetensors", metadata={"format": "pt"})
    if words != WORDS:
        resized = Model(words)
        grown = resized.state_dict()
        resized.load_state_dict(with_rows(state, words, lambda k, v: grown[k][len(v) :]))
        base = resized
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, **config))
    train(model)
    model.save_pretrained(str(out), save_embedding_layers=save_embeddings)
    (out / "README.md").unlink()

    # From here on only the saved files count. PEFT wants the base resized before it loads; what the new rows hold does not matter.
    fresh = Model(words)
    fresh.load_state_dict(with_rows(state, words, lambda k, v: torch.full((words - len(v), *v.shape[1:]), 7.0)))
    loaded = PeftModel.from_pretrained(fresh, str(out)).eval()
    save_file(answers(loaded, names), out / "answers.safetensors")


def make_init(out, seed, init, converted):
    """An adapter that PEFT took out of the base's weights; converted, it is plain LoRA over the base as it was."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    base = Model()
    save_file(base.state_dict(), out / "base.safetensors", metadata={"format": "pt"})
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, init_lora_weights=init, target_modules=["q", "v"]))
    with tempfile.TemporaryDirectory() as initial:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(initial)
        model.peft_config["default"].init_lora_weights = init
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        extra = dict(path_initial_model_for_weight_conversion=initial) if converted else {}
        save_file(answers(model.eval(), ["q", "v"]), out / "answers.safetensors")  # of the model as it was trained
        model.save_pretrained(str(out), **extra)
    (out / "README.md").unlink()


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 4, bias=False)
        self.name_or_path = ""

    def prepare_inputs_for_generation(self):  # PEFT looks for it in a causal model, which activated LoRA asks for
        pass


REFUSED = {
    "alora": LoraConfig(r=1, target_modules=["q"], task_type="CAUSAL_LM", alora_invocation_tokens=[1, 2]),
    "kasa": LoraConfig(r=1, target_modules=["q"], kasa_config=KasaConfig()),
    "bdlora": LoraConfig(r=2, target_modules=["q"], use_bdlora=BdLoraConfig(nblocks=2, target_modules_bd_a=["q"])),
    "loha": LoHaConfig(r=1, target_modules=["q"]),
    "lokr": LoKrConfig(r=1, target_modules=["q"]),
}
# PEFT writes these fields, but applies them to a quantised base or to a transformers model only: the tensors are those of a plain adapter.
CONFIG_ONLY = {
    "qalora": dict(use_qalora=True, qalora_group_size=2),
    "layer_replication": dict(layer_replication=[(0, 2), (1, 2)]),
}


def make_refused(out):
    for name, config in REFUSED.items():
        torch.manual_seed(0)
        get_peft_model(Small(), config).save_pretrained(str(out / name), save_embedding_layers=False)
        (out / name / "README.md").unlink()
    for name, change in CONFIG_ONLY.items():
        torch.manual_seed(0)
        get_peft_model(Small(), LoraConfig(r=1, target_modules=["q"])).save_pretrained(str(out / name), save_embedding_layers=False)
        (out / name / "README.md").unlink()
        LoraConfig(r=1, target_modules=["q"], inference_mode=True, **change).save_pretrained(str(out / name))


def main():
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    everything = ["norm", "cls", "emb", "conv"]
    make_case(out / "saved", 1, dict(target_modules=["q"], modules_to_save=everything), ["q", "cls.dense", "cls.out", "emb", "conv", "norm"])
    make_case(out / "saved_bias_all", 2, dict(target_modules=["q"], bias="all", modules_to_save=["cls", "norm"]), ["q", "cls.dense", "cls.out", "norm", "conv"])
    make_case(out / "base_copy", 3, dict(target_modules=["q", "head"], use_dora=True), ["q", "head"], words=11, save_embeddings=True)
    make_case(out / "resized", 4, dict(target_modules=["q"]), ["q", "emb", "head"], words=11, save_embeddings=True)
    for seed, init in enumerate(["pissa", "olora"], start=5):
        make_init(out / init, seed, init, False)
        make_init(out / (init + "_converted"), seed, init, True)
    make_refused(out / "refused")


if __name__ == "__main__":
    main()
