"""The exposition to the letter: dcgm-exporter's series first, then our own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.contract.catalogue import METRICS
from services.contract.sentinels import Missing
from services.exporter.counters_file import Counter, Selection, everything
from services.exporter.reading import Process
from services.exporter.render import Renderer
from tests.unit.exporter.service.doubles import device, reading, sweep

IDENTITY = (
    'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000000",pci_bus_id="00000000:03:00.0",device="nvidia0",'
    'modelName="Tesla P40",Hostname="dock"'
)


def renderer(**fields: object) -> Renderer:
    values: dict[str, object] = {"selection": everything(), "hostname": "dock"} | fields
    return Renderer(**values)  # type: ignore[arg-type]  # a table of a dataclass's own fields


def test_dcgm_series_to_the_letter() -> None:
    text = renderer().render(sweep(reading()))
    driver = 'DCGM_FI_DRIVER_VERSION="535.129.03"'
    assert text.startswith(
        "# HELP DCGM_FI_DEV_GPU_TEMP GPU temperature (in C).\n"
        "# TYPE DCGM_FI_DEV_GPU_TEMP gauge\n"
        f"DCGM_FI_DEV_GPU_TEMP{{{IDENTITY},{driver}}} 41\n"
        "# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).\n"
        "# TYPE DCGM_FI_DEV_POWER_USAGE gauge\n"
        f"DCGM_FI_DEV_POWER_USAGE{{{IDENTITY},{driver}}} 51.250000\n"
        "# HELP gpumon_gpu_info "
    )


def test_every_metric_of_the_catalogue_can_be_served() -> None:
    values = {m.column: int(m.low) if m.sql.is_integer else m.low for m in METRICS}
    text = renderer().render(sweep(reading(values=values)))
    families = {f.name: f for f in text_string_to_metric_families(text)}
    for metric in METRICS:
        family = families[metric.dcgm.removesuffix("_total")]
        assert family.type == metric.exposition_type
        assert family.documentation == metric.help
        assert family.samples[0].value == metric.low


def test_default_counters_come_first_as_in_dcgm_exporter() -> None:
    names = [counter.metric for counter in everything().counters]
    assert names == sorted(names, key=lambda m: not m.default)
    assert set(names) == set(METRICS)


def test_a_metric_without_a_value_has_no_header() -> None:
    text = renderer().render(sweep(reading(values={"gpu_temp": 41})))
    assert "POWER_USAGE" not in text


def test_instances_follow_their_gpu_and_carry_profile_and_id() -> None:
    whole = device()
    instance = replace(whole, instance_id=13, instance_profile="1g.5gb")
    text = renderer().render(sweep(reading(whole, {"fb_used": 4845}), reading(instance, {"fb_used": 2000})))
    lines = [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_FB_USED")]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["4845", "2000"]
    assert 'modelName="Tesla P40",GPU_I_PROFILE="1g.5gb",GPU_I_ID="13",Hostname="dock",DCGM_FI_DRIVER' in lines[1]
    assert "GPU_I" not in lines[0]


def test_label_fields_sorted_then_attributes_sorted() -> None:
    selection = Selection(everything().counters, ("DCGM_FI_DRIVER_VERSION", "DCGM_FI_DEV_SERIAL", "DCGM_FI_DEV_BRAND"))
    holder = {"pod": "train-0", "namespace": "research", "container": "main"}
    text = renderer(selection=selection, attributes=lambda _: [holder]).render(sweep(reading()))
    assert (
        'Hostname="dock",DCGM_FI_DEV_SERIAL="0321",DCGM_FI_DRIVER_VERSION="535.129.03",'
        'container="main",namespace="research",pod="train-0"} 41\n'
    ) in text


def test_label_fields_by_the_names_of_either_release() -> None:
    selection = Selection(everything().counters, ("DCGM_FI_SYSTEM_DRIVER_VERSION", "DCGM_FI_DEV_BOARD_SERIAL"))
    text = renderer(selection=selection).render(sweep(reading()))
    assert 'DCGM_FI_DEV_BOARD_SERIAL="0321",DCGM_FI_SYSTEM_DRIVER_VERSION="535.129.03"} 41\n' in text


def test_a_gpu_that_several_hold_has_a_series_for_each() -> None:
    text = renderer(attributes=lambda _: [{"hpc_job": "7"}, {"hpc_job": "8"}]).render(sweep(reading()))
    assert re.findall(r'GPU_TEMP\{.*(hpc_job="\d")', text) == ['hpc_job="7"', 'hpc_job="8"']
    assert text.count("gpumon_gpu_info{") == 1, "our own series say nothing of holders"


def test_no_hostname() -> None:
    text = renderer(hostname=None).render(sweep(reading()))
    assert "Hostname" not in text


def test_quotes_backslashes_and_line_feeds_are_escaped() -> None:
    odd = 'Tesla "P40"\\\n'
    text = renderer().render(sweep(reading(device(model=odd))))
    assert 'modelName="Tesla \\"P40\\"\\\\\\n"' in text
    family = next(iter(text_string_to_metric_families(text)))
    assert family.samples[0].labels["modelName"] == odd


def test_a_counters_file_decides_names_types_and_help() -> None:
    metric = next(m for m in METRICS if m.column == "gpu_temp")
    selection = Selection((Counter(metric, "DCGM_FI_DEV_GPU_TEMP_CELSIUS", "counter", "Hot, or not."),), ())
    text = renderer(selection=selection).render(sweep(reading()))
    assert text.startswith(
        "# HELP DCGM_FI_DEV_GPU_TEMP_CELSIUS Hot, or not.\n# TYPE DCGM_FI_DEV_GPU_TEMP_CELSIUS counter\n"
    )
    assert "POWER_USAGE" not in text
    assert "DRIVER_VERSION" not in text


def test_gpu_info_has_the_inventory_names() -> None:
    labels = {
        "DCGM_FI_NVML_VERSION": "12.535",
        "DCGM_FI_DRIVER_VERSION": "535.129.03",
        "DCGM_FI_DEV_VBIOS_VERSION": "86.02",
        "DCGM_FI_DEV_BRAND": "Tesla",
    }
    text = renderer().render(sweep(reading(device(labels=labels))))
    told = 'driver_version="535.129.03",vbios_version="86.02",brand="Tesla",nvml_version="12.535"'
    assert f"gpumon_gpu_info{{{IDENTITY},{told}}} 1\n" in text


def test_missing_fields_say_why() -> None:
    missing = {"memory_temp": Missing.UNSUPPORTED, "power_limit": Missing.PERMISSION}
    text = renderer().render(sweep(reading(missing=missing)))
    lines = [line for line in text.splitlines() if line.startswith("gpumon_field_missing")]
    assert lines == [
        f'gpumon_field_missing{{{IDENTITY},field="DCGM_FI_DEV_MEMORY_TEMP",reason="unsupported"}} 1',
        f'gpumon_field_missing{{{IDENTITY},field="DCGM_FI_DEV_POWER_MGMT_LIMIT",reason="permission"}} 1',
    ]


def test_processes_that_tell_their_memory() -> None:
    processes = (Process(1234, "anna", 'py "x"', 512), Process(7, None, None, None), Process(8, None, None, 1, "G"))
    text = renderer().render(sweep(reading(processes=processes)))
    lines = [line for line in text.splitlines() if line.startswith("gpumon_process")]
    name = "gpumon_process_used_memory_bytes"
    assert lines == [
        f'{name}{{{IDENTITY},pid="1234",user="anna",command="py \\"x\\"",type="C"}} 536870912',
        f'{name}{{{IDENTITY},pid="8",user="",command="",type="G"}} 1048576',
    ]


def test_prefixed_name_space_of_whole_gpus() -> None:
    values = {
        "gpu_temp": 41,
        "gpu_util": 7,
        "fb_used": 512,
        "fb_total": 2048,
        "power_usage": 50.5,
        "power_limit": 250.0,
    }
    instance = replace(device(), instance_id=1, instance_profile="1g.5gb")
    text = renderer(prefix="entrenar").render(sweep(reading(values=values), reading(instance, values)))
    assert [line for line in text.splitlines() if line.startswith("entrenar")] == [
        'entrenar_gpu_temperature_celsius{device="0"} 41',
        'entrenar_gpu_utilization_percent{device="0"} 7',
        'entrenar_gpu_memory_used_bytes{device="0"} 536870912',
        'entrenar_gpu_memory_total_bytes{device="0"} 2147483648',
        'entrenar_gpu_memory_percent{device="0"} 25.0',
        'entrenar_gpu_power_watts{device="0"} 50.5',
        'entrenar_gpu_power_limit_watts{device="0"} 250.0',
        'entrenar_gpu_power_percent{device="0"} 20.2',
    ]


def test_prefixed_names_of_values_that_are_not_there_are_not_there() -> None:
    text = renderer(prefix="entrenar").render(sweep(reading(values={"power_usage": 50.5, "fb_used": 0})))
    lines = [line for line in text.splitlines() if line.startswith("entrenar")]
    assert lines == ['entrenar_gpu_memory_used_bytes{device="0"} 0', 'entrenar_gpu_power_watts{device="0"} 50.5']


@pytest.mark.parametrize("readings", [(), (reading(values={}),)])
def test_nothing_read_is_nothing_served(readings: tuple[object, ...]) -> None:
    text = renderer().render(sweep(*readings))  # type: ignore[arg-type]  # readings, or none
    assert "DCGM_FI_DEV" not in text
