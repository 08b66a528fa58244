"""Stands in for gpu_burn: its arguments, its processes, its output (carriage returns and all), no GPU.

A script with a shebang is written around it (`program`). What it does is set by FAKE_GPU_BURN: ok, faulty, crash,
early, stubborn (ignores SIGTERM, its processes too), mute (no verdict), oom (no GPU has room), endless (tens of
megabytes without the end of a line, then its verdict).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

CRASH_STATUS = 123


def program(directory: Path, mode: str) -> Path:
    """An executable `gpu_burn` in `directory`."""
    path = directory / "gpu_burn"
    call = f"from tests.integration.burn.fake_gpu_burn import main; main({mode!r}, {str(directory)!r})"
    root = Path(__file__).parents[3]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -c "{call}" "$@"\n')
    path.chmod(0o755)
    (directory / "compare.ptx").touch()
    return path


def main(mode: str, directory: str) -> None:
    seconds = int(sys.argv[-1])
    if not Path("compare.ptx").is_file():
        sys.exit("Could not load kernel")
    print("GPU 0: Tesla P40 (UUID: GPU-fake)", flush=True)
    if mode == "crash":
        print("\n\nNo clients are alive!  Aborting", file=sys.stderr, flush=True)
        sys.exit(CRASH_STATUS)
    if mode == "early":
        return
    if mode in ("mute", "oom"):
        print('Couldn\'t init a GPU test: Error in "alloc": out of memory' if mode == "oom" else "Burning", flush=True)
        time.sleep(seconds)
        return
    if mode == "endless":
        for _ in range(800):
            print("\0" * 65536, end="", flush=True)
        print(flush=True)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(0.05)
    Path(directory, "pids").write_text(f"{os.getpid()} {child}")
    _burn(mode, seconds)
    print("\nKilling processes with SIGTERM (soft kill)", flush=True)
    os.kill(child, signal.SIGKILL)
    os.wait()
    print(f"done\n\nTested 1 GPUs:\n\tGPU 0: {'FAULTY' if mode == 'faulty' else 'OK'}", flush=True)


def _burn(mode: str, seconds: int) -> None:
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < seconds:
        errors = "7  (WARNING!)" if mode == "faulty" and elapsed > seconds / 2 else "0 "
        percent = 100 * elapsed / seconds
        print(f"\r{percent:.1f}%  proc'd: 40 (9000 Gflop/s)   errors: {errors}   temps: 61 C ", end="", flush=True)
        time.sleep(0.1)
