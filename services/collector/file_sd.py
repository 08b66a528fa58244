"""Target files in Prometheus' `file_sd` format, read again when they change.

Looked at every few seconds rather than watched: notifications miss changes on network file systems and in mounted
ConfigMaps, where the file is replaced behind a symbolic link; Prometheus itself re-reads for that reason.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from services.collector.targets import Target, TargetError, parse_groups
from services.ops.regular_file import read_regular

log = logging.getLogger("collector.targets")

_Stamp = tuple[int, ...]
"""(device, inode, mtime in ns, ctime in ns, size)."""
_MAX_BYTES = 64 * 1024 * 1024
"""Some hundred thousand targets."""
_REASON_MAX = 300
"""Characters: a decoder's message may quote the file."""
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: ten times as fast on thousands of targets


@dataclass(slots=True)
class _File:
    stamp: _Stamp | None = None
    targets: list[Target] = field(default_factory=list)
    """The last good list."""
    problem: str | None = None


class TargetFiles:
    """All files that match the patterns."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._files: dict[str, _File] = {}
        self._unmatched: set[str] = set()

    @property
    def problems(self) -> dict[str, str]:
        """File -> why its last good list is still in use. Safe in another thread than `refresh`."""
        return {path: file.problem for path, file in list(self._files.items()) if file.problem}

    def refresh(self) -> bool:
        """Look at all files; True when a list may have changed. A deleted file takes its targets with it."""
        paths = [path for pattern in self._patterns for path in self._matches(pattern)]
        gone = self._files.keys() - set(paths)
        for path in gone:
            del self._files[path]
        changed = [self._refresh_file(path) for path in dict.fromkeys(paths)]
        return bool(gone) or any(changed)

    def targets(self) -> list[Target]:
        """In the order of patterns and names."""
        return [target for file in list(self._files.values()) for target in file.targets]

    def _matches(self, pattern: str) -> list[str]:
        paths = sorted(glob.glob(pattern))
        if not paths and pattern not in self._unmatched:
            log.warning("no target file matches", extra={"pattern": pattern})
        (self._unmatched.discard if paths else self._unmatched.add)(pattern)
        return paths

    def _refresh_file(self, path: str) -> bool:
        file = self._files.setdefault(path, _File())
        try:
            stat = os.stat(path)
            stamp = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
            if stamp == file.stamp:
                return False
            targets = read_file(Path(path))
        except (OSError, TargetError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self._note(path, file, reason[:_REASON_MAX])
            return False
        self._note(path, file, None)
        file.stamp, file.targets = stamp, targets
        return True

    def _note(self, path: str, file: _File, problem: str | None) -> None:
        """Log once per change of state."""
        if problem and problem != file.problem:
            log.error(
                "target file not usable, keeping the last good list",
                extra={"file": path, "reason": problem, "targets": len(file.targets)},
            )
        elif file.problem and not problem:
            log.info("target file is good again", extra={"file": path})
        file.problem = problem


def read_file(path: Path) -> list[Target]:
    """Raises OSError or TargetError. The suffix says the format, as for Prometheus: .json, .yml or .yaml."""
    text = read_regular(path, _MAX_BYTES)
    try:
        if path.suffix == ".json":
            return parse_groups(json.loads(text))
        if path.suffix in (".yml", ".yaml"):
            return parse_groups(yaml.load(text, Loader=_YAML) or [])  # noqa: S506  # a safe loader either way
    except TargetError:
        raise
    except Exception as error:  # noqa: BLE001  # the decoders raise anything (RecursionError, KeyError, OverflowError)
        raise TargetError(" ".join(str(error).split())[:_REASON_MAX] or type(error).__name__) from None
    raise TargetError(f"the name must end in .json, .yml or .yaml, not {path.suffix!r}")
