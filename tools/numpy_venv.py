#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Python environment with NumPy, safetensors and gguf, of pinned versions, for the tests with the label numpy: build/venv-numpy.

  numpy_venv.py                       makes it, unless it is there; says first what will be downloaded
  numpy_venv.py --peers               and adds PyTorch and PEFT, whose part of these tests is skipped without them
  numpy_venv.py --run SCRIPT ARGS...  runs a script in it; exit code 77 (skipped) and one sentence when it is not there
"""
import os
import pathlib
import subprocess
import sys
import venv

PINNED = ["numpy==2.4.6", "safetensors==0.8.0", "gguf==0.19.0"]  # DLPack's versioned struct needs NumPy 2.1
SIZE = "about 20 MB"
PEERS = ["torch", "peft==0.21.2"]
PEERS_SIZE = "about 3 GB with the libraries that PyTorch's wheel asks for"
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
    if subprocess.run([PYTHON, "-c", "import torch, peft"], capture_output=True).returncode == 0:
        return print(f"PyTorch and PEFT are there, in {FOLDER}")
    print(f"downloading {' '.join(PEERS)} from PyPI, {PEERS_SIZE}, into {FOLDER}", flush=True)
    if subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", *PINNED, *PEERS]).returncode:
        sys.exit(f"{' '.join(PEERS)} could not be installed; the tests that need it will be skipped")


def run(arguments):
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
