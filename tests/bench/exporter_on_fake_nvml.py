"""`gpumon exporter --source nvml` over the fake NVML: what the process costs where the driver costs nothing."""

from __future__ import annotations

import sys

from services.__main__ import main
from services.contract.catalogue import METRICS
from tests.support.fake_nvml import FakeGpu, FakeNvml

if __name__ == "__main__":
    values = {m.column: max(m.low, min(m.high, 42.0)) for m in METRICS if m.nvml is not None}
    fake = FakeNvml(gpus=[FakeGpu(values=dict(values)) for _ in range(int(sys.argv[1]))])
    with fake.installed():
        sys.exit(main(["exporter", "--source", "nvml"]))
