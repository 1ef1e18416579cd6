# SPDX-License-Identifier: Apache-2.0
"""Make the data of the digits example with real PyTorch and real PEFT.

    python make.py [outdir]        (default: the folder of this file)

It trains a small MLP on upright 8x8 digits, then teaches it with LoRA adapters
to read the same digits turned by a quarter. It writes, for a reader that has
neither PyTorch nor PEFT:

    base.safetensors           the MLP's weights
    adapter_v1/                a briefly trained adapter: plain alpha / r
    adapter_v2/                a fully trained one: rsLoRA and a rank pattern
    adapter_other/             an adapter of an MLP of other sizes (never fits)
    test_images.npy, test_labels.npy
    logits_*.npy               what PyTorch and PEFT answer for the test images

Two runs on one machine write the same bytes: seeds are fixed, one thread is
used, and string hashing is pinned, because PEFT writes its set of target
modules in hash order. Another machine may round differently in training, so
the committed files are the reference, not a new run.
"""

import os
import sys

# Both must be in place before Python hashes a string or torch starts a thread.
PINNED_ENV = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
if any(os.environ.get(key) != value for key, value in PINNED_ENV.items()):
    os.environ.update(PINNED_ENV)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SPLIT_SEED = 20240607
TEST_SIZE = 540
BATCH = 64


class MLP(nn.Module):
    """fc1, relu, fc2, relu, fc3, on pixels flattened row by row."""

    def __init__(self, hidden1, hidden2, name):
        super().__init__()
        self.fc1 = nn.Linear(64, hidden1)
        self.fc2 = nn.Linear(hidden1, hidden2)
        self.fc3 = nn.Linear(hidden2, 10)
        # PEFT copies this into adapter_config.json as base_model_name_or_path.
        self.name_or_path = name

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


def digits_mlp():
    return MLP(256, 128, "digits-mlp")


def small_mlp():
    return MLP(96, 48, "digits-mlp-small")


def load_split():
    """The 1,797 images as u8 values 0..16, split by class: 1,257 and 540."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    assert np.array_equal(images, digits.images) and images.max() == 16
    return train_test_split(
        images, labels, test_size=TEST_SIZE, stratify=labels, random_state=SPLIT_SEED
    )


def rotated(images):
    """Every image turned by 90 degrees counter-clockwise: out[r][c] = in[c][7 - r]."""
    return np.ascontiguousarray(np.rot90(images, k=1, axes=(1, 2)))


def network_input(images):
    """u8 [n, 8, 8] to f32 [n, 64]; dividing by 16 is exact."""
    return torch.from_numpy(images.reshape(len(images), 64).astype(np.float32) / 16)


def train(model, images, labels, *, epochs, lr, seed, weight_decay=0.0):
    """Adam with a cosine schedule over the parameters that require gradients."""
    inputs = network_input(images)
    targets = torch.from_numpy(labels.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    steps = epochs * ((len(inputs) + BATCH - 1) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def logits_of(model, images):
    """f32 [n, 10], all images in one batch."""
    model.eval()
    with torch.no_grad():
        return model(network_input(images)).numpy()


def accuracy(logits, labels):
    return 100.0 * float(np.mean(np.argmax(logits, axis=1) == labels))


def new_adapter(model, seed, **config):
    """`model` wrapped by PEFT: only A and B of the LoRA layers are trainable."""
    torch.manual_seed(seed)  # A is drawn at random, B is zero
    return get_peft_model(model, LoraConfig(**config))


def save_adapter(model, folder):
    """As PEFT writes it, less the model card, which is an empty form.

    The model has no embeddings; saying so keeps PEFT from looking for the base
    model's vocabulary on the model hub. It does not change the files.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()


def fresh_base(out):
    model = digits_mlp()
    model.load_state_dict(load_file(out / "base.safetensors"))
    return model.eval()


def make_base(out, images, labels):
    torch.manual_seed(1)
    model = digits_mlp()
    train(model, images, labels, epochs=60, lr=3e-3, seed=2, weight_decay=0.05)
    save_file(model.state_dict(), out / "base.safetensors", metadata={"format": "pt"})


def make_v1(out, images, labels):
    """Stopped early on purpose: better than the base, worse than v2."""
    model = new_adapter(
        fresh_base(out), seed=3, r=4, lora_alpha=8, target_modules=["fc1", "fc2"]
    )
    train(model, images, labels, epochs=8, lr=1e-2, seed=4)
    save_adapter(model, out / "adapter_v1")
    return model


def make_v2(out, images, labels):
    """Scaling is alpha / sqrt(r): 12 / sqrt(8) at fc1 and fc3, 12 / sqrt(12) at fc2."""
    model = new_adapter(
        fresh_base(out),
        seed=5,
        r=8,
        lora_alpha=12,
        use_rslora=True,
        rank_pattern={"fc2": 12},
        target_modules=["fc1", "fc2", "fc3"],
    )
    train(model, images, labels, epochs=60, lr=2e-3, seed=6, weight_decay=0.05)
    save_adapter(model, out / "adapter_v2")
    return model


def make_other(out, images, labels):
    """The same module names in another model; its own base is not kept."""
    torch.manual_seed(7)
    base = small_mlp()
    train(base, images, labels, epochs=10, lr=3e-3, seed=8)
    model = new_adapter(
        base, seed=9, r=4, lora_alpha=8, target_modules=["fc1", "fc2", "fc3"]
    )
    train(model, rotated(images), labels, epochs=5, lr=2e-3, seed=10)
    save_adapter(model, out / "adapter_other")


def check_reload(out, name, images, expected):
    """The saved files alone give the same logits, to the bit."""
    model = PeftModel.from_pretrained(fresh_base(out), str(out / name))
    assert np.array_equal(logits_of(model, images), expected), name


def main():
    started = time.perf_counter()
    here = Path(__file__).resolve().parent
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else here
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    train_images, test_images, train_labels, test_labels = load_split()
    train_turned, test_turned = rotated(train_images), rotated(test_images)
    np.save(out / "test_images.npy", np.ascontiguousarray(test_images))
    np.save(out / "test_labels.npy", np.ascontiguousarray(test_labels))

    make_base(out, train_images, train_labels)
    models = {
        "base": fresh_base(out),
        "adapter_v1": make_v1(out, train_turned, train_labels),
        "adapter_v2": make_v2(out, train_turned, train_labels),
    }
    make_other(out, train_images, train_labels)

    rows = []
    for name, model in models.items():
        upright = logits_of(model, test_images)
        turned = logits_of(model, test_turned)
        np.save(out / f"logits_{name.removeprefix('adapter_')}.npy", turned)
        if name == "base":
            np.save(out / "logits_base_upright.npy", upright)
        else:
            check_reload(out, name, test_turned, turned)
        rows.append((name, accuracy(upright, test_labels), accuracy(turned, test_labels)))

    print(f"train {len(train_images)} images, test {len(test_images)} images")
    print(f"{'model':<12} {'upright':>9} {'rotated':>9}")
    for name, upright, turned in rows:
        print(f"{name:<12} {upright:>8.2f}% {turned:>8.2f}%")
    print(f"written in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
