"""The torch load: its arithmetic and output against a module in PyTorch's place, and as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAKE_TORCH = '''
"""As much of PyTorch as the load uses, with numpy. FAKE_TORCH_WRONG=1: GPU 1 computes a wrong element once."""
import os
import numpy as np

class Tensor:
    def __init__(self, values, device="cpu"):
        self.values, self.device = values, device
    def to(self, device):
        return Tensor(self.values.copy(), device)
    def clone(self):
        return Tensor(self.values.copy(), self.device)
    def __ne__(self, other):
        return Tensor(self.values != other.values)
    def sum(self):
        return Tensor(self.values.sum())
    def item(self):
        return self.values.item()

class cuda:
    @staticmethod
    def is_available():
        return os.environ.get("FAKE_TORCH_CUDA", "1") == "1"
    @staticmethod
    def device_count():
        return 2

def manual_seed(seed):
    np.random.seed(seed)

def rand(rows, columns):
    return Tensor(np.random.rand(rows, columns))

def matmul(a, b, out=None):
    product = a.values @ b.values
    if out is None:
        return Tensor(product, a.device)
    if os.environ.get("FAKE_TORCH_WRONG") == "1" and a.device == "cuda:1":
        product[0, 0] += 1
    out.values = product
'''


def run(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (directory / "torch.py").write_text(FAKE_TORCH)
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-m", "services.burn.torch_load", "--seconds", "0.3", "--size", "16"],
        env={"PYTHONPATH": f"{directory}:{root}", "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_sound_gpus(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Tested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n")
    assert "errors: 0 - 0" in done.stdout


def test_wrong_results_are_counted(tmp_path: Path) -> None:
    done = run(tmp_path, FAKE_TORCH_WRONG="1")
    assert done.stdout.endswith("\tGPU 0: OK\n\tGPU 1: FAULTY\n")


def test_no_cuda(tmp_path: Path) -> None:
    done = run(tmp_path, FAKE_TORCH_CUDA="0")
    assert done.returncode == 2
    assert "PyTorch sees no CUDA device" in done.stdout


@pytest.mark.gpu
def test_real_pytorch() -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-m", "services.burn.torch_load", "--seconds", "5"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GPU 0: OK" in done.stdout
