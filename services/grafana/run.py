"""Role `grafana`: put the dashboards into a Grafana over its HTTP API."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import warnings
from typing import Final, TextIO

from services.grafana import dashboards, sources
from services.grafana.address import parse
from services.grafana.client import Grafana
from services.grafana.credentials import Credentials
from services.grafana.errors import GrafanaError, NoSourceError
from services.grafana.folders import USUAL, Folder, chosen, find_or_create
from services.grafana.importing import Importer
from services.grafana.report import Result, already, document, lines, problems
from services.grafana.sources import Source
from services.grafana.transport import WHOLE_SECONDS, trusted
from services.grafana.words import fit
from services.settings import Settings

EXAMPLES: Final = """examples:
  GRAFANA_TOKEN=glsa_... gpumon grafana import --url http://grafana:3000
  gpumon grafana import --user admin --password ... --only host --datasource gpu-telemetry
  gpumon grafana import --create-datasource --ds-user grafana --ds-password ...    the database of PGHOST, PGPORT, ...
  gpumon grafana import --dry-run --json                                           what it would do
A token: Grafana -> Administration -> Service accounts, role Editor (Admin for --create-datasource).
Command lines are seen by other users of the host: there GRAFANA_TOKEN and GRAFANA_PASSWORD are the better way."""
_OLDEST: Final = 11
"""Major version: older ones lack routes, or take them and ignore fields (`folderUid` before 8), and panel options."""
_LONGEST: Final = 3600.0
"""Seconds a request may be given: longer than any proxy waits."""


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
    what.add_argument("--folder", metavar="TITLE",
                      help=f'in the root; made where it is missing; "" is the root (default: {USUAL})')  # fmt: skip
    what.add_argument("--folder-uid", metavar="UID",
                      help="instead: one that is there, in any place, also of several with one title")  # fmt: skip
    _source_arguments(command.add_argument_group("data sources"))
    command.add_argument("--timeout", type=_seconds, default=WHOLE_SECONDS, metavar="SECONDS",
                         help="for each request, until its answer is whole (default: %(default)g)")  # fmt: skip
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to {_LONGEST:g}")
    return seconds


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0: every dashboard is there as committed; 1: one is not; 2: the command line."""
    problem = _check(args, settings)
    if problem is not None:
        _complain([problem])
        return 2
    try:
        with warnings.catch_warnings():
            if args.insecure:
                warnings.simplefilter("ignore")  # urllib3's, at every request: --insecure was said once
            result = import_dashboards(args, settings)
    except GrafanaError as error:
        if args.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        _complain([str(error)])
        return 1
    if args.json:
        print(json.dumps(document(result, dry_run=args.dry_run)))
    else:
        _show(lines(result), sys.stdout)
    _complain(problems(result))
    return 0 if result.ok else 1


def _complain(found: list[str]) -> None:
    _show([f"gpumon grafana import: {line}" for line in found], sys.stderr)


def _show(found: list[str], stream: TextIO) -> None:
    """A title may hold what the terminal's alphabet has not."""
    encoding = stream.encoding or "utf-8"
    for line in found:
        print(fit(line).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _check(args: argparse.Namespace, settings: Settings) -> str | None:
    """What is wrong with the command line. What the shell hands over undecoded can be neither sent nor shown."""
    undecoded = [name for name, value in vars(args).items() if isinstance(value, str) and not _is_text(value)]
    if undecoded:
        return f"--{undecoded[0].replace('_', '-')} is not UTF-8"
    if args.folder is not None and args.folder_uid is not None:
        return "--folder or --folder-uid, not both"
    if args.token and (args.user or args.password):
        return "--token or --user with --password, not both"
    if args.password and not (args.user or settings.grafana_user):
        return "--password without --user"
    return _check_source(args, settings)


def _is_text(value: str) -> bool:
    return value == value.encode("utf-8", "replace").decode()


def _check_source(args: argparse.Namespace, settings: Settings) -> str | None:
    if args.create_datasource and args.datasource:
        return "--create-datasource or --datasource, not both"
    if args.create_datasource and not (args.ds_user and (args.ds_password or settings.grafana_ds_password)):
        return "--create-datasource needs --ds-user and --ds-password (or GRAFANA_DS_PASSWORD): a login that only reads"
    if not args.create_datasource and (args.ds_user or args.ds_password):
        return "--ds-user and --ds-password are for --create-datasource"
    return None


def import_dashboards(args: argparse.Namespace, settings: Settings) -> Result:
    """Raises GrafanaError where nothing can be done at all."""
    verify: bool | str = trusted(args.ca_file) if args.ca_file is not None else not args.insecure
    grafana = Grafana(args.url or settings.grafana_url, credentials(args, settings), verify, args.timeout)
    version = grafana.health()
    _check_version(version, grafana.url)
    if not grafana.has_login:
        raise GrafanaError(
            f"Grafana {version} answers at {grafana.url}; to write it needs a login: GRAFANA_TOKEN (or --token), or "
            "GRAFANA_USER and GRAFANA_PASSWORD (or --user and --password)"
        )
    known = dashboards.committed()
    wanted = [d for d in known if args.only is None or d.name in args.only]
    found, missing = _sources(grafana, args, settings, frozenset[str]().union(*(d.sources for d in wanted)))
    try:
        folder = _folder(grafana, args)
    except GrafanaError as error:
        raise GrafanaError(f"{error}{already(found)}") from None
    uids = {name: source.uid for name, source in found.items()}
    outcomes = Importer(grafana, folder, uids, missing, known, dry_run=args.dry_run).all(wanted)
    return Result(grafana.url, version, folder, found, missing, outcomes)


def _check_version(version: str, url: str) -> None:
    """One that does not say a number is taken for new enough."""
    major = re.match(r"(\d{1,3})\.", version)
    if major is not None and int(major[1]) < _OLDEST:
        raise GrafanaError(f"Grafana {version} answers at {url}; these dashboards need {_OLDEST} or newer: upgrade it")


def _folder(grafana: Grafana, args: argparse.Namespace) -> Folder:
    if args.folder_uid is not None:
        return chosen(grafana, args.folder_uid)
    return find_or_create(grafana, USUAL if args.folder is None else args.folder, dry_run=args.dry_run)


def credentials(args: argparse.Namespace, settings: Settings) -> Credentials | None:
    """The command line before the settings, a token before a password."""
    if args.token:
        return Credentials(token=args.token)
    if args.user or args.password:
        return _by_password(args, settings)
    if parse(args.url or settings.grafana_url).login is not None:
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
    """Of each variable needed: its data source, or why there is none. Without Prometheus the rest still goes;
    it is looked for first, so that nothing is written where it is named wrongly. It is looked for in any case: where
    there is none, links to what needs it lead nowhere."""
    there = sources.listed(grafana)
    missing: dict[str, str] = {}
    prometheus: Source | None = None
    try:
        prometheus = sources.choose(there, sources.PROMETHEUS, args.prometheus)
    except NoSourceError as error:
        if dashboards.PROMETHEUS in needed and (args.prometheus is not None or needed == {dashboards.PROMETHEUS}):
            raise
        missing[dashboards.PROMETHEUS] = str(error)
    postgresql = _postgresql(grafana, there, args, settings) if dashboards.POSTGRESQL in needed else None
    found = {dashboards.POSTGRESQL: postgresql, dashboards.PROMETHEUS: prometheus}
    return {name: source for name, source in found.items() if source is not None and name in needed}, missing


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
