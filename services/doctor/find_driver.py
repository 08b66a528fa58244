"""Is the GPU on the bus, and does the driver have it: in the order in which one would look."""

from __future__ import annotations

import re

from services.doctor.evidence import Evidence
from services.doctor.findings import Found, critical, first_line, info, lines_with, of, warning


def gpu_on_the_bus(evidence: Evidence) -> Found:
    lspci = of(evidence, "lspci")
    if not lspci.ok:
        yield info("lspci", f"the PCI bus could not be listed: {lspci.problem or lspci.text.strip()[:80]}",
                   "apt install pciutils")  # fmt: skip
        return
    if not nvidia_functions(evidence):
        yield critical(
            "no_gpu",
            "no NVIDIA GPU on the PCI bus",
            "Power off; switch on the dock and its power supply first, then the computer. Check the data cable and "
            "both 8-pin power plugs of the card. In the BIOS: PCIe slot or OCuLink on, Above 4G Decoding on. "
            "A Thunderbolt dock must be authorised: boltctl list",
        )


def nvidia_functions(evidence: Evidence) -> list[str]:
    """Lines of lspci of NVIDIA display (03xx) functions."""
    lines = of(evidence, "lspci").text.splitlines()
    return [
        line for line in lines if re.search(r"\[10de:[0-9a-f]{4}\]", line) and re.search(r"\[03[0-9a-f]{2}\]", line)
    ]


def nouveau(evidence: Evidence) -> Found:
    loaded = [line for line in of(evidence, "lsmod").text.splitlines() if line.startswith("nouveau ")]
    if loaded:
        yield critical(
            "nouveau",
            "the nouveau driver holds the GPU: NVIDIA's cannot load beside it",
            "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | "
            "sudo tee /etc/modprobe.d/blacklist-nouveau.conf; sudo update-initramfs -u; reboot",
            loaded[0],
        )


def module(evidence: Evidence) -> Found:
    lsmod = of(evidence, "lsmod")
    if not lsmod.ok or not nvidia_functions(evidence):
        return
    if any(line.startswith("nvidia ") for line in lsmod.text.splitlines()):
        return
    if "enabled" in of(evidence, "secure-boot").text.lower():
        yield critical(
            "secure_boot",
            "Secure Boot is on and the nvidia module is not loaded: probably not signed by a key this machine knows",
            "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, reboot and enrol the key; or switch Secure Boot "
            "off in the BIOS",
            of(evidence, "secure-boot").text.strip(),
        )
        return
    modinfo = of(evidence, "modinfo")
    if modinfo.ok:
        yield critical("module_not_loaded", "the nvidia module is installed and not loaded",
                       "sudo modprobe nvidia; then look at its message: sudo dmesg | grep -i nvrm")  # fmt: skip
    else:
        yield critical(
            "no_module",
            "there is no nvidia module for this kernel",
            "sudo apt install linux-headers-$(uname -r) and the driver (ubuntu-drivers list); dkms status shows "
            "whether it was built. A Tesla P40 (Pascal) needs a driver of 580 or older, not the open modules",
            first_line(modinfo.text or modinfo.problem or ""),
        )


def versions(evidence: Evidence) -> Found:
    smi = of(evidence, "nvidia-smi").text
    if "mismatch" in smi.lower():
        yield critical(
            "driver_mismatch",
            "the driver's library and the loaded kernel module are of different versions: an update came in between",
            "reboot (or stop everything that uses the GPU, then: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset "
            "nvidia; sudo modprobe nvidia)",
            first_line(smi),
        )
        return
    loaded = re.search(r"Module\s+(?:for \S+\s+)?(\d+\.\d+(?:\.\d+)?)", of(evidence, "driver-version").text)
    on_disk = re.search(r"^version:\s*(\S+)", of(evidence, "modinfo").text, re.MULTILINE)
    if loaded and on_disk and loaded[1] != on_disk[1]:
        yield warning("reboot_pending", f"module {loaded[1]} is loaded, {on_disk[1]} is on disk: an update waits",
                      "reboot at a time that suits")  # fmt: skip


def nvidia_smi(evidence: Evidence) -> Found:
    smi = of(evidence, "nvidia-smi")
    if "mismatch" in smi.text.lower():
        return
    if smi.ok:
        yield from _answer(smi.text)
        return
    if smi.problem == "not installed":
        yield critical(
            "no_nvidia_smi",
            "nvidia-smi is not installed",
            "the driver's utilities are a package of their own, for example: sudo apt install nvidia-utils-580-server",
        )
    elif smi.problem is not None:
        yield critical(
            "nvidia_smi_hangs",
            f"nvidia-smi: {smi.problem}",
            "the driver hangs: look for Xid in dmesg, then power the host and the dock off and on",
        )
    else:
        yield critical(
            "nvidia_smi_fails",
            f"nvidia-smi ends with code {smi.code}",
            "sudo dmesg | grep -iE 'nvrm|nvidia' has the reason",
            first_line(smi.text),
        )


def _answer(text: str) -> Found:
    """Its table has the driver's version in the frame; anything else with exit code 0 is not nvidia-smi's."""
    if not re.search(r"Driver Version\s*:\s*\d+\.\d+", text):
        yield critical(
            "nvidia_smi_garbage",
            "nvidia-smi answers something that is not its table",
            "is it the driver's own program? type -a nvidia-smi; reinstall the driver's utilities",
            repr(first_line(text)[:80]),
        )


def device_nodes(evidence: Evidence) -> Found:
    nodes = of(evidence, "device-nodes")
    if any(line.startswith("nvidia ") for line in of(evidence, "lsmod").text.splitlines()) and not nodes.ok:
        yield warning(
            "no_device_nodes", "the module is loaded, /dev/nvidia* is not there", "sudo nvidia-modprobe -c 0 -u"
        )
    for line in lines_with(nodes, "CLOSED TO THIS USER"):
        yield warning("device_permission", "a device node is closed to this user",
                      "add the user to the group that owns it (often video or render), log in again", line)  # fmt: skip
        return


def link(evidence: Evidence) -> Found:
    """Width below what the card can do. Speed is not looked at: an idle GPU lowers it to save power."""
    text = of(evidence, "lspci-nvidia").text
    for block in re.split(r"\n(?=\S)", text):
        capable = re.search(r"LnkCap:.*?Width x(\d+)", block)
        actual = re.search(r"LnkSta:.*?Width x(\d+)", block)
        if not capable or not actual or not re.search(r"VGA|3D|Display", block.splitlines()[0]):
            continue
        if 0 < int(actual[1]) < int(capable[1]):
            yield warning(
                "link_width",
                f"the PCIe link of {block.split()[0]} runs at x{actual[1]} of x{capable[1]}",
                "x4 is all an OCuLink or Thunderbolt dock has. In a slot: reseat card and riser, clean the contacts, "
                "look whether the slot shares its lanes",
                actual[0].strip(),
            )
    if "access denied" in text.lower():
        yield info("lspci_access", "link widths and BARs are shown to root only", "sudo gpumon doctor")


CHECKS = (gpu_on_the_bus, nouveau, module, versions, nvidia_smi, device_nodes, link)
