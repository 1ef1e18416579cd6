#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Python environment with the peers of bench/forward, of pinned versions: build/venv-peers. No test needs it.

  peers_venv.py          makes it, unless it is there; says first what will be downloaded
  peers_venv.py --list   the packages

PyPI has PyTorch for x86-64 with its CUDA parts only, and libtorch does not load without the libraries it is linked against. So they are installed
one by one, without pip's resolver, and what `import torch, peft` does not need is left out: Triton, cuSOLVER, the CUDA headers and bindings, networkx.
"""
import os
import pathlib
import subprocess
import sys
import venv

SIZE = "about 2.8 GB (PyTorch with the CUDA libraries it is linked against 2.5 GB, oneMKL 0.27 GB), 5 GB unpacked"
FREE = 9 << 30  # the wheel that is being unpacked included
PINNED = """
torch==2.15.0 nvidia-cublas==13.4.1.3 nvidia-cuda-cupti==13.2.86 nvidia-cuda-nvrtc==13.2.86 nvidia-cuda-runtime==13.2.86 nvidia-cudnn-cu13==9.26.0.51
nvidia-cufft==12.2.0.57 nvidia-cufile==1.17.1.22 nvidia-cusparse==12.7.10.12 nvidia-cusparselt-cu13==0.8.1 nvidia-nccl-cu13==2.30.7
nvidia-nvjitlink==13.5.37 nvidia-nvshmem-cu13==3.7.2
numpy==2.4.6 filelock==4.2.11 fsspec==2026.9.0 jinja2==3.1.6 markupsafe==3.0.4 mpmath==1.3.0 sympy==1.14.0 typing-extensions==4.16.0
peft==0.21.2 accelerate==1.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface-hub==2.4.0 httpx2==2.16.2 httpcore2==2.16.2
h11==0.16.0 anyio==4.16.0 idna==3.20 truststore==0.10.5 packaging==26.3 psutil==7.2.2 pyyaml==6.0.3 regex==2026.11.15 tqdm==4.70.1
mkl==2026.2.0 intel-openmp==2026.2.0 scipy-openblas32==0.3.34.481.3
""".split()
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "build" / "venv-peers"
PYTHON = FOLDER / "bin" / "python"
READY = FOLDER / "ready"  # holds PINNED; written last, so that half an environment is made again


def main():
    if sys.argv[1:2] == ["--list"]:
        return print("\n".join(PINNED))
    if READY.exists() and READY.read_text(encoding="utf-8").split() == PINNED:
        return print(f"{FOLDER} is there, with {PINNED[0]}")
    if sys.version_info < (3, 11):
        sys.exit(f"numpy of this version needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(FOLDER.parent)
    if status.f_bavail * status.f_frsize < FREE:
        sys.exit(f"the peers need {FREE >> 30} GB of disk while they are installed; {FOLDER.parent} has {status.f_bavail * status.f_frsize >> 30}")
    print(f"downloading {len(PINNED)} packages from PyPI, {SIZE}, into {FOLDER}", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=True).create(FOLDER)
    except (subprocess.CalledProcessError, ImportError):
        sys.exit("Python cannot make an environment. On Debian: apt-get install python3-venv")
    install = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    if subprocess.run([*install, *PINNED]).returncode:
        sys.exit("the peers could not be installed (no network?); ./dev bench forward runs without --peers, against Eigen, OpenBLAS and oneDNN of Debian")
    if subprocess.run([PYTHON, "-B", "-c", "import torch, peft; torch.ops.mkldnn._reorder_linear_weight(torch.ones(8, 8), 1)"]).returncode:
        sys.exit("the peers are installed but cannot be imported")
    READY.write_text("\n".join(PINNED), encoding="utf-8")


if __name__ == "__main__":
    main()
