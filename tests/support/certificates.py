"""Certificates of the test's own, made with openssl: a certificate authority, servers, clients."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.prerequisites import missing


class Authority:
    """`Authority(folder).issue("server")` makes server.crt and server.key in the folder; the authority's is ca.crt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if shutil.which("openssl") is None:
            missing("openssl", "openssl is not installed: no certificates can be made")
        _openssl(
            folder, "req", "-x509", "-subj", "/CN=test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt",
            *_KEY, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, common_name: str = "localhost") -> None:
        """For servers at localhost and 127.0.0.1, and for clients."""
        _openssl(
            self.folder, "req", "-x509", "-subj", f"/CN={common_name}", "-days", "2",
            "-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.crt", *_KEY,
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
        )  # fmt: skip


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
