"""The program behind tests/support/fake_smi.py: answers as nvidia-smi does, from a state file. Standard library only,
because it runs with `-I -S` to start fast. Called as: fake_smi_program.py STATE_FILE [nvidia-smi's arguments].
"""

import base64
import copy
import datetime as dt
import json
import os
import signal
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
}
COMPUTE_CAPABILITY = {"P40": "6.1", "T4": "7.5", "A100": "8.0", "RTX 30": "8.6", "H100": "9.0", "H200": "9.0"}
# --query-gpu field -> unit in the header, places in the XML (the first that is there)
FIELDS: dict[str, tuple[str, ...]] = {
    "name": ("", "product_name"),
    "serial": ("", "serial"),
    "uuid": ("", "uuid"),
    "pci.bus_id": ("", "@id"),
    "vbios_version": ("", "vbios_version"),
    "persistence_mode": ("", "persistence_mode"),
    "compute_mode": ("", "compute_mode"),
    "display_active": ("", "display_active"),
    "display_mode": ("", "display_mode"),
    "addressing_mode": ("", "addressing_mode"),
    "inforom.img": ("", "inforom_version/img_version"),
    "inforom.ecc": ("", "inforom_version/ecc_object"),
    "mig.mode.current": ("", "mig_mode/current_mig"),
    "mig.mode.pending": ("", "mig_mode/pending_mig"),
    "pcie.link.gen.current": ("", "pci/pci_gpu_link_info/pcie_gen/current_link_gen"),
    "pcie.link.gen.max": ("", "pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
    "pcie.link.width.current": ("", "pci/pci_gpu_link_info/link_widths/current_link_width"),
    "pcie.link.width.max": ("", "pci/pci_gpu_link_info/link_widths/max_link_width"),
    "fan.speed": ("%", "fan_speed"),
    "pstate": ("", "performance_state"),
    "memory.total": ("MiB", "fb_memory_usage/total"),
    "memory.reserved": ("MiB", "fb_memory_usage/reserved"),
    "memory.used": ("MiB", "fb_memory_usage/used"),
    "memory.free": ("MiB", "fb_memory_usage/free"),
    "utilization.gpu": ("%", "utilization/gpu_util"),
    "utilization.memory": ("%", "utilization/memory_util"),
    "utilization.encoder": ("%", "utilization/encoder_util"),
    "utilization.decoder": ("%", "utilization/decoder_util"),
    "ecc.mode.current": ("", "ecc_mode/current_ecc"),
    "ecc.mode.pending": ("", "ecc_mode/pending_ecc"),
    "retired_pages.single_bit_ecc.count": ("", "retired_pages/multiple_single_bit_retirement/retired_count"),
    "retired_pages.double_bit.count": ("", "retired_pages/double_bit_retirement/retired_count"),
    "retired_pages.pending": ("", "retired_pages/pending_retirement"),
    "remapped_rows.correctable": ("", "remapped_rows/remapped_row_corr"),
    "remapped_rows.uncorrectable": ("", "remapped_rows/remapped_row_unc"),
    "remapped_rows.pending": ("", "remapped_rows/remapped_row_pending"),
    "remapped_rows.failure": ("", "remapped_rows/remapped_row_failure"),
    "temperature.gpu": ("", "temperature/gpu_temp"),
    "temperature.memory": ("", "temperature/memory_temp"),
    "temperature.gpu.tlimit": ("", "temperature/gpu_temp_tlimit"),
    "power.draw": (
        "W",
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/power_draw",
        "power_readings/power_draw",
    ),
    "power.draw.average": ("W", "gpu_power_readings/average_power_draw"),
    "power.draw.instant": ("W", "gpu_power_readings/instant_power_draw", "gpu_power_readings/power_draw"),
    "power.limit": ("W", "gpu_power_readings/requested_power_limit", "power_readings/power_limit"),
    "enforced.power.limit": ("W", "gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit"),
    "power.default_limit": ("W", "gpu_power_readings/default_power_limit", "power_readings/default_power_limit"),
    "power.min_limit": ("W", "gpu_power_readings/min_power_limit", "power_readings/min_power_limit"),
    "power.max_limit": ("W", "gpu_power_readings/max_power_limit", "power_readings/max_power_limit"),
    "clocks.current.graphics": ("MHz", "clocks/graphics_clock"),
    "clocks.current.sm": ("MHz", "clocks/sm_clock"),
    "clocks.current.memory": ("MHz", "clocks/mem_clock"),
    "clocks.current.video": ("MHz", "clocks/video_clock"),
    "clocks.max.graphics": ("MHz", "max_clocks/graphics_clock"),
    "clocks.max.sm": ("MHz", "max_clocks/sm_clock"),
    "clocks.max.memory": ("MHz", "max_clocks/mem_clock"),
}  # fmt: skip
UNITS = {field: known[0] for field, known in FIELDS.items()}
ALIASES = {
    "gpu_name": "name",
    "gpu_serial": "serial",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "inforom.image": "inforom.img",
    "clocks.gr": "clocks.current.graphics",
    "clocks.sm": "clocks.current.sm",
    "clocks.mem": "clocks.current.memory",
    "clocks.video": "clocks.current.video",
    "clocks.max.gr": "clocks.max.graphics",
    "clocks.max.mem": "clocks.max.memory",
    "gpu.power.draw.average": "power.draw.average",
    "gpu.power.draw.instant": "power.draw.instant",
    "gpu.power.requested_limit": "power.limit",
    "gpu.power.current_limit": "enforced.power.limit",
    "pcie.link.gen.gpucurrent": "pcie.link.gen.current",
    "pcie.link.gen.gpumax": "pcie.link.gen.max",
    "retired_pages.sbe": "retired_pages.single_bit_ecc.count",
    "retired_pages.dbe": "retired_pages.double_bit.count",
}
SECTIONS = {
    "MEMORY": ("fb_memory_usage", "bar1_memory_usage"),
    "UTILIZATION": ("utilization",),
    "ECC": ("ecc_mode", "ecc_errors"),
    "TEMPERATURE": ("temperature",),
    "POWER": ("gpu_power_readings", "power_readings", "module_power_readings"),
    "CLOCK": ("clocks", "applications_clocks", "max_clocks"),
    "COMPUTE": ("compute_mode",),
    "PIDS": ("processes",),
    "PERFORMANCE": ("performance_state", "clocks_event_reasons", "clocks_throttle_reasons"),
    "SUPPORTED_CLOCKS": ("supported_clocks",),
    "PAGE_RETIREMENT": ("retired_pages",),
    "ROW_REMAPPER": ("remapped_rows",),
}
LABELS = {
    "uuid": "GPU UUID",
    "serial": "Serial Number",
    "vbios_version": "VBIOS Version",
    "pci": "PCI",
    "pci_bus_id": "Bus Id",
    "pci_gpu_link_info": "GPU Link Info",
    "pcie_gen": "PCIe Generation",
    "link_widths": "Link Width",
    "max_link_gen": "Max",
    "current_link_gen": "Current",
    "max_link_width": "Max",
    "current_link_width": "Current",
    "replay_counter": "Replays Since Reset",
    "fb_memory_usage": "FB Memory Usage",
    "bar1_memory_usage": "BAR1 Memory Usage",
    "gpu_util": "GPU",
    "memory_util": "Memory",
    "encoder_util": "Encoder",
    "decoder_util": "Decoder",
    "ecc_mode": "ECC Mode",
    "current_ecc": "Current",
    "pending_ecc": "Pending",
    "ecc_errors": "ECC Errors",
    "gpu_temp": "GPU Current Temp",
    "gpu_temp_tlimit": "GPU T.Limit Temp",
    "gpu_temp_max_threshold": "GPU Shutdown Temp",
    "gpu_temp_slow_threshold": "GPU Slowdown Temp",
    "gpu_temp_max_gpu_threshold": "GPU Max Operating Temp",
    "memory_temp": "Memory Current Temp",
    "gpu_power_readings": "GPU Power Readings",
    "graphics_clock": "Graphics",
    "sm_clock": "SM",
    "mem_clock": "Memory",
    "video_clock": "Video",
    "mig_mode": "MIG Mode",
    "current_mig": "Current",
    "pending_mig": "Pending",
    "clocks_event_reasons": "Clocks Event Reasons",
}


def now() -> dt.datetime:
    return dt.datetime.now()  # noqa: DTZ005 -- local time, as nvidia-smi prints it


class Usage(Exception):  # noqa: N818 -- ends the program as nvidia-smi does: text and exit code
    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.text, self.code = text, code


class Request:
    """The arguments, as far as this fake knows them."""

    def __init__(self, arguments: list[str]) -> None:
        self.query = self.xml = self.list = self.version = self.help = False
        self.persistence = ""
        self.fields: list[str] = []
        self.apps: list[str] = []
        self.sections: list[str] = []
        self.format = ["csv"]
        self.ids: list[str] | None = None
        self.loop: float | None = None
        self.file: str | None = None
        rest = list(arguments)
        while rest:
            self.take(rest.pop(0), rest)

    def take(self, word: str, rest: list[str]) -> None:  # noqa: PLR0912 -- one row per option of nvidia-smi
        name, equals, value = word.partition("=")

        def argument() -> str:
            if equals:
                return value
            if not rest:
                raise Usage(f"Option {name} requires an argument")
            return rest.pop(0)

        match name:
            case "-q" | "--query":
                self.query = True
            case "-x" | "--xml-format":
                self.xml = True
            case "-L" | "--list-gpus":
                self.list = True
            case "-h" | "--help":
                self.help = True
            case "--version":
                self.version = True
            case "-i" | "--id":
                self.ids = argument().split(",")
            case "-l" | "--loop":
                self.loop = float(value if equals else rest.pop(0) if rest and rest[0].isdigit() else 5)
            case "-lms" | "--loop-ms":
                self.loop = float(argument()) / 1000
            case "-f" | "--filename":
                self.file = argument()
            case "-d" | "--display":
                self.sections = argument().split(",")
            case "-pm" | "--persistence-mode":
                self.persistence = argument()
            case "--query-gpu":
                self.fields = argument().split(",")
            case "--query-compute-apps":
                self.apps = argument().split(",")
            case "--format":
                self.format = argument().split(",")
            case _:
                raise Usage(f'Invalid combination of input arguments. Please run "nvidia-smi -h" for help.\n ({word})')


class Host:
    """The state at this call: the document with its edits, and who is lost."""

    def __init__(self, state: dict[str, Any], call: int) -> None:
        self.state = state
        self.text: str = state["xml"]
        self.root = ET.fromstring(self.text)
        self.gpus = self.root.findall("gpu")
        for edit in state["edits"]:
            values = edit["values"]
            self.edit(edit["gpu"], edit["path"], values[min(max(call - edit["since"], 0), len(values) - 1)])
        self.lost = {address(self.gpus[int(at)]): how for at, how in state["lost"].items()}
        for gpu in self.gpus:
            if self.lost.get(address(gpu)) == "xml":
                lose(gpu)

    def edit(self, gpu: int | None, path: str, value: str) -> None:
        target = self.root if gpu is None else self.gpus[gpu]
        *parents, leaf = path.split("/")
        for tag in (*parents, leaf):
            found = target.find(tag)
            target = ET.SubElement(target, tag) if found is None else found
        target[:] = []
        target.text = value

    def chosen(self, ids: list[str] | None) -> list[Element]:
        """GPUs asked for by -i: index, PCI address (any length of domain) or UUID."""
        if ids is None:
            return list(self.gpus)
        found = [gpu for index, gpu in enumerate(self.gpus) if any(names(gpu, index, word) for word in ids)]
        if not found:
            raise Usage("No devices were found", 6)
        return found

    def header(self, tag: str) -> str:
        return self.root.findtext(tag, "N/A")


def lose(element: Element) -> None:
    """Every cell but the address says so."""
    for child in element:
        if len(child):
            lose(child)
        elif (child.text or "").strip() and child.tag not in ("pci_bus_id", "pci_bus", "pci_device", "pci_domain"):
            child.text = "GPU is lost"


def names(gpu: Element, index: int, word: str) -> bool:
    tail = address(gpu).lower()[-10:]
    return word in (str(index), gpu.findtext("uuid")) or (":" in word and word.lower().endswith(tail))


def address(gpu: Element) -> str:
    return gpu.get("id", "")


def no_handle(gpu: Element) -> str:
    domain, rest = address(gpu).split(":", 1)
    return (
        f"Unable to determine the device handle for GPU{domain[-4:]}:{rest}: GPU is lost.  Reboot the system to recover"
        " this GPU\n"
    )


def main() -> int:
    state_file = Path(sys.argv[1])
    arguments = sys.argv[2:]
    calls = state_file.with_suffix(".calls")
    call = len(calls.read_bytes().splitlines()) if calls.exists() else 0
    with calls.open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    state = json.loads(state_file.read_text())
    mode = state["mode"]
    if mode["kind"] == "hang":
        hang(mode["seconds"])
    elif mode["kind"] == "print":
        sys.stdout.buffer.write(base64.b64decode(mode["bytes"]))
        return int(mode["code"])
    try:
        return respond(Request(arguments), state, call, mode.get("part"))
    except Usage as usage:
        print(usage.text)
        return usage.code


def hang(seconds: float | None) -> None:
    """For good means ten minutes here: a test that forgets it leaves nothing behind for ever."""
    if seconds is not None:
        time.sleep(seconds)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork()  # a child that holds the pipes, as a shell around the program would
    time.sleep(600)
    sys.exit(255)


def respond(request: Request, state: dict[str, Any], call: int, part: float | None) -> int:
    loops = int(os.environ.get("GPUMON_FAKE_SMI_LOOPS", "0"))  # noqa: TID251 -- a program of its own
    out = open(request.file, "w") if request.file else sys.stdout  # noqa: SIM115 -- stdout must stay open
    done = 0
    while True:
        host = Host(state, call + done)
        text, code = answer(request, host, first=done == 0)
        if part is not None:
            text = text[: int(len(text) * part)]
        out.write(text)
        out.flush()
        done += 1
        if request.loop is None or done == loops or code:
            return code
        time.sleep(request.loop)


def answer(request: Request, host: Host, first: bool) -> tuple[str, int]:
    if request.help:
        return "NVIDIA System Management Interface -- fake\n\nnvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...\n", 0
    if request.version:
        driver = host.header("driver_version")
        return (
            f"NVIDIA-SMI version  : {driver}\nNVML version        : {driver[:6]}\nDRIVER version      : {driver}\n",
            0,
        )
    gpus = host.chosen(request.ids)
    if not host.gpus:
        return "No devices were found\n", 6
    silent = [gpu for gpu in gpus if host.lost.get(address(gpu)) == "text"]
    if silent and not request.list:
        return "".join(map(no_handle, silent)), 15
    kept = [gpu for gpu in gpus if gpu not in silent and host.lost.get(address(gpu)) != "omitted"]
    text = view(request, host, kept, first)
    return text + "".join(map(no_handle, silent)), 15 if silent else 0


def view(request: Request, host: Host, gpus: list[Element], first: bool) -> str:
    if request.list:
        return "".join(listed(host, gpu) for gpu in gpus)
    if request.persistence:
        word = "Enabled" if request.persistence in ("1", "ENABLED") else "Disabled"
        return "".join(f"{word} persistence mode for GPU {address(gpu)}.\n" for gpu in gpus) + "All done.\n"
    if request.fields:
        return table_of(request, host, gpus, first)
    if request.apps:
        return apps_of(request, gpus, first)
    if request.query:
        return document(host, gpus) if request.xml else log_text(request, host, gpus)
    return summary(host, gpus)


def document(host: Host, gpus: list[Element]) -> str:
    root = copy.copy(host.root)
    wanted = {id(gpu) for gpu in gpus}
    root[:] = [child for child in host.root if child.tag != "gpu" or id(child) in wanted]
    start = host.text[: host.text.index("<nvidia_smi_log")]
    return start + ET.tostring(root, encoding="unicode") + "\n"


def listed(host: Host, gpu: Element) -> str:
    index = host.gpus.index(gpu)
    text = f"GPU {index}: {gpu.findtext('product_name')} (UUID: {gpu.findtext('uuid')})\n"
    devices = gpu.findall("mig_devices/mig_device")
    for device in devices:
        number, profile = device.findtext("index", "0"), mig_profile(host, gpu, device, devices)
        text += f"  MIG {profile:<13}Device {number:>2}: (UUID: MIG-{index:08x}-0000-5000-8000-{int(number):012x})\n"
    return text


def mig_profile(host: Host, gpu: Element, device: Element, devices: list[Element]) -> str:
    told: str | None = host.state["profiles"].get(f"{gpu.findtext('uuid')}/{device.findtext('gpu_instance_id')}")
    total = int(device.findtext("fb_memory_usage/total", "0").split()[0])
    name = told or {4864: "1g.5gb", 9856: "2g.10gb", 19968: "3g.20gb"}.get(total, f"1g.{round(total / 1024)}gb")
    shared = [d for d in devices if d.findtext("gpu_instance_id") == device.findtext("gpu_instance_id")]
    return f"1c.{name}" if len(shared) > 1 else name


def cell(host: Host, gpu: Element, field: str) -> str:  # noqa: PLR0911 -- one row per field that is no element
    match field:
        case "timestamp":
            return now().strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]
        case "driver_version":
            return host.header("driver_version")
        case "count":
            return str(len(host.gpus))
        case "index":
            return str(host.gpus.index(gpu))
        case "hostname":
            return os.uname().nodename
        case "compute_cap":
            model = gpu.findtext("product_name", "")
            return next((cap for part, cap in COMPUTE_CAPABILITY.items() if part in model), "N/A")
    if field.startswith(("clocks_event_reasons.", "clocks_throttle_reasons.")):
        return reason_cell(gpu, field.partition(".")[2])
    if field.startswith("ecc.errors."):
        return ecc_cell(gpu, field)
    for path in FIELDS[field][1:]:
        text = address(gpu) if path == "@id" else gpu.findtext(path)
        if text is not None and text != "N/A":
            return text.removesuffix("x").removesuffix(" C") if field.startswith(("pcie.", "temperature.")) else text
    return "N/A"


def reason_cell(gpu: Element, name: str) -> str:
    section = gpu.find("clocks_event_reasons")
    section = gpu.find("clocks_throttle_reasons") if section is None else section
    if section is None or not len(section):
        return "N/A"
    active = {child.tag.partition("_reason_")[2]: child.text for child in section}
    if name == "active":
        return f"0x{sum(REASONS[known] for known, text in active.items() if text == 'Active'):016X}"
    return active.get(name) or "N/A"


def ecc_cell(gpu: Element, field: str) -> str:
    """Only `.total`: the sum of what the schema has."""
    _, _, kind, era, place = field.split(".")
    section = gpu.find(f"ecc_errors/{era}")
    if section is None or place != "total":
        return "N/A"
    old = section.find(f"{'single_bit' if kind == 'corrected' else 'double_bit'}/total")
    if old is not None:
        return old.text or ""
    ending = "_correctable" if kind == "corrected" else "_uncorrectable"
    parts = [child.text or "" for child in section if ending in child.tag]
    return str(sum(map(int, parts))) if all(part.isdigit() for part in parts) else "N/A"


def known_field(field: str) -> str:
    name = ALIASES.get(field, field)
    special = ("timestamp", "driver_version", "count", "index", "hostname", "compute_cap")
    prefixes = ("clocks_event_reasons.", "clocks_throttle_reasons.", "ecc.errors.")
    if name in FIELDS or name in special or name.startswith(prefixes):
        return name
    raise Usage(f'Field "{field}" is not a valid field to query.\n', 2)


def table_of(request: Request, host: Host, gpus: list[Element], first: bool) -> str:
    fields = [(field.strip(), known_field(field.strip())) for field in request.fields]
    units = "nounits" not in request.format
    lines = []
    if first and "noheader" not in request.format:
        lines.append(", ".join(f"{asked} [{UNITS[name]}]" if UNITS.get(name) else asked for asked, name in fields))
    for gpu in gpus:
        cells = [csv_text(cell(host, gpu, name), UNITS.get(name, ""), units) for _, name in fields]
        lines.append(", ".join(cells))
    return "".join(line + "\n" for line in lines)


def csv_text(text: str, unit: str, units: bool) -> str:
    if text in ("N/A", "GPU is lost", "Requested functionality has been deprecated", "Unknown Error"):
        return f"[{text}]"
    return text if units or not unit else text.removesuffix(f" {unit}")


def apps_of(request: Request, gpus: list[Element], first: bool) -> str:
    names_of = {"used_gpu_memory": "used_gpu_memory [MiB]", "used_memory": "used_gpu_memory [MiB]"}
    lines = []
    if first and "noheader" not in request.format:
        lines.append(", ".join(names_of.get(name, name) for name in request.apps))
    for gpu in gpus:
        for info in gpu.findall("processes/process_info"):
            row = {name: info.findtext(name, "") for name in ("pid", "process_name", "used_memory")}
            row |= {"used_gpu_memory": row["used_memory"], "gpu_name": gpu.findtext("product_name", "")}
            row |= {"gpu_uuid": gpu.findtext("uuid", ""), "gpu_bus_id": address(gpu)}
            if "C" in info.findtext("type", ""):
                lines.append(", ".join(row.get(name, "[N/A]") for name in request.apps))
    return "".join(line + "\n" for line in lines)


def log_text(request: Request, host: Host, gpus: list[Element]) -> str:
    lines = ["", "==============NVSMI LOG==============", ""]
    lines += [f"{'Timestamp':<42}: {now():%a %b %d %H:%M:%S %Y}"]
    lines += [f"{'Driver Version':<42}: {host.header('driver_version')}"]
    lines += [f"{'CUDA Version':<42}: {host.header('cuda_version')}", "", f"{'Attached GPUs':<42}: {len(host.gpus)}"]
    wanted = [tag for name in request.sections for tag in SECTIONS.get(name.strip().upper(), ())]
    for gpu in gpus:
        lines.append(f"GPU {address(gpu)}")
        children = [child for child in gpu if not wanted or child.tag in wanted]
        lines += [line for child in children for line in log_lines(child, 1)]
        lines.append("")
    return "\n".join(lines) + "\n"


def log_lines(element: Element, depth: int) -> list[str]:
    label = "    " * depth + (LABELS.get(element.tag) or words(element.tag))
    if not len(element):
        return [f"{label:<42}: {(element.text or '').strip() or 'None'}"]
    return [label, *(line for child in element for line in log_lines(child, depth + 1))]


def words(tag: str) -> str:
    for prefix in ("clocks_event_reason_", "clocks_throttle_reason_"):
        tag = tag.removeprefix(prefix)
    short = ("gpu", "sw", "hw", "ecc", "sram", "dram", "pci", "id")
    return " ".join(word.upper() if word in short else word.capitalize() for word in tag.split("_"))


def summary(host: Host, gpus: list[Element]) -> str:
    bar = "+" + "-" * 89 + "+"
    driver, cuda = host.header("driver_version"), host.header("cuda_version")
    lines = [f"{now():%a %b %d %H:%M:%S %Y}", bar]
    lines.append(f"| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda:<8} |")
    lines += ["|" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "|"]
    lines += ["| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |"]
    lines += ["| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |"]
    lines += ["|" + "=" * 41 + "+" + "=" * 24 + "+" + "=" * 22 + "|"]
    for gpu in gpus:
        lines += summary_rows(host, gpu)
    lines += [bar, "", bar, f"| {'Processes:':<88}|"]
    lines += [process_row(host, gpu, info) for gpu in gpus for info in gpu.findall("processes/process_info")]
    return "\n".join([*lines, bar, ""])


def summary_rows(host: Host, gpu: Element) -> list[str]:
    def get(field: str) -> str:
        return cell(host, gpu, field).replace(" ", "")

    persistence = "On" if get("persistence_mode") == "Enabled" else "Off"
    draw, limit = (get(field).removesuffix("W").split(".")[0] for field in ("power.draw", "power.limit"))
    power = f"{draw}W / {limit}W"
    memory = f"{get('memory.used')} / {get('memory.total')}"
    name = gpu.findtext("product_name", "")[:25]
    errors = get("ecc.errors.uncorrected.volatile.total")
    first = f"| {host.gpus.index(gpu):>3}  {name:<25} {persistence:>8} | {address(gpu):>18} Off | {errors:>20} |"
    sensors = f"| {get('fan.speed'):>4} {get('temperature.gpu') + 'C':>4} {get('pstate'):>5} {power:>23} |"
    return [first, f"{sensors} {memory:>22} | {get('utilization.gpu'):>8} {get('compute_mode'):>11} |"]


def process_row(host: Host, gpu: Element, info: Element) -> str:
    left = f"{host.gpus.index(gpu):>4}   N/A  N/A {info.findtext('pid'):>16} {info.findtext('type'):>6}   "
    used = info.findtext("used_memory", "N/A").replace(" ", "")
    return f"| {left}{info.findtext('process_name', '')[:40]:<40} {used:>10} |"


if __name__ == "__main__":
    sys.exit(main())
