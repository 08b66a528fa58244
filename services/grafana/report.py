"""What an import did: for people, for programs, and what went wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from services.grafana.folders import Folder
from services.grafana.importing import Outcome
from services.grafana.sources import Source
from services.grafana.words import visible

SAFE = "Running it again is safe: what is as it should be is left alone"


@dataclass(frozen=True, slots=True)
class Result:
    """Of one import. `sources` and `missing` by variable."""

    url: str
    version: str
    folder: Folder
    sources: dict[str, Source]
    missing: dict[str, str]
    dashboards: list[Outcome]

    @property
    def ok(self) -> bool:
        return all(outcome.status not in ("failed", "not tried") for outcome in self.dashboards)


def document(result: Result, *, dry_run: bool) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "dry_run": dry_run,
        "url": result.url,
        "grafana_version": result.version,
        "folder": asdict(result.folder),
        "data_sources": [_source(source) for source in result.sources.values()],
        "dashboards": [asdict(outcome) for outcome in result.dashboards],
    }


def _source(source: Source) -> dict[str, Any]:
    return {
        "uid": source.uid,
        "name": source.name,
        "type": source.type,
        "status": source.status,
        "reason": source.reason,
        "differs": source.differs,
        "provisioned": source.provisioned,
    }


def lines(result: Result) -> list[str]:
    """For people, on stdout."""
    found = [f"Grafana {result.version} at {result.url}"]
    for source in result.sources.values():
        status = f"{source.status}, {source.reason}" if source.reason else source.status
        found.append(f"data source {visible(source.name)} (uid {visible(source.uid)}): {status}")
    uid = f" (uid {visible(result.folder.uid)})" if result.folder.uid else ""
    found.append(f"folder {visible(result.folder.title)}{uid}: {result.folder.status}")
    width = max((len(o.status) for o in result.dashboards), default=0)
    found += [f"{o.status:<{width}}  {o.title:<24}  {_said(o)}".rstrip() for o in result.dashboards]
    return found + _left_out(result.dashboards)


def _left_out(outcomes: list[Outcome]) -> list[str]:
    """A line for each dashboard that is not there to be led to."""
    uids = sorted({uid for outcome in outcomes for uid in outcome.without_links_to})
    return [
        f"links to {uid} are left out, there is no such dashboard in this Grafana; an import with a Prometheus data "
        "source makes it and puts them back"
        for uid in uids
    ]


def problems(result: Result) -> list[str]:
    """For people, on stderr: warnings, and each failure in one line."""
    found = [f"warning: {_differing(source)}" for source in result.sources.values() if source.differs]
    failed = [o for o in result.dashboards if o.status == "failed"]
    return found + [_stopped(o, result) if o.ends else f"{o.title}: {o.reason}" for o in failed]


def already(sources: dict[str, Source], folder: Folder | None = None, dashboards: list[Outcome] | None = None) -> str:
    """What was written before something failed: `; already done: ...`; empty for nothing."""
    done = [f"data source {visible(source.name)} created" for source in sources.values() if source.status == "created"]
    if folder is not None and folder.status == "created":
        done.append(f"folder {visible(folder.title)} created")
    done += [f"{o.title} {o.status}" for o in dashboards or [] if o.status in ("created", "updated")]
    return f"; already done: {', '.join(done)}. {SAFE}" if done else ""


def _stopped(failed: Outcome, result: Result) -> str:
    rest = ", ".join(o.title for o in result.dashboards if o.status == "not tried")
    left = f"; not tried: {rest}" if rest else ""
    done = already(result.sources, result.folder, result.dashboards) or f"; nothing was written. {SAFE}"
    return f"stopped at {failed.title}: {failed.reason}{left}{done}"


def _said(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return "see below"
    if outcome.url and outcome.reason:
        return f"{outcome.url}  ({outcome.reason})"
    return outcome.url or outcome.reason or ""


def _differing(source: Source) -> str:
    change = (
        "It is provisioned: change it in its file"
        if source.provisioned
        else "Change it in Grafana under Connections -> Data sources, or delete it there and run this again"
    )
    return (
        f"data source {visible(source.name)} (uid {visible(source.uid)}) was there and is left as it is, but "
        f"{'; '.join(source.differs)}. {change}"
    )
