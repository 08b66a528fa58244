"""A stand-in for NVIDIA's libnvidia-ml at its C boundary: C function pointers that write into the caller's structs.

`pynvml` and everything above it run unchanged; only the loaded library is another. Plain data says what the GPUs are:

    gpu = FakeGpu(values={"gpu_temp": 71, "power_usage": 52.5, "fb_total": 24576, "fb_used": 54, "fb_free": 24521})
    fake = FakeNvml(gpus=[gpu])
    with fake.installed():                        # pynvml loads `fake` from here on; put back at the end
        sweep = NvmlSource().read()

`FakeGpu.values` is by catalogue column, in the catalogue's unit (W, MiB, ratio, B/s); the fake gives them out as NVML
does (mW, bytes, percent, MiB/s). **A column that is not in `values` answers NVML_ERROR_NOT_SUPPORTED.** What else:

    gpu.values["gpu_temp"] = 80                   # change anything between two reads
    gpu.native["pcie_replay_counter"] = 0xFFFFFFFF  # what NVML says, unconverted (NVML's unit)
    gpu.errors["power_violation"] = pynvml.NVML_ERROR_UNKNOWN        # by column, or by C function:
    gpu.errors["nvmlDeviceGetFanSpeed"] = pynvml.NVML_ERROR_NO_PERMISSION
    gpu.lost = True                               # every call on it: NVML_ERROR_GPU_IS_LOST (or gpu.lost_error)
    gpu.fields = False                            # a driver that knows none of the ids of nvmlDeviceGetFieldValues
    gpu.instances = [FakeInstance(13, "1g.5gb", {"fb_total": 4864, ...})]  # MIG on; [] = on, none made; None = no MIG
    gpu.processes = [FakeProcess(1234, 512)]      # MiB; kind="C" | "G" | "C+G"; instance=13 for one on MIG
    fake.gpus.append(FakeGpu(...))                # plugged in: seen after shutdown and init, as with the real library
    fake.gpus.remove(gpu)                         # unplugged: lost at once, gone after shutdown and init
    fake.load_error = True                        # no libnvidia-ml.so.1
    fake.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    fake.errors["nvmlDeviceGetCount_v2"] = ...    # a function fails whoever asks
    fake.absent.add("nvmlDeviceGetMemoryInfo_v2") # an old driver's library: no such symbol (FUNCTION_NOT_FOUND)
    fake.hanging.add("nvmlDeviceGetPowerUsage")   # blocks without the GIL, as a dead driver does, until
    fake.release()
    fake.calls                                    # Counter of C function names
    fake.xid(gpu, 79)                             # an XID event for nvmlEventSetWait_v2
    pci_tree(tmp_path, ["00000000:31:00.0"])      # a /sys/bus/pci/devices for NvmlSource(pci=...)

`installed()` also points the source's default PCI directory at one that does not exist, so that a real GPU of the
machine is not mixed in.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, c_uint, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pynvml

from services.exporter.nvml import pci

OK: Final = 0
MIB: Final = 1 << 20
_HANDLE_STEP: Final = 0x1000
_UUID: Final = "GPU-00000000-0000-0000-0000-000000000000"
_ADDRESS: Final = "00000000:31:00.0"
_NO_INSTANCE: Final = 0xFFFFFFFF
_HANDLE_P: Final = c_void_p
"""Of opaque handles: pynvml has a type of its own for each, and all are written with `_give`."""


@dataclass
class FakeInstance:
    """A MIG GPU instance with one compute instance (or several, which share it)."""

    id: int
    profile: str
    """As nvidia-smi writes it: `1g.5gb`."""
    values: dict[str, float] = field(default_factory=dict)
    """Catalogue columns: fb_* (MiB) and, on GPUs with GPM, the profiling ones."""
    compute_instances: int = 1
    named: bool = True
    """False: nvmlDeviceGetName does not tell the profile, its attributes do."""


@dataclass
class FakeProcess:
    pid: int
    used_memory: int | None = 0
    """MiB; None: NVML's "not available"."""
    kind: str = "C"
    instance: int | None = None


@dataclass
class FakeGpu:
    """See the module's docstring."""

    uuid: str = _UUID
    pci_bus_id: str = _ADDRESS
    name: str = "Tesla P40"
    serial: str | None = None
    vbios: str | None = None
    brand: int | None = None
    """pynvml.NVML_BRAND_TESLA, ..."""
    values: dict[str, float] = field(default_factory=dict)
    native: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    lost: bool = False
    lost_error: int = pynvml.NVML_ERROR_GPU_IS_LOST
    handle_error: int | None = None
    """What nvmlDeviceGetHandleByIndex_v2 answers for it."""
    fields: bool = True
    gpm: bool = False
    """Hopper and newer: profiling metrics from NVML."""
    instances: list[FakeInstance] | None = None
    processes: list[FakeProcess] | None = field(default_factory=list)
    """None: not supported."""


@dataclass(frozen=True)
class _Mig:
    """What a MIG device handle stands for: one compute instance."""

    gpu: FakeGpu
    instance: FakeInstance
    compute: int


_GPM: Final = {
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: "gr_engine_active",
    pynvml.NVML_GPM_METRIC_SM_UTIL: "sm_active",
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: "sm_occupancy",
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: "tensor_active",
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: "dram_active",
    pynvml.NVML_GPM_METRIC_FP64_UTIL: "fp64_active",
    pynvml.NVML_GPM_METRIC_FP32_UTIL: "fp32_active",
    pynvml.NVML_GPM_METRIC_FP16_UTIL: "fp16_active",
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: "pcie_tx_bytes",
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: "pcie_rx_bytes",
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC: "nvlink_tx_bytes",
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC: "nvlink_rx_bytes",
}


def _native(column: str, value: float) -> float:
    if column in ("power_usage", "power_limit"):
        return round(value * 1000)
    if column.startswith("fb_"):
        return int(value) * MIB
    if column.endswith("_bytes"):
        return value / MIB
    if column in _GPM.values():
        return value * 100
    return int(value)


def _distinct(gpu: FakeGpu, number: int) -> FakeGpu:
    """The second and later GPUs that were given no identity of their own get one by their position."""
    if number and (gpu.uuid, gpu.pci_bus_id) == (_UUID, _ADDRESS):
        gpu.uuid, gpu.pci_bus_id = f"{_UUID[:-2]}{number:02}", f"00000000:{0x31 + number:02X}:00.0"
    return gpu


class NvmlAnswer(Exception):  # noqa: N818 - an answer of the fake, not an error of the test
    """The C function returns this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class FakeNvml:
    """The library and the driver under it. See the module's docstring."""

    def __init__(
        self,
        gpus: Iterable[FakeGpu] = (),
        *,
        driver_version: str = "535.129.03",
        nvml_version: str = "12.535.129.03",
    ) -> None:
        import tests.support.fake_nvml_functions  # noqa: F401 - registers the C functions, and needs this module

        self.gpus = [_distinct(gpu, number) for number, gpu in enumerate(gpus)]
        self.driver_version = driver_version
        self.nvml_version = nvml_version
        self.load_error = False
        self.init_error: int | None = None
        self.errors: dict[str, int] = {}
        self.absent: set[str] = set()
        self.hanging: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.initialised = 0
        """Times nvmlInit was called and not undone, as the library itself counts."""
        self._released = threading.Event()
        self._events = threading.Condition()
        self._pending: list[tuple[int, int]] = []
        self._attached: list[FakeGpu] = []
        self._handles: dict[int, FakeGpu | _Mig] = {}
        self._samples: dict[int, dict[str, float]] = {}
        self._next = _HANDLE_STEP
        self._functions: dict[str, Any] = {}
        self._texts: dict[int, Any] = {}

    # -- what a test does ------------------------------------------------------------------------------------------

    @contextmanager
    def installed(self) -> Iterator[FakeNvml]:
        """`pynvml` loads this library. On leaving, hanging calls are let go and `pynvml` is as it was."""
        before = {name: getattr(pynvml, name) for name in ("CDLL", "nvmlLib", "_nvmlLib_refcount")}
        cache, bus = dict(pynvml._nvmlGetFunctionPointer_cache), pci.PCI_DEVICES
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.CDLL, pynvml.nvmlLib, pynvml._nvmlLib_refcount = self._load, None, 0
        pci.PCI_DEVICES = Path("/nonexistent")
        try:
            yield self
        finally:
            self.release()
            for name, value in before.items():
                setattr(pynvml, name, value)
            pynvml._nvmlGetFunctionPointer_cache.clear()
            pynvml._nvmlGetFunctionPointer_cache.update(cache)
            pci.PCI_DEVICES = bus

    @property
    def samples(self) -> int:
        """GPM sample buffers allocated and not freed."""
        return len(self._samples)

    def release(self) -> None:
        """Calls that hang return, as if nothing had been."""
        self.hanging.clear()
        self._released.set()
        self._released = threading.Event()

    def xid(self, gpu: FakeGpu, code: int) -> None:
        """An event for whoever waits on an event set."""
        with self._events:
            self._pending.append((self._handle(gpu), code))
            self._events.notify_all()

    # -- loading ---------------------------------------------------------------------------------------------------

    def _load(self, _name: str) -> FakeNvml:
        if self.load_error:
            raise OSError("libnvidia-ml.so.1: cannot open shared object file: No such file or directory")
        return self

    def __getattr__(self, name: str) -> Any:
        """A C function of the library, as ctypes' CDLL gives them."""
        if not name.startswith("nvml") or name in self.absent or name not in _SIGNATURES:
            raise AttributeError(f"undefined symbol: {name}")
        if name not in self._functions:
            self._functions[name] = self._c_function(name)
        return self._functions[name]

    def _c_function(self, name: str) -> Any:
        types, answer = _SIGNATURES[name]
        if name == "nvmlErrorString":  # const char*; a void* here, because pynvml declares the result itself
            return CFUNCTYPE(c_void_p, c_uint)(self._error_string)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            if name in self.hanging:
                self._released.wait()
            if name in self.errors:
                return self.errors[name]
            if not self.initialised and name != "nvmlInitWithFlags":
                return int(pynvml.NVML_ERROR_UNINITIALIZED)
            try:
                answer(self, *arguments)
            except NvmlAnswer as result:
                return result.code
            return OK

        return CFUNCTYPE(c_uint, *types)(call)

    def _error_string(self, code: int) -> int:
        text = pynvml.NVMLError._errcode_to_string.get(code, f"Error {code}")
        buffer = self._texts.setdefault(code, ctypes.create_string_buffer(text.encode()))
        return ctypes.addressof(buffer)

    # -- handles and values ----------------------------------------------------------------------------------------

    def attach(self) -> None:
        """nvmlInit: NVML looks for GPUs only now."""
        if self.init_error is not None:
            raise NvmlAnswer(self.init_error)
        self.initialised += 1
        if self.initialised == 1:
            self._attached = sorted(self.gpus, key=lambda gpu: gpu.pci_bus_id)
            self._handles.clear()

    def detach(self) -> None:
        self.initialised -= 1

    def _handle(self, what: FakeGpu | _Mig) -> int:
        for number, known in self._handles.items():
            if known is what or (isinstance(known, _Mig) and known == what):
                return number
        self._next += _HANDLE_STEP
        self._handles[self._next] = what
        return self._next

    def _what(self, handle: int | None, function: str) -> FakeGpu | _Mig:
        what = self._handles.get(handle or 0)
        if what is None:
            raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        gpu = what.gpu if isinstance(what, _Mig) else what
        self._alive(gpu)
        if function in gpu.errors:
            raise NvmlAnswer(gpu.errors[function])
        return what

    def _alive(self, gpu: FakeGpu) -> None:
        if gpu.lost:
            raise NvmlAnswer(gpu.lost_error)
        if not any(gpu is other for other in self.gpus):
            raise NvmlAnswer(pynvml.NVML_ERROR_GPU_IS_LOST)

    def gpu_of(self, handle: int | None, function: str) -> FakeGpu:
        what = self._what(handle, function)
        if isinstance(what, _Mig):
            raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return what

    def mig_of(self, handle: int | None, function: str) -> _Mig:
        what = self._what(handle, function)
        if isinstance(what, FakeGpu):
            raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return what

    def value(self, gpu: FakeGpu, column: str, values: dict[str, float] | None = None) -> Any:
        """In NVML's unit."""
        if column in gpu.errors:
            raise NvmlAnswer(gpu.errors[column])
        if values is None and column in gpu.native:
            return gpu.native[column]
        own = gpu.values if values is None else values
        if column not in own:
            raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return _native(column, own[column])


_Answer = Callable[..., None]
_SIGNATURES: dict[str, tuple[tuple[Any, ...], _Answer]] = {}
"""C function -> argument types and what it does; the result is always nvmlReturn_t."""


def _c(name: str, *types: Any) -> Callable[[_Answer], _Answer]:
    def register(answer: _Answer) -> _Answer:
        _SIGNATURES[name] = (types, answer)
        return answer

    return register


def _give(address: int, handle: int) -> None:
    """Write a handle where the caller wants it."""
    c_void_p.from_address(address).value = handle


def pci_tree(root: Path, addresses: Iterable[str], driver: str | None = "nvidia", pci_class: str = "0x030200") -> Path:
    """A /sys/bus/pci/devices under `root` with NVIDIA GPUs at `addresses` (`00000000:31:00.0`); returns its path.

    Calling it again adds to it; `unplug` takes one out.
    """
    devices = root / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    for address in addresses:
        device = devices / _sysfs(address)
        device.mkdir()
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text(f"{pci_class}\n")
        if driver is not None:
            (root / "drivers" / driver).mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(root / "drivers" / driver)
    return devices


def unplug(devices: Path, address: str) -> None:
    device = devices / _sysfs(address)
    for entry in device.iterdir():
        entry.unlink()
    device.rmdir()


def _sysfs(address: str) -> str:
    return address.lower().removeprefix("0000")
