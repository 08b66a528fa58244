"""`gpumon doctor`: collect, look, say what to do, pack everything into one file."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict

from services.collector import spool_files
from services.doctor import find_driver, find_health, find_host, reach
from services.doctor.collect import TIME_LIMIT, collect
from services.doctor.evidence import PROBES, Evidence, Facts, Output, Probe
from services.doctor.findings import Finding, Severity
from services.doctor.mask import mask
from services.settings import Settings, hostname, sudo_user

_MARKS: Final = {Severity.CRITICAL: "[!!]", Severity.WARNING: "[! ]", Severity.INFO: "[i ]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the bundle goes (default: LOG_DIR)")
    parser.add_argument("--no-bundle", action="store_true", help="look only, write nothing")
    parser.add_argument("--offline", action="store_true", help="do not ask Kafka, TimescaleDB and the exporter")
    parser.add_argument("--timeout", type=float, default=TIME_LIMIT, metavar="SECONDS", help="for each command")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: something critical was found, or the bundle could not be written."""
    told = _progress if sys.stderr.isatty() else _silent
    evidence = collect(PROBES, Path("/"), args.timeout, told)
    told("")
    facts = gather(settings, offline=args.offline)
    evidence = masked(evidence, secrets(settings))
    findings = diagnose(evidence, facts)
    report = summary(findings, evidence, facts, secrets(settings))
    try:
        bundle = None if args.no_bundle else write_bundle(args.out or settings.log_dir, evidence, report, findings)
    except OSError as error:
        print(f"gpumon doctor: the bundle cannot be written to {error.filename}: {error.strerror}; choose a place with "
              "--out, or --no-bundle", file=sys.stderr)  # fmt: skip
        print(report)
        return 1
    print(_json(findings, facts, bundle) if args.json else report + (f"\nbundle: {bundle}" if bundle else ""))
    return 1 if any(f.severity is Severity.CRITICAL for f in findings) else 0


def _progress(name: str) -> None:
    print(f"\r\033[K{name}", end="", file=sys.stderr, flush=True)


def _silent(_name: str) -> None:
    """Nobody watches."""


def gather(settings: Settings, *, offline: bool) -> Facts:
    """What our own parts say."""
    spool = settings.spool_dir
    records = sum(s.records for s in spool_files.look(spool)[0]) if spool.is_dir() else None
    return Facts(
        reach=() if offline else reach.all_of(settings),
        spool_records=records,
        directories=(str(spool.resolve()), str(settings.log_dir.resolve())),
        user=getpass.getuser(),
    )


def secrets(settings: Settings) -> tuple[str, ...]:
    """Passwords this configuration holds: hidden wherever they stand."""
    given = [settings.pgpassword.get_secret_value() if settings.pgpassword else ""]
    if settings.timescale_dsn is not None:
        given.append(str(conninfo_to_dict(settings.dsn).get("password") or ""))
    return tuple(secret for secret in given if secret)


def masked(evidence: Evidence, known: tuple[str, ...]) -> Evidence:
    return {name: dataclasses.replace(output, text=mask(output.text, known)) for name, output in evidence.items()}


def diagnose(evidence: Evidence, facts: Facts) -> list[Finding]:
    """All findings, worst first; within one severity in the order in which one would look."""
    found = [f for check in (*find_driver.CHECKS, *find_health.CHECKS) for f in check(evidence)]
    found += [f for check in find_host.CHECKS for f in check(evidence, facts)]
    return sorted(found, key=lambda f: list(Severity).index(f.severity))


def summary(findings: list[Finding], evidence: Evidence, facts: Facts, known: tuple[str, ...]) -> str:
    """What a person reads, and what goes into the bundle as `summary.txt`."""
    lines = [f"host {hostname()}, user {facts.user}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}"]
    lines += [f"  {r.name}: {r.problem or r.detail or 'answers'} ({r.address})" for r in facts.reach]
    failed = [name for name, output in evidence.items() if output.problem]
    lines.append(
        f"  {len(evidence)} probes, {len(failed)} without an answer" + (f": {', '.join(failed)}" if failed else "")
    )
    lines.append("")
    if not findings:
        lines.append("nothing found that is wrong")
    for finding in findings:
        lines.append(f"{_MARKS[finding.severity]} {finding.severity}: {finding.what}")
        lines += [f"     seen: {finding.evidence[:200]}"] if finding.evidence else []
        lines.append(f"     do:   {finding.do}")
    return mask("\n".join(lines), known)


def write_bundle(directory: Path, evidence: Evidence, report: str, findings: list[Finding]) -> Path:
    """`gpumon-doctor-<host>-<time>.tar.gz`, mode 0600. Raises OSError."""
    stem = f"gpumon-doctor-{hostname()}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.tar.gz"
    files = {
        "summary.txt": report + "\n",
        "findings.json": json.dumps([dataclasses.asdict(f) for f in findings], indent=1),
    }
    files |= {f"{probe.name}.txt": _page(probe, evidence[probe.name]) for probe in PROBES}
    path.touch(mode=0o600)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"{stem}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    _give_to_caller(path)
    return path


def _give_to_caller(path: Path) -> None:
    """Under sudo the bundle belongs to who asked for it, who could not read it otherwise."""
    owner = sudo_user()
    if owner is not None:
        os.chown(path, *owner)


def _page(probe: Probe, output: Output) -> str:
    asked = " ".join(probe.argv) if hasattr(probe, "argv") else probe.path
    head = f"# {asked}\n# why: {probe.why}\n"
    if output.problem:
        head += f"# no answer: {output.problem}\n"
    elif output.code:
        head += f"# exit code {output.code}\n"
    return head + output.text


def _json(findings: list[Finding], facts: Facts, bundle: Path | None) -> str:
    document: dict[str, Any] = {
        "host": hostname(),
        "findings": [dataclasses.asdict(f) for f in findings],
        "reach": [dataclasses.asdict(r) for r in facts.reach],
        "spool_records": facts.spool_records,
        "bundle": None if bundle is None else str(bundle),
    }
    return json.dumps(document)
