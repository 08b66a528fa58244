"""A MIG UUID's GPU and GPU instance, from the driver."""

from __future__ import annotations

import pynvml
import pytest

from services.exporter.attribution.mig_owner import mig_owner
from tests.support import fake_nvml_lookup  # noqa: F401  # the look-ups by UUID
from tests.support.fake_nvml import FakeGpu, FakeInstance, FakeNvml

GPU = "GPU-509665ad-b600-ac93-3616-d754b23d636d"


def test_old_names_say_it_themselves() -> None:
    assert mig_owner(f"MIG-{GPU}/7/0") == (GPU, 7)


def test_the_driver_is_asked_and_let_go() -> None:
    fake = FakeNvml(gpus=[FakeGpu(uuid=GPU, instances=[FakeInstance(13, "1g.5gb")])])
    with fake.installed():
        pynvml.nvmlInit()
        mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(pynvml.nvmlDeviceGetHandleByIndex(0), 0)
        assert mig_owner(pynvml.nvmlDeviceGetUUID(mig)) == (GPU, 13)
        assert fake.initialised == 1


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, None])
def test_nobody_knows(error: int | None) -> None:
    fake = FakeNvml()
    fake.init_error = error
    with fake.installed():
        assert mig_owner("MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f") is None
    assert fake.initialised == 0
