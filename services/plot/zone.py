"""The machine's time zone as a tzinfo that follows summer time; `datetime.astimezone()` only gives fixed offsets."""

from __future__ import annotations

import datetime as dt
import time


class LocalZone(dt.tzinfo):
    """By the C library, so the TZ variable and /etc/localtime count."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(seconds=self._of(moment).tm_gmtoff)

    def dst(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1) if self._of(moment).tm_isdst > 0 else dt.timedelta(0)

    def tzname(self, moment: dt.datetime | None) -> str:
        return self._of(moment).tm_zone

    def fromutc(self, moment: dt.datetime) -> dt.datetime:
        seconds = moment.replace(tzinfo=dt.UTC).timestamp()
        local = time.localtime(seconds)
        fold = int(local.tm_isdst == 0 and _wall(time.localtime(seconds - 3600)) == _wall(local))
        return dt.datetime(*local[:6], moment.microsecond, tzinfo=self, fold=fold)

    def _of(self, moment: dt.datetime | None) -> time.struct_time:
        if moment is None:
            return time.localtime()
        return time.localtime(moment.replace(tzinfo=None).timestamp())


def _wall(local: time.struct_time) -> tuple[int, ...]:
    return tuple(local[:6])
