"""Whose GPU it is: Kubernetes pods and HPC jobs as labels of a GPU's series.

`open_attributor(settings, interval)` -> Attributor, or None where neither is asked for. `start()` makes it poll in a
thread of its own, so that a kubelet that hangs holds up neither a reading nor a scrape; `labels(device)` only looks up
what was told last. Failures are counted in `failures` and logged once per change. What was told is used for KEEP
seconds more, because a kubelet that restarts answers again soon; then nothing is said: the pod may long be gone.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from services.exporter.attribution import hpc_jobs
from services.exporter.attribution.mig_owner import Owner, mig_owner
from services.exporter.reading import Device
from services.ops.clock import Clock, SystemClock
from services.settings import Settings

log = logging.getLogger("exporter")

KEEP: Final = 60.0
"""Seconds. A kubelet restarts in a few."""
SLOWEST: Final = 10.0
"""Seconds between polls at most, whatever the interval of the readings: pods come and go."""
FIRST: Final = 3.0
"""Seconds `start` waits for the first answer, so that the first reading is attributed; above the kubelet's limit."""

Labels = dict[str, str]
Key = tuple[str | int, int | None]
"""GPU by UUID or index, and GPU instance id or None."""
Table = Mapping[Key, list[Labels]]

MOST: Final = 128
"""Holders of one GPU or instance, each a whole set of its series; above, none of them is told."""
UNKNOWN: Final = 64
"""MIG UUIDs a poll asks the driver for in vain. One lookup loads NVML; a host has at most 16 x 7 MIG devices."""

_NVIDIA: Final = "nvidia.com/"
_REPLICA: Final = re.compile(r"(?:::\d+|/vgpu\d+)$")
"""What marks the shares of one GPU: of NVIDIA's device plugin, of GKE's."""
_BY_INDEX: Final = re.compile(r"nvidia(\d+)(?:/gi(\d+))?")


class Holder(Protocol):
    """As `pod_resources.Holder`; that module loads gRPC, which a host without Kubernetes shall not keep in memory."""

    @property
    def pod(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def container(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def device_id(self) -> str: ...


class _Told:
    """What one source told last, and since when it has not."""

    def __init__(self, name: str, ask: Callable[[], tuple[Table, str | None]], clock: Clock) -> None:
        self.name = name
        self.failures = 0
        self._ask = ask
        self._clock = clock
        self._table: Table = {}
        self._time = clock.monotonic()
        self._problem: str | None = None

    def poll(self) -> None:
        try:
            self._table, problem = self._ask()
            self._time = self._clock.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever it is, an attribution that fails costs labels, no reading
            problem = str(error) or type(error).__name__
        self.failures += problem is not None
        self._note(problem)

    def of(self, key: Key) -> list[Labels]:
        return self._table.get(key, []) if self._clock.monotonic() - self._time <= KEEP else []

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("%s labels are missing: %s", self.name, problem)
        elif problem is None and self._problem is not None:
            log.info("%s labels are back", self.name)
        self._problem = problem


class Attributor:
    """Use `open_attributor`. `pods` and `jobs` ask once and may raise; None: not asked for."""

    def __init__(
        self,
        *,
        pods: Callable[[], Iterable[Holder]] | None = None,
        jobs: Callable[[], hpc_jobs.Jobs] | None = None,
        interval: float = SLOWEST,
        owner_of_mig: Callable[[str], Owner | None] = mig_owner,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._resolve = _Resolver(owner_of_mig)
        self._pods = _Told("kubernetes", lambda: self._resolve.table(pods()), clock) if pods else None
        self._jobs = _Told("hpc", lambda: _job_table(jobs()), clock) if jobs else None
        self._interval = min(interval, SLOWEST)
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attribution", daemon=True)

    def start(self) -> None:
        """Poll from now on; returns after the first answer, or FIRST seconds."""
        self._thread.start()
        self._first.wait(FIRST)

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=FIRST)

    def poll(self) -> None:
        """Ask once. Never raises."""
        for told in (self._pods, self._jobs):
            if told is not None:
                told.poll()

    def labels(self, device: Device) -> list[Labels]:
        """One set of labels (pod, namespace, container; hpc_job) per holder; empty: nobody, or nobody knows."""
        instance = device.instance_id
        pods = self._pods.of((device.uuid, instance)) + self._pods.of((device.index, instance)) if self._pods else []
        jobs = self._jobs.of((device.index, instance)) if self._jobs else []
        if not pods or not jobs:
            return pods or jobs
        return [pod | job for pod in pods for job in jobs]

    @property
    def failures(self) -> dict[str, int]:
        """`kubernetes`, `hpc` -> polls that failed since the start; only what is asked for."""
        return {told.name: told.failures for told in (self._pods, self._jobs) if told is not None}

    def _run(self) -> None:
        while not self._stop.is_set():
            self.poll()
            self._first.set()
            self._stop.wait(self._interval)


class _Resolver:
    """Device ids of Kubernetes -> keys. A MIG UUID is looked up once: it keeps its GPU as long as it lives."""

    def __init__(self, owner_of_mig: Callable[[str], Owner | None]) -> None:
        self._owner_of_mig = owner_of_mig
        self._owners: dict[str, Owner] = {}
        self._unknown: set[str] = set()
        """Of one poll: a MIG device may be made between two."""

    def table(self, holders: Iterable[Holder]) -> tuple[Table, str | None]:
        """And what is wrong with it; None: nothing."""
        self._unknown.clear()
        table: dict[Key, list[Labels]] = defaultdict(list)
        for holder in holders:
            key = self._key(holder.device_id) if holder.resource.startswith(_NVIDIA) else None
            labels = {"container": holder.container, "namespace": holder.namespace, "pod": holder.pod}
            if key is None or len(table[key]) > MOST:
                continue
            if labels not in table[key]:  # two shares of one GPU in one container
                table[key].append(labels)
        crowded = [str(key[0]) for key, labels in table.items() if len(labels) > MOST]
        problem = f"more than {MOST} containers on one GPU: {', '.join(crowded[:8])}" if crowded else None
        return {key: labels for key, labels in table.items() if len(labels) <= MOST}, problem

    def _key(self, device_id: str) -> Key | None:
        """None: no device of ours, or a MIG device that the driver does not know."""
        name = _REPLICA.sub("", device_id)
        if name.startswith("MIG-"):
            return self._owner(name)
        if name.startswith("GPU-"):
            return name, None
        found = _BY_INDEX.fullmatch(name)
        return (int(found[1]), int(found[2]) if found[2] else None) if found else None

    def _owner(self, uuid: str) -> Owner | None:
        owner = self._owners.get(uuid)
        if owner is None and uuid not in self._unknown and len(self._unknown) < UNKNOWN:
            owner = self._owner_of_mig(uuid)
            if owner is None:
                self._unknown.add(uuid)
            elif len(self._owners) < UNKNOWN * UNKNOWN:
                self._owners[uuid] = owner
        return owner


def open_attributor(settings: Settings, interval: float) -> Attributor | None:
    """As the settings say (EXPORTER_KUBERNETES, KUBELET_SOCKET, HPC_JOB_MAPPING_DIR), not yet started; None: neither is
    asked for. `interval`: seconds between readings."""
    pods = _pods_of(settings.kubelet_socket) if settings.exporter_kubernetes else None
    directory = settings.hpc_job_mapping_dir
    jobs = partial(hpc_jobs.read, directory) if directory is not None else None
    return Attributor(pods=pods, jobs=jobs, interval=interval) if pods or jobs else None


def _pods_of(socket: Path) -> Callable[[], Iterable[Holder]]:
    from services.exporter.attribution.pod_resources import PodResources  # noqa: PLC0415 - loads gRPC: 15 MB, where it is used

    return PodResources(socket).list


def _job_table(jobs: hpc_jobs.Jobs) -> tuple[Table, str | None]:
    table: Table = {slot: [{"hpc_job": job} for job in ids] for slot, ids in jobs.by_slot.items()}
    return table, "; ".join(jobs.unreadable) or None
