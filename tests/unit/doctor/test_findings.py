"""Findings: for each trouble the output real programs give, and for a healthy host none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.doctor import find_driver, find_health, find_host
from services.doctor.evidence import PROBES, Command, Evidence, Facts, File, Output, Reach
from services.doctor.findings import Finding, Severity
from services.doctor.run import diagnose

LSPCI = """00:00.0 Host bridge [0600]: Advanced Micro Devices, Inc. [AMD] Device [1022:14e8]
01:00.0 3D controller [0302]: NVIDIA Corporation GP102GL [Tesla P40] [10de:1b38] (rev a1)
c1:00.0 VGA compatible controller [0300]: Advanced Micro Devices, Inc. [AMD/ATI] Phoenix1 [1002:15bf] (rev c8)
"""
LSPCI_NVIDIA = """01:00.0 3D controller: NVIDIA Corporation GP102GL [Tesla P40] (rev a1)
\tLnkCap:\tPort #0, Speed 8GT/s, Width x16, ASPM L0s L1, Exit Latency L0s <1us, L1 <4us
\tLnkSta:\tSpeed 2.5GT/s (downgraded), Width x16
\tKernel driver in use: nvidia
"""
LSMOD = """Module                  Size  Used by
nvidia_uvm           2076672  0
nvidia              54312960  1 nvidia_uvm
"""
SMI_Q = """
==============NVSMI LOG==============

Timestamp                                 : Sun Nov 22 06:00:00 2026
Driver Version                            : 580.95.05
Attached GPUs                             : 1
GPU 00000000:01:00.0
    Product Name                          : Tesla P40
    Persistence Mode                      : Enabled
    Retired Pages
        Single Bit ECC                    : 0
        Double Bit ECC                    : 0
        Pending Page Blacklist            : No
    Clocks Event Reasons
        Idle                              : Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        SW Thermal Slowdown               : Not Active
    GPU Power Readings
        Power Draw                        : 9.62 W
        Current Power Limit               : 250.00 W
        Default Power Limit               : 250.00 W
"""
NVME = "critical_warning : 0\npercentage_used : 3%\n"


def healthy(**changes: Output | str) -> Evidence:
    """A P40 host with nothing wrong; `changes` by probe name with `_` for `-`."""
    texts = {
        "lspci": LSPCI,
        "lspci-nvidia": LSPCI_NVIDIA,
        "lsmod": LSMOD,
        "modinfo": "version:        580.95.05\n",
        "driver-version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Mon Sep  1 00:00:00 UTC 2025\n",
        "secure-boot": "SecureBoot disabled\n",
        "dmesg": "[    0.000000] Linux version 6.8.0\n",
        "nvidia-smi": "| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0 |\n",
        "nvidia-smi-query": SMI_Q,
        "device-nodes": "crw-rw-rw- 0:0 2026-11-22 06:00 /dev/nvidia0 readable\n",
        "timedatectl": "System clock synchronized: yes\n",
        "df": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/nvme0n1p2 1000000 500000 500000 50% /\n",
        "nvme-smart": NVME,
    }
    evidence = {probe.name: Output(texts.get(probe.name, "")) for probe in PROBES}
    for name, change in changes.items():
        evidence[name.replace("_", "-")] = Output(change) if isinstance(change, str) else change
    return evidence


def found(evidence: Evidence, facts: Facts | None = None) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(evidence, facts or Facts())}


def test_a_healthy_host_has_no_findings() -> None:
    assert found(healthy()) == {}


MISSING = Output(problem="not installed")
CASES = [
    ("no_gpu", {"lspci": LSPCI.replace("10de", "1234")}, Severity.CRITICAL, "Above 4G"),
    ("lspci", {"lspci": MISSING}, Severity.INFO, "pciutils"),
    ("nouveau", {"lsmod": LSMOD + "nouveau 2437120 4\n"}, Severity.CRITICAL, "blacklist nouveau"),
    ("module_not_loaded", {"lsmod": "Module Size Used by\n"}, Severity.CRITICAL, "modprobe nvidia"),
    (
        "no_module",
        {"lsmod": "Module Size Used by\n", "modinfo": Output("modinfo: ERROR: Module nvidia not found.", 1)},
        Severity.CRITICAL,
        "linux-headers",
    ),
    (
        "secure_boot",
        {"lsmod": "Module Size Used by\n", "secure_boot": "SecureBoot enabled\n"},
        Severity.CRITICAL,
        "mokutil",
    ),
    (
        "driver_mismatch",
        {"nvidia_smi": Output("Failed to initialize NVML: Driver/library version mismatch\n", 18)},
        Severity.CRITICAL,
        "reboot",
    ),
    ("reboot_pending", {"modinfo": "version:        590.48.01\n"}, Severity.WARNING, "reboot"),
    ("no_nvidia_smi", {"nvidia_smi": MISSING}, Severity.CRITICAL, "apt install"),
    ("nvidia_smi_hangs", {"nvidia_smi": Output(problem="no answer within 20 s")}, Severity.CRITICAL, "power"),
    (
        "nvidia_smi_fails",
        {"nvidia_smi": Output("NVIDIA-SMI has failed because it couldn't communicate", 9)},
        Severity.CRITICAL,
        "dmesg",
    ),
    ("nvidia_smi_garbage", {"nvidia_smi": "\x1b[2J\x00 nonsense"}, Severity.CRITICAL, "type -a nvidia-smi"),
    ("no_device_nodes", {"device_nodes": Output(problem="not there")}, Severity.WARNING, "nvidia-modprobe"),
    (
        "device_permission",
        {"device_nodes": "crw-rw---- 0:44 x /dev/nvidia0 CLOSED TO THIS USER\n"},
        Severity.WARNING,
        "group",
    ),
    (
        "link_width",
        {"lspci_nvidia": LSPCI_NVIDIA.replace("(downgraded), Width x16", ", Width x4 (downgraded)")},
        Severity.WARNING,
        "OCuLink",
    ),
    (
        "kernel_log",
        {
            "dmesg": Output("dmesg: read kernel buffer failed: Operation not permitted", 1),
            "journal_kernel": Output(problem="not installed"),
        },
        Severity.INFO,
        "sudo",
    ),
    (
        "xid_79",
        {"dmesg": "[9.1] NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off the bus.\n"},
        Severity.CRITICAL,
        "",
    ),
    (
        "xid_31",
        {"dmesg": "[9.1] NVRM: Xid (PCI:0000:01:00): 31, pid=1234, name=python3, Ch 00000008\n"},
        Severity.WARNING,
        "",
    ),
    (
        "off_the_bus",
        {"dmesg": "[9.1] NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.\n"},
        Severity.CRITICAL,
        "power",
    ),
    (
        "bar_space",
        {"dmesg": "[1.0] pci 0000:01:00.0: BAR 1: no space for [mem size 0x800000000 64bit pref]\n"},
        Severity.CRITICAL,
        "Above 4G",
    ),
    (
        "pcie_errors",
        {"dmesg": "[1.0] pcieport 0000:00:01.1: PCIe Bus Error: severity=Corrected, type=Physical Layer\n"},
        Severity.WARNING,
        "cable",
    ),
    ("gpu_lost", {"nvidia_smi_query": SMI_Q.replace("9.62 W", "GPU is lost")}, Severity.CRITICAL, "Xid 79"),
    ("persistence", {"nvidia_smi_query": SMI_Q.replace(": Enabled", ": Disabled")}, Severity.INFO, "-pm 1"),
    (
        "retired_pending",
        {"nvidia_smi_query": SMI_Q.replace("Blacklist            : No", "Blacklist            : Yes")},
        Severity.WARNING,
        "reboot",
    ),
    (
        "thermal_throttle",
        {"nvidia_smi_query": re.sub("(SW Thermal Slowdown +): Not", r"\1:", SMI_Q)},
        Severity.WARNING,
        "air",
    ),
    (
        "power_cap",
        {"nvidia_smi_query": re.sub("(Current Power Limit +): 250", r"\1: 180", SMI_Q)},
        Severity.INFO,
        "-pl",
    ),
    ("disk_full", {"df": "Filesystem x\n/dev/sda1 1000000 990000 10000 99% /var\n"}, Severity.WARNING, "make room"),
    ("disk_worn", {"nvme_smart": NVME.replace("3%", "97%")}, Severity.WARNING, "replacement"),
    (
        "disk_warning",
        {"nvme_smart": NVME.replace("critical_warning : 0", "critical_warning : 0x4")},
        Severity.CRITICAL,
        "back up",
    ),
    (
        "disk_failing",
        {"smart_health": "SMART overall-health self-assessment test result: FAILED!\n"},
        Severity.CRITICAL,
        "back up",
    ),
    ("clock", {"timedatectl": "System clock synchronized: no\n"}, Severity.WARNING, "set-ntp"),
    ("tools", {"sensors": MISSING}, Severity.INFO, "lm-sensors"),
]


@pytest.mark.parametrize(("check", "changes", "severity", "advice"), CASES, ids=[case[0] for case in CASES])
def test_finds(check: str, changes: dict[str, Output | str], severity: Severity, advice: str) -> None:
    finding = found(healthy(**changes))[check]
    assert finding.severity is severity
    assert advice in finding.do
    assert finding.what


def test_row_remap_failure_of_an_ampere_card() -> None:
    rows = ("    Remapped Rows", "        Remapping Failure Occurred : Yes", "        Pending : Yes")
    text = SMI_Q + "\n".join(rows)
    assert {"row_remap_failure", "row_remap_pending"} <= found(healthy(nvidia_smi_query=text)).keys()


def test_the_width_of_an_idle_link_counts_and_its_speed_does_not() -> None:
    assert "link_width" not in found(healthy(lspci_nvidia=LSPCI_NVIDIA))


def test_a_closed_kernel_log_is_read_from_the_journal() -> None:
    line = "Nov 22 06:00:00 box kernel: NVRM: Xid (PCI:0000:01:00): 48, pid=7, name=a, DBE\n"
    evidence = healthy(dmesg=Output("Operation not permitted", 1), journal_kernel=line * 3)
    assert "3 times" in found(evidence)["xid_48"].what


def test_servers_and_spool() -> None:
    reach = (Reach("Kafka", "k:9092", problem="refused"), Reach("TimescaleDB", "h:5432/db", detail="TimescaleDB 2.23"))
    findings = found(healthy(), Facts(reach=reach, spool_records=7))
    assert findings["kafka_unreachable"].severity is Severity.CRITICAL
    assert "timescaledb_unreachable" not in findings
    assert "7 samples" in findings["spool"].what


def test_worst_comes_first() -> None:
    evidence = healthy(lsmod=LSMOD + "nouveau 1 0\n", timedatectl="System clock synchronized: no")
    order = [f.severity for f in diagnose(evidence, Facts())]
    assert order == sorted(order, key=list(Severity).index)


def test_an_empty_host_gives_findings_and_no_error() -> None:
    """Nothing installed, nothing readable: a container."""
    evidence = {probe.name: MISSING if isinstance(probe, Command) else Output(problem="not there") for probe in PROBES}
    assert {"lspci", "no_nvidia_smi", "tools", "kernel_log"} <= found(evidence).keys()


def test_garbage_in_every_probe_gives_no_error() -> None:
    garbage = "\x00\xff: : ::\n  GPU\n::::\n" * 50
    diagnose({probe.name: Output(garbage, 3) for probe in PROBES}, Facts())


def test_every_check_is_asked() -> None:
    """A check that is written and not listed would never run."""
    for module in (find_driver, find_health, find_host):
        listed = {check.__name__ for check in module.CHECKS}
        written = set(re.findall(r"^def (\w+)\(.*\) -> Found:", Path(str(module.__file__)).read_text(), re.MULTILINE))
        assert {name for name in written if not name.startswith("_")} == listed


def test_probe_names_are_unique() -> None:
    names = [probe.name for probe in PROBES]
    assert len(names) == len(set(names))
    assert all(probe.why for probe in PROBES)
    assert any(isinstance(probe, File) for probe in PROBES)
