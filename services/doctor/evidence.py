"""What is collected: commands and files, each with the reason it is asked for. Data; `collect` does the work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Output:
    """What a command or file gave."""

    text: str = ""
    code: int | None = None
    """Exit code; None for a file, and where the command did not run to its end."""
    problem: str | None = None
    """Why there is nothing: `not installed`, `not there`, `permission denied`, `no answer within 20 s`."""

    @property
    def ok(self) -> bool:
        return self.problem is None and self.code in (None, 0)


Evidence = dict[str, Output]
"""Name of a probe -> what it gave."""


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    """File in the bundle is `<name>.txt`."""
    argv: tuple[str, ...]
    why: str
    package: str | None = None
    """Debian and Ubuntu package that brings the program."""
    each: str | None = None
    """Run once for each path that matches, in place of `{}`."""


@dataclass(frozen=True, slots=True)
class File:
    name: str
    path: str
    """May hold `*`: all that match are put one after the other."""
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """`ls -l` of what matches: names, owners and modes say enough."""

    name: str
    path: str
    why: str


Probe = Command | File | Listing

_UNITS: Final = ("gpu-telemetry-exporter.service", "gpu-telemetry.service", "gpu-telemetry-flush.timer")

PROBES: Final[tuple[Probe, ...]] = (
    # The machine.
    Command("uname", ("uname", "-a"), "kernel"),
    File("os-release", "/etc/os-release", "distribution"),
    File("cmdline", "/proc/cmdline", "kernel command line: pci=, nouveau and iommu options"),
    Command("uptime", ("uptime",), "a reboot explains a lot"),
    Command("timedatectl", ("timedatectl",), "samples of a host with a wrong clock are refused"),
    Command("free", ("free", "-m"), "memory"),
    Command("dmi", ("dmidecode", "-t", "system,bios"), "board and BIOS version", "dmidecode"),
    # The bus.
    Command("lspci", ("lspci", "-nn"), "is the GPU there", "pciutils"),
    Command("lspci-tree", ("lspci", "-tv"), "behind which bridge", "pciutils"),
    Command("lspci-nvidia", ("lspci", "-vvv", "-d", "10de:"), "link width and speed, BARs, driver in use", "pciutils"),
    Command("thunderbolt", ("boltctl", "list"), "eGPU docks on Thunderbolt need authorisation", "bolt"),
    # The kernel.
    Command("lsmod", ("lsmod",), "nvidia, or nouveau in its way", "kmod"),
    Command("modinfo", ("modinfo", "nvidia"), "version of the module on disk", "kmod"),
    Command("dkms", ("dkms", "status"), "was the module built for this kernel", "dkms"),
    Command("secure-boot", ("mokutil", "--sb-state"), "an unsigned module is not loaded", "mokutil"),
    Command("dmesg", ("dmesg",), "NVRM, Xid, PCIe errors, BAR assignment", "util-linux"),
    Command("journal-kernel", ("journalctl", "-k", "-b", "-n", "2000", "--no-pager"), "the same where dmesg is closed"),
    File("modprobe", "/etc/modprobe.d/*.conf", "blacklists"),
    Listing("device-nodes", "/dev/nvidia*", "made, and readable by this user"),
    File("driver-version", "/proc/driver/nvidia/version", "version of the loaded module"),
    File("driver-params", "/proc/driver/nvidia/params", "parameters of the loaded module"),
    # The driver.
    Command("nvidia-smi", ("nvidia-smi",), "the first question"),
    Command("nvidia-smi-list", ("nvidia-smi", "-L"), "GPUs and UUIDs"),
    Command("nvidia-smi-query", ("nvidia-smi", "-q"), "everything the driver tells"),
    Command("nvidia-smi-xml", ("nvidia-smi", "-q", "-x"), "the same for programs"),
    Command("nvidia-smi-topology", ("nvidia-smi", "topo", "-m"), "NVLink and PCIe distances"),
    Command("packages", ("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\\n", "*nvidia*"), "installed"),
    # The box.
    Command("sensors", ("sensors",), "board and CPU temperatures, fans", "lm-sensors"),
    Command("nvme-list", ("nvme", "list"), "disks", "nvme-cli"),
    Command("nvme-smart", ("nvme", "smart-log", "{}"), "wear of the disk", "nvme-cli", "/dev/nvme[0-9]"),
    Command("smart", ("smartctl", "--scan"), "disks that speak SMART", "smartmontools"),
    Command("smart-health", ("smartctl", "-H", "-A", "{}"), "is the disk failing", "smartmontools", "/dev/sd[a-z]"),
    Command("df", ("df", "-P", "-k"), "space for spool, logs and database", "coreutils"),
    Command("lsblk", ("lsblk",), "disks"),
    Command("ports", ("ss", "-ltn"), "who listens: 9400, 9092, 5432, 3000", "iproute2"),
    # Ourselves.
    Command("units", ("systemctl", "--user", "--no-pager", "status", *_UNITS), "are the services running"),
    Command("units-journal", ("journalctl", "--user", "-n", "300", "--no-pager", *(f"-u{u}" for u in _UNITS)),
            "what they said"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether a server answers."""

    name: str
    address: str
    problem: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What our own parts say, next to what the host says."""

    reach: tuple[Reach, ...] = ()
    spool_records: int | None = None
    """None: no spool directory."""
    directories: tuple[str, ...] = ()
    """Where spool and logs lie: their file systems must have room."""
    user: str = ""
    extra: dict[str, str] = field(default_factory=dict)
