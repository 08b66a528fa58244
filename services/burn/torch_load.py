"""`--load torch`: matrix products on every GPU until the time is over; the results are compared, as gpu_burn does.

A process of its own, so that it can be killed and takes its CUDA context with it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from typing import Any, Final

SIZE: Final = 8192
"""Rows of the square matrices: one product has 1.1 TFLOP, enough to fill every SM of the largest board."""
BETWEEN_CHECKS: Final = 20
"""Products; some seconds on a slow board."""


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 where it ran its time (also with FAULTY GPUs, as gpu_burn), 2 where it could not."""
    parser = argparse.ArgumentParser(prog="torch_load")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--size", type=int, default=SIZE)
    args = parser.parse_args(argv)
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device: is it a CUDA build, and does nvidia-smi work?", flush=True)
        return 2
    errors = burn(torch, args.seconds, args.size)
    print(f"\nTested {len(errors)} GPUs:")
    for number, count in enumerate(errors):
        print(f"\tGPU {number}: {'FAULTY' if count else 'OK'}", flush=True)
    return 0


def burn(torch: Any, seconds: float, size: int) -> list[int]:
    """Wrong results per GPU. The same product on the same GPU is the same to the last bit; one that is not is wrong."""
    torch.manual_seed(10)
    source = torch.rand(size, size)
    works = [_Work(torch, source.to(f"cuda:{number}")) for number in range(torch.cuda.device_count())]
    begin = time.monotonic()
    products = 0
    while (elapsed := time.monotonic() - begin) < seconds:
        for _ in range(BETWEEN_CHECKS):
            for work in works:
                work.multiply()
        products += BETWEEN_CHECKS
        for work in works:
            work.check()
        counts = " - ".join(str(work.errors) for work in works)
        rate = products * 2 * size**3 / max(time.monotonic() - begin, 1e-9) / 1e9
        print(
            f"{min(100.0, 100 * elapsed / seconds):.1f}%  proc'd: {products} ({rate:.0f} Gflop/s)   errors: {counts}",
            flush=True,
        )
    return [work.errors for work in works]


class _Work:
    def __init__(self, torch: Any, source: Any) -> None:
        self._torch = torch
        self._source = source
        self._first = torch.matmul(source, source)
        self._result = self._first.clone()
        self.errors = 0

    def multiply(self) -> None:
        self._torch.matmul(self._source, self._source, out=self._result)

    def check(self) -> None:
        """`item` waits for the GPU, so the loop does not run ahead of it."""
        self.errors += int((self._result != self._first).sum().item())


if __name__ == "__main__":
    sys.exit(main())
