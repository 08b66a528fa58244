"""The fake itself: that it says what the driver's own program says, so that tests on it prove something."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import pytest

from services.exporter.smi.xml import parse
from tests.support.fake_smi import FIXTURES, FakeSmi, GpuState, document, fixture
from tests.support.fake_smi_program import Usage, known_field
from tests.support.recordings import recording
from tests.support.smi_text import as_xml

SETTINGS = "NVSMI LOG"


def run(smi: FakeSmi, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [smi.program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environment},  # noqa: TID251
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", FIXTURES)
def test_the_document_comes_out_as_it_went_in(name: str, tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path, fixture(name))
    code, text = run(smi, "-q", "-x")
    assert (code, text) == (0, fixture(name).decode())
    code, text = run(smi, "-q")
    assert SETTINGS in text
    (first, *_) = parse(fixture(name)).readings
    assert parse(as_xml(text)).readings[0].values["gpu_temp"] == first.values["gpu_temp"]


def test_the_commands_of_the_runbook(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    code, text = run(smi)
    assert code == 0
    assert re.search(r"Tesla P40 .*\n.*31C +P8 +9W / 250W .* 2MiB / 24576MiB", text)
    assert len({len(line) for line in text.splitlines() if line.startswith(("|", "+"))}) == 1
    assert run(smi, "-L")[1] == "GPU 0: Tesla P40 (UUID: GPU-0a40e0de-1111-4222-8333-444455556666)\n"
    text = run(smi, "--query-gpu=name,uuid,pci.bus_id,temperature.gpu,power.draw", "--format=csv")[1]
    assert text == (
        "name, uuid, pci.bus_id, temperature.gpu, power.draw [W]\n"
        "Tesla P40, GPU-0a40e0de-1111-4222-8333-444455556666, 00000000:06:00.0, 31, 9.87 W\n"
    )
    fields = "timestamp,temperature.gpu,power.draw,power.limit,clocks.gr,pstate,utilization.gpu,fan.speed"
    query = ("--query-gpu=" + fields, "--format=csv", "-l", "1")
    text = run(smi, *query, GPUMON_FAKE_SMI_LOOPS="2")[1]
    assert len(text.splitlines()) == 3  # the header once
    assert text.splitlines()[1].endswith(", 31, 9.87 W, 250.00 W, 544 MHz, P8, 0 %, [N/A]")


def test_one_of_two_gpus(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path, fixture("h100-pair"))
    for word in ("1", "00000000:CA:00.0", "0000:ca:00.0", "GPU-41000000-0000-4000-8000-000000000002"):
        text = run(smi, "--query-gpu=index,memory.used", "--format=csv,noheader,nounits", "-i", word)[1]
        assert text == "1, 71234\n"
    assert len(parse(run(smi, "-q", "-x", "-i", "0")[1].encode()).readings) == 1
    assert run(smi, "-i", "7") == (6, "No devices were found\n")
    text = run(smi, "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader")[1]
    assert text == "91823, /opt/conda/bin/python, 71220 MiB\n"


def test_what_it_refuses(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    assert run(smi, "--bogus")[0] == 2
    code, text = run(smi, "--query-gpu=no.such", "--format=csv")
    assert (code, text.splitlines()[0]) == (2, 'Field "no.such" is not a valid field to query.')


def test_a_lost_gpu_in_the_table_of_values(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path, gpus=[GpuState(), GpuState("GPU-b", "00000000:07:00.0")])
    smi.lose(1)
    text = run(smi, "--query-gpu=pci.bus_id,temperature.gpu", "--format=csv,noheader")[1]
    assert text == "00000000:06:00.0, 31\n00000000:07:00.0, [GPU is lost]\n"
    smi.lose(1, how="text")
    code, text = run(smi)
    assert code == 15
    assert text.startswith("Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.")
    assert run(smi, "-L")[1].startswith("GPU 0: Tesla P40")
    assert run(smi, "-q", "-x", "-i", "0")[0] == 0


def test_a_file_and_the_calls(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    assert run(smi, "-q", "-x", "-f", str(tmp_path / "out.xml")) == (0, "")
    assert (tmp_path / "out.xml").read_bytes() == fixture("tesla-p40")
    assert smi.calls() == [["-q", "-x", "-f", str(tmp_path / "out.xml")]]


def test_documents_from_data_are_whole_in_every_schema() -> None:
    for schema in (11, 12, 13):
        log = parse(document([GpuState(values={"ecc_sbe_vol_total": 7, "ecc_dbe_vol_total": 9})], schema=schema))
        values = log.readings[0].values
        assert (values["ecc_sbe_vol_total"], values["ecc_dbe_vol_total"]) == (7, 9)
        assert (values["power_usage"], values["power_limit"]) == (9.87, 250.0)


def _comparable(title: str) -> bool:
    """Not what moved between the two answers, or is not told by the text, or the fake does not know."""
    if title.partition(".")[0] in ("timestamp", "power", "clocks", "temperature", "ecc", "hostname"):
        return False
    try:
        known_field(title.partition(" [")[0])
    except Usage:
        return False
    return True


def test_its_csv_is_that_of_the_recorded_program(tmp_path: Path) -> None:
    """Header and cells of every field it knows, for the H100 and H200 of the captures, from their `-q` text."""
    compared = 0
    for file in sorted(recording("nvidia_smi_captures").glob("*.txt")):
        text = file.read_text()
        query = text.partition("# load :: query (-q)")[2].partition("# load :: query-gpu")[0]
        table = text.partition("# load :: query-gpu (csv")[2].split("#" * 80 + "\n")[1].splitlines()
        head, row = ([cell.strip() for cell in line] for line in csv.reader(table[:2]))
        smi = FakeSmi(tmp_path / file.stem, as_xml(query))
        told = {title: cell for title, cell in zip(head, row, strict=True) if _comparable(title)}
        fields = ",".join(title.partition(" [")[0] for title in told)
        code, found = run(smi, f"--query-gpu={fields}", "--format=csv")
        assert code == 0
        head, row = csv.reader(found.splitlines(), skipinitialspace=True)
        assert head == list(told)
        known = {title: cell for title, cell in zip(head, row, strict=True) if cell not in ("[N/A]", "")}
        compared += len(known)
        assert known == {title: told[title] for title in known}, file.name
    assert compared >= 40
