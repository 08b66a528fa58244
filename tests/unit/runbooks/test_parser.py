"""The reader of runbooks, and what both languages of a runbook must share."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from services.__main__ import ROLES
from tests.support.runbook import RunbookError, Step, steps

RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"
NOW = dt.datetime(2026, 1, 4, 6, tzinfo=dt.UTC)
NAMES = ("operations", "p40-nvidia-smi.ubuntu22")


def test_reads_steps_with_their_directives() -> None:
    text = (
        "# x\n```bash\na\nb\n```\n<!-- not run: why -->\n```bash\nc\n```\n```text\nno\n```\n"
        "<!-- run with: 180=1 900=@-1h -->\n```bash\nd 180 900 1800\n```\n"
        "<!-- background until: ready -->\n```bash\ne\n```\n<!-- exit code may be 1: why -->\n```sql\nf\n```\n"
    )
    first, skipped, changed, background, lenient = steps(text)
    assert (first.text, first.language, first.line) == ("a\nb", "bash", 2)
    assert skipped.not_run == "why"
    assert changed.script(NOW) == "d 1 2026-01-04T05:00:00+00:00 1800"
    assert background.until == "ready"
    assert (lenient.language, lenient.exit_code) == ("sql", 1)


def test_a_misspelt_directive_is_an_error() -> None:
    with pytest.raises(RunbookError, match="line 1"):
        steps("<!-- notrun: x -->\n```bash\na\n```\n")


def test_a_replacement_that_replaces_nothing_is_an_error() -> None:
    with pytest.raises(RunbookError, match="nothing to replace"):
        Step(1, "bash", "a 18", replacements=(("180", "1"),)).script(NOW)


def read(name: str, language: str) -> str:
    return (RUNBOOKS / f"{name}.{language}.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_steps(name: str) -> None:
    """So that running the English one proves both."""
    english, japanese = (steps(read(name, language)) for language in ("en", "ja"))
    assert [(s.language, s.text) for s in japanese] == [(s.language, s.text) for s in english]
    for ours, theirs in zip(japanese, english, strict=True):
        assert (ours.not_run is None) == (theirs.not_run is None)
        assert (ours.replacements, ours.until, ours.exit_code) == (theirs.replacements, theirs.until, theirs.exit_code)


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_chapters(name: str) -> None:
    english, japanese = (re.findall(r"^#+ (?:\d+(?:\.\d+)?)?", read(name, lang), re.MULTILINE) for lang in ("en", "ja"))
    assert japanese == english


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_link_leads_somewhere(name: str, language: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", read(name, language)):
        assert target.startswith("http") or (RUNBOOKS / target).exists(), target


def test_the_image_is_the_one_of_compose() -> None:
    compose = (RUNBOOKS.parents[1] / "docker" / "docker-compose.yml").read_text()
    for language in ("en", "ja"):
        (image,) = re.findall(r"timescale/timescaledb:\S+", read("operations", language))
        assert f"image: {image}\n" in compose


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_script_of_the_old_kit_has_its_successor(language: str) -> None:
    table = dict(re.findall(r"^\| `(bin/\w+\.\w+)[^|]*\| (.+) \|$", read("operations", language), re.MULTILINE))
    assert set(table) >= {
        "bin/init_db.sh", "bin/collect_once.py", "bin/flush_spool.py", "bin/set_status.sh", "bin/run_gpuburn.sh",
        "bin/run_ollama_coding_bench.sh", "bin/plot_temp.py", "bin/host_healthcheck.sh", "bin/uv.sh",
    }  # fmt: skip
    roles = {role.name for role in ROLES}
    for script, successor in table.items():
        for command in re.findall(r"`gpumon ([\w-]+)", successor):
            assert command in roles, script
