"""Role `plot`: temperature or another metric over time, as PNG or SVG."""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import sys
from pathlib import Path
from typing import Any, Final

import psycopg

from services.plot.data import Picture, Series, Throttled
from services.plot.query import NothingToShowError, read
from services.plot.select import SHORT_NAMES, Selection, SelectionError, metric, parse_time, shown, time_range
from services.settings import Settings
from services.store.connect import StoreError, connect, one_line

DEFAULT_OUT: Final = Path("docs/images/gpu-temp.png")
_SUFFIXES: Final = (".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    short = ", ".join(n for n in SHORT_NAMES if n != "temperature")
    times = "ISO 8601, for example 2026-01-04T00:00:00+09:00; without an offset: local time"
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME",
        help=f"{short}, or any column of the catalogue; repeat for more panels (default temp)",
    )  # fmt: skip
    parser.add_argument("--hours", type=float, help="that many hours back from --end (default 6)")
    parser.add_argument("--start", metavar="TIME", help=times)
    parser.add_argument("--end", metavar="TIME", help="likewise (default now)")
    parser.add_argument("--status-tag", action="append", default=[], metavar="TAG", help="only rows with this tag")
    parser.add_argument("--exclude-prod", action="store_true", help="without rows of tag prod")
    parser.add_argument(
        "--include-memo", action="append", default=[], metavar="MEMO", help="only rows with exactly this memo; repeat"
    )
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="only GPUs of this host; repeat")
    parser.add_argument("--gpu", action="append", default=[], metavar="GPU", help="index or UUID (its begin); repeat")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="FILE", help=f".png or .svg ({DEFAULT_OUT})")
    parser.add_argument("--title", help="default: metrics and host")
    parser.add_argument("--json", action="store_true", help="what was drawn, as one JSON object on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: nothing to show, no database, or the file cannot be written; 2: wrong arguments."""
    try:
        selection = make_selection(args, dt.datetime.now(dt.UTC).astimezone())
        _check_out(args.out)
    except SelectionError as error:
        print(f"gpumon plot: {error}", file=sys.stderr)
        return 2
    try:
        with connect(settings, "plot", autocommit=True) as connection:
            picture = read(connection, selection)
        save(picture, args.out, args.title)
    except (NothingToShowError, StoreError) as error:
        return _fail(str(error))
    except psycopg.errors.UndefinedTable:
        return _fail("the database has no tables of ours yet: run `gpumon migrate`")
    except psycopg.Error as error:
        return _fail(f"the database refused: {one_line(error)}")
    except OSError as error:
        return _fail(f"--out {args.out}: {error.filename or args.out}: {error.strerror}")
    found = summary(picture, args.out)
    print(json.dumps(found) if args.json else text(found))
    return 0


def _fail(reason: str) -> int:
    print(f"gpumon plot: {reason}", file=sys.stderr)
    return 1


def make_selection(args: argparse.Namespace, now: dt.datetime) -> Selection:
    """From the command line. Raises SelectionError."""
    if not all(gpu.strip() for gpu in args.gpu):
        raise SelectionError("--gpu '': an index or the beginning of a UUID, please; without --gpu it is all of them")
    start, end = (parse_time(value) if value else None for value in (args.start, args.end))
    start, end = time_range(args.hours, start, end, now)
    return Selection(
        start=start,
        end=end,
        metrics=tuple(dict.fromkeys(metric(name) for name in args.metric or ["temp"])),
        hosts=tuple(args.host),
        gpus=tuple(args.gpu),
        tags=tuple(args.status_tag),
        exclude_prod=args.exclude_prod,
        memos=tuple(args.include_memo),
    )


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in _SUFFIXES:
        raise SelectionError(f"--out {out}: the name ends in {' or '.join(_SUFFIXES)}")


def save(picture: Picture, out: Path, title: str | None) -> None:
    """Draws and writes; directories are made, and a failure leaves no half a file. Raises OSError."""
    from PIL import Image  # noqa: PLC0415  # comes with matplotlib

    from services.plot.draw import DPI, figure  # noqa: PLC0415  # matplotlib takes half a second to import

    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.new")
    kind = out.suffix.lower().removeprefix(".")
    try:
        drawn = figure(picture, title)
        if kind == "svg":
            drawn.savefig(unfinished, format=kind, metadata={"Date": None})
        else:
            image = io.BytesIO()
            drawn.savefig(image, format=kind, dpi=DPI)
            # 256 colours are enough for lines and shades, and a third of the bytes.
            Image.open(image).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                unfinished, kind, optimize=True
            )
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def summary(picture: Picture, out: Path) -> dict[str, Any]:
    """What was drawn. Values in the unit shown; times ISO 8601, UTC."""
    return {
        "out": str(out),
        "start": _iso(picture.start),
        "end": _iso(picture.end),
        "source": picture.relation,
        "bucket_seconds": picture.bucket,
        "series": [_series(one) for one in picture.series],
        "runs": [
            {"host": r.hostname, "tag": r.tag, "memo": r.memo, "start": _iso(r.start), "end": _iso(r.end)}
            for r in picture.runs
        ],
        "throttled": [_held(one) for one in picture.throttled],
        "notes": list(picture.notes),
    }


def _series(series: Series) -> dict[str, Any]:
    found, how = series.summary(), shown(series.metric)
    low, mean, high = (round(v * how.factor, 3) for v in found) if found else (None, None, None)
    gpu = series.gpu
    return {
        "host": gpu.hostname, "gpu": gpu.index, "uuid": gpu.uuid, "model": gpu.model, "metric": series.metric.column,
        "unit": how.unit, "points": len(series.times), "min": low, "avg": mean, "max": high,
    }  # fmt: skip


def _held(held: Throttled) -> dict[str, Any]:
    return {
        "host": held.gpu.hostname, "gpu": held.gpu.index, "uuid": held.gpu.uuid, "start": _iso(held.start),
        "end": _iso(held.end), "seconds": round(held.end - held.start, 3), "by": "heat" if held.by_heat else "power",
    }  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """A line per series, and where the picture is."""
    lines = [
        f"{s['host']} GPU {s['gpu']} {s['model'] or ''}: {s['metric']} min {_number(s['min'])} avg {_number(s['avg'])} "
        f"max {_number(s['max'])} {s['unit']}, {s['points']} points"
        for s in found["series"]
    ]
    return "\n".join([*lines, *found["notes"], f"wrote {found['out']} (from {found['source']})"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
