"""Role `grafana`: put the dashboards into a Grafana over its HTTP API."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from services.grafana import dashboards, sources
from services.grafana.client import Grafana
from services.grafana.credentials import Credentials
from services.grafana.errors import GrafanaError, NoSourceError
from services.grafana.folders import Folder, find_or_create
from services.grafana.importing import Importer, Outcome
from services.grafana.sources import Source
from services.settings import Settings

EXAMPLES: Final = """examples:
  GRAFANA_TOKEN=glsa_... gpumon grafana import --url http://grafana:3000
  gpumon grafana import --user admin --password ... --only host --datasource gpu-telemetry
  gpumon grafana import --create-datasource --ds-user grafana --ds-password ...    the database of PGHOST, PGPORT, ...
  gpumon grafana import --dry-run --json                                           what it would do
A token: Grafana -> Administration -> Service accounts, role Editor (Admin for --create-datasource).
Command lines are seen by other users of the host: there GRAFANA_TOKEN and GRAFANA_PASSWORD are the better way."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="import", required=True)
    command = actions.add_parser(
        "import", help="write the dashboards; what is there already and the same is left alone", epilog=EXAMPLES,
        description="Write the committed dashboards into a Grafana 11 or newer, each under its uid.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.add_argument("--url", help="of Grafana, with its sub-path where it has one (default: GRAFANA_URL)")
    login = command.add_argument_group("login")
    login.add_argument("--token", help="of a service account (default: GRAFANA_TOKEN)")
    login.add_argument("--user", help="default: GRAFANA_USER")
    login.add_argument("--password", help="default: GRAFANA_PASSWORD")
    tls = login.add_mutually_exclusive_group()
    tls.add_argument("--ca-file", metavar="FILE", help="of the CA that signed Grafana's certificate")
    tls.add_argument("--insecure", action="store_true", help="do not look at Grafana's certificate")
    what = command.add_argument_group("what")
    what.add_argument("--only", action="append", choices=sorted(dashboards.names()), metavar="NAME",
                      help=f"repeatable: {', '.join(sorted(dashboards.names()))} (default: all)")  # fmt: skip
    what.add_argument("--folder", default="GPU Health Monitor", metavar="TITLE",
                      help='made where it is missing; "" is the root (default: %(default)s)')  # fmt: skip
    _source_arguments(command.add_argument_group("data sources"))
    command.add_argument("--dry-run", action="store_true", help="look and say, write nothing")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _source_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--datasource", metavar="UID",
                       help=f"uid or name of a PostgreSQL one (default: {sources.POSTGRESQL.uid}, "
                       "else the only one)")  # fmt: skip
    group.add_argument("--prometheus", metavar="UID",
                       help=f"uid or name of a Prometheus one, for `pipeline` (default: {sources.PROMETHEUS.uid}, "
                       "else the only one, else `pipeline` is left out)")  # fmt: skip
    group.add_argument("--create-datasource", action="store_true",
                       help="make the PostgreSQL one where it is missing, from TIMESCALE_DSN or PGHOST, PGPORT, ...: "
                       "the names by which Grafana reaches the database")  # fmt: skip
    group.add_argument("--ds-user", metavar="USER", help="for it: a login that may only read, for example grafana")
    group.add_argument("--ds-password", metavar="PASSWORD", help="for it (default: GRAFANA_DS_PASSWORD)")


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
        return all(outcome.status != "failed" for outcome in self.dashboards)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0: every dashboard is there as committed; 1: one is not; 2: the command line."""
    problem = _check(args, settings)
    if problem is not None:
        print(f"gpumon grafana import: {problem}", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            if args.insecure:
                warnings.simplefilter("ignore")  # urllib3's, at every request: --insecure was said once
            result = import_dashboards(args, settings)
    except GrafanaError as error:
        if args.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(f"gpumon grafana import: {error}", file=sys.stderr)
        return 1
    print(json.dumps(_document(result, args.dry_run)) if args.json else _text(result))
    for source in (s for s in result.sources.values() if s.differs):
        print(f"gpumon grafana import: warning: {_differing(source)}", file=sys.stderr)
    for outcome in (o for o in result.dashboards if o.status == "failed"):
        print(f"gpumon grafana import: {outcome.title}: {outcome.reason}", file=sys.stderr)
    return 0 if result.ok else 1


def _check(args: argparse.Namespace, settings: Settings) -> str | None:
    if args.token and (args.user or args.password):
        return "--token or --user with --password, not both"
    if args.password and not (args.user or settings.grafana_user):
        return "--password without --user"
    if args.create_datasource and args.datasource:
        return "--create-datasource or --datasource, not both"
    if args.create_datasource and not (args.ds_user and (args.ds_password or settings.grafana_ds_password)):
        return "--create-datasource needs --ds-user and --ds-password (or GRAFANA_DS_PASSWORD): a login that only reads"
    if not args.create_datasource and (args.ds_user or args.ds_password):
        return "--ds-user and --ds-password are for --create-datasource"
    return None


def import_dashboards(args: argparse.Namespace, settings: Settings) -> Result:
    """Raises GrafanaError where nothing can be done at all."""
    verify: bool | str = args.ca_file or not args.insecure
    grafana = Grafana(args.url or settings.grafana_url, credentials(args, settings), verify)
    version = grafana.health()
    if not grafana.has_login:
        raise GrafanaError(
            f"Grafana {version} answers at {grafana.url}; to write it needs a login: GRAFANA_TOKEN (or --token), or "
            "GRAFANA_USER and GRAFANA_PASSWORD (or --user and --password)"
        )
    chosen = [d for d in dashboards.committed() if args.only is None or d.name in args.only]
    found, missing = _sources(grafana, args, settings, frozenset[str]().union(*(d.sources for d in chosen)))
    folder = find_or_create(grafana, args.folder, dry_run=args.dry_run)
    uids = {name: source.uid for name, source in found.items()}
    outcomes = Importer(grafana, folder, uids, dry_run=args.dry_run).all(chosen, missing)
    return Result(grafana.url, version, folder, found, missing, outcomes)


def credentials(args: argparse.Namespace, settings: Settings) -> Credentials | None:
    """The command line before the settings, a token before a password."""
    if args.token:
        return Credentials(token=args.token)
    if args.user or args.password:
        return _by_password(args, settings)
    if urlsplit(args.url or settings.grafana_url).username:
        return None  # the URL brings it
    if settings.grafana_token is not None:
        return Credentials(token=settings.grafana_token.get_secret_value())
    return _by_password(args, settings) if settings.grafana_user else None


def _by_password(args: argparse.Namespace, settings: Settings) -> Credentials:
    kept = settings.grafana_password.get_secret_value() if settings.grafana_password else None
    password = args.password or kept
    if password is None:
        raise GrafanaError("a user without a password: --password or GRAFANA_PASSWORD")
    return Credentials(user=args.user or settings.grafana_user, password=password)


def _sources(
    grafana: Grafana, args: argparse.Namespace, settings: Settings, needed: frozenset[str]
) -> tuple[dict[str, Source], dict[str, str]]:
    """Of each variable needed: its data source, or why there is none. Without Prometheus the rest still goes."""
    there = sources.listed(grafana)
    found: dict[str, Source] = {}
    missing: dict[str, str] = {}
    if dashboards.POSTGRESQL in needed:
        found[dashboards.POSTGRESQL] = _postgresql(grafana, there, args, settings)
    if dashboards.PROMETHEUS in needed:
        try:
            found[dashboards.PROMETHEUS] = sources.choose(there, sources.PROMETHEUS, args.prometheus)
        except NoSourceError as error:
            if args.prometheus is not None or needed == {dashboards.PROMETHEUS}:
                raise
            missing[dashboards.PROMETHEUS] = str(error)
    return found, missing


def _postgresql(grafana: Grafana, there: list[Source], args: argparse.Namespace, settings: Settings) -> Source:
    try:
        found = sources.choose(there, sources.POSTGRESQL, args.datasource)
        return sources.left(found, settings, args.ds_user) if args.create_datasource else found
    except NoSourceError as error:
        of_kind = [source for source in there if source.type in sources.POSTGRESQL.types]
        if not args.create_datasource:
            hint = "" if args.datasource or of_kind else "; --create-datasource makes one"
            raise GrafanaError(f"{error}{hint}") from None
    kept = settings.grafana_ds_password.get_secret_value() if settings.grafana_ds_password else ""
    return sources.create(grafana, settings, args.ds_user, args.ds_password or kept, dry_run=args.dry_run)


def _document(result: Result, dry_run: bool) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "dry_run": dry_run,
        "url": result.url,
        "grafana_version": result.version,
        "folder": asdict(result.folder),
        "data_sources": [
            {key: value for key, value in asdict(source).items() if key != "shown"}
            for source in result.sources.values()
        ],
        "dashboards": [asdict(outcome) for outcome in result.dashboards],
    }


def _differing(source: Source) -> str:
    return (
        f"data source {source.name} (uid {source.uid}) was there and is left as it is, but "
        f"{'; '.join(source.differs)}. Change it in Grafana under Connections -> Data sources (a provisioned one: in "
        "its file), or delete it there and run this again"
    )


def _said(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return "see below"
    if outcome.url and outcome.reason:
        return f"{outcome.url}  ({outcome.reason})"
    return outcome.url or outcome.reason or ""


def _text(result: Result) -> str:
    lines = [f"Grafana {result.version} at {result.url}"]
    for source in result.sources.values():
        status = f"{source.status}, {source.reason}" if source.reason else source.status
        lines.append(f"data source {source.name} (uid {source.uid}): {status}")
    lines.append(f"folder {result.folder.title}: {result.folder.status}")
    width = max((len(o.status) for o in result.dashboards), default=0)
    lines += [f"{o.status:<{width}}  {o.title:<24}  {_said(o)}".rstrip() for o in result.dashboards]
    return "\n".join(lines)
