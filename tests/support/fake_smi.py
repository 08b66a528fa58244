"""A fake `nvidia-smi` in a directory: a real program that others start, which answers from a state the test holds.

It stands for the driver's own program at its outer edge (arguments, text, exit codes), so that everything of ours runs
as it is. What it prints is made by tests/support/fake_smi_program.py; documents are own fixtures or `document(...)`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.smi_document import GpuState, MigState, Value, document

FOLDER: Final = Path(__file__).parents[1] / "fixtures" / "nvidia_smi"
FIXTURES: Final = tuple(sorted(path.stem for path in FOLDER.glob("*.xml")))
_PROGRAM: Final = Path(__file__).with_name("fake_smi_program.py")
_ANSWER: Final[dict[str, Any]] = {"kind": "answer"}
How = Literal["xml", "text", "omitted"]

__all__ = ["FIXTURES", "FakeSmi", "GpuState", "MigState", "document", "fixture"]


def fixture(name: str) -> bytes:
    """One of the project's own documents: `FIXTURES` names them."""
    return (FOLDER / f"{name}.xml").read_bytes()


class FakeSmi:
    """The program `<directory>/nvidia-smi` and the state it answers from. A change acts on its next call."""

    def __init__(
        self,
        directory: Path,
        xml: bytes | None = None,
        gpus: Sequence[GpuState] | None = None,
        driver: str | None = None,
        schema: int = 12,
    ) -> None:
        """Either a whole document or plain data; neither: one idle Tesla P40."""
        self.directory = directory
        self.program = str(directory / "nvidia-smi")
        self.gpus: list[GpuState] | None = list(gpus) if gpus is not None else None
        self._driver, self._schema = driver, schema
        self._state: dict[str, Any] = {"mode": _ANSWER, "edits": [], "lost": {}, "profiles": {}}
        self._file = directory / "nvidia-smi.state"
        directory.mkdir(parents=True, exist_ok=True)
        self._xml(xml if xml is not None or gpus is not None else fixture("tesla-p40"))
        script = directory / "nvidia-smi"
        script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I -S '{_PROGRAM}' '{self._file}' \"$@\"\n")
        script.chmod(0o755)

    def path(self) -> str:
        """PATH with this nvidia-smi first."""
        return f"{self.directory}{os.pathsep}{os.environ.get('PATH', '')}"  # noqa: TID251

    def calls(self) -> list[list[str]]:
        """The arguments of each call so far."""
        log = self._file.with_suffix(".calls")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    # What it says

    def set(self, path: str, text: str, gpu: int | None = 0) -> None:
        """`text` at `path` of a GPU's element (made where it is not there); of the header with `gpu=None`."""
        self.vary(path, [text], gpu)

    def vary(self, path: str, texts: Sequence[str], gpu: int | None = 0) -> None:
        """The next of `texts` at each call, the last from then on."""
        edits = [edit for edit in self._state["edits"] if (edit["gpu"], edit["path"]) != (gpu, path)]
        edits.append({"gpu": gpu, "path": path, "values": list(texts), "since": len(self.calls())})
        self._update(edits=edits)

    def state(self, gpu: int = 0, **values: Value) -> None:
        """New values by catalogue column; only for a fake made of `gpus`."""
        self._own()[gpu].values.update(values)
        self._xml(None)

    def add(self, gpu: GpuState) -> None:
        self._own().append(gpu)
        self._xml(None)

    def remove(self, gpu: int) -> None:
        del self._own()[gpu]
        self._xml(None)

    # How it fails

    def lose(self, gpu: int = 0, how: How = "xml") -> None:
        """`xml`: every cell says so. `text`: nothing but the message, exit 15. `omitted`: counted, and not there."""
        self._update(lost={**self._state["lost"], str(gpu): how})

    def hang(self, seconds: float | None = None) -> None:
        """No answer for so long; None: none at all, deaf to SIGTERM, with a child that holds the pipes."""
        self._update(mode={"kind": "hang", "seconds": seconds})

    def garbage(self, data: bytes = b"\x7fELF\x02\x01\x00 not what you asked for\n") -> None:
        self._print(data, 0)

    def truncate(self, part: float = 0.5) -> None:
        """This part of the answer, and exit 0: a full pipe, a full disk."""
        self._update(mode={**_ANSWER, "part": part})

    def fail(self, code: int, text: str) -> None:
        self._print(text.encode(), code)

    def no_driver(self) -> None:
        self.fail(
            9,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.\n\n",
        )

    def mismatch(self) -> None:
        self.fail(18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.105\n")

    def no_permission(self) -> None:
        self.fail(4, "Failed to initialize NVML: Insufficient Permissions\n")

    def no_devices(self) -> None:
        self.fail(6, "No devices were found\n")

    def heal(self) -> None:
        """Ordinary answers again, and nobody lost; what was set stays."""
        self._update(mode=_ANSWER, lost={})

    # Inside

    def _own(self) -> list[GpuState]:
        if self.gpus is None:
            raise ValueError("this fake was made of a whole document: change it with set() and vary()")
        return self.gpus

    def _xml(self, xml: bytes | None) -> None:
        if xml is None:
            xml = document(self._own(), self._driver or "535.129.03", self._schema)
            profiles = {f"{g.uuid}/{m.gpu_instance}": m.profile for g in self._own() for m in g.mig if m.profile}
            self._state["profiles"] = profiles
        self._update(xml=xml.decode())
        if self._driver is not None:
            self.set("driver_version", self._driver, gpu=None)

    def _print(self, data: bytes, code: int) -> None:
        self._update(mode={"kind": "print", "bytes": base64.b64encode(data).decode(), "code": code})

    def _update(self, **changes: Any) -> None:
        self._state.update(changes)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._state))
        fresh.replace(self._file)
