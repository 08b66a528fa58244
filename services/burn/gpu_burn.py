"""What gpu_burn says while it runs and at its end. Pure.

Its output: progress overwritten with carriage returns (`12.3%  proc'd: 40 (5000 Gflop/s) - ...   errors: 0 - 0   temps:
61 C - 60 C`; the error counts start again at every tenth), and at the end `GPU 0: OK` or `GPU 0: FAULTY` a line. Its
exit status is 0 for faulty GPUs too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

VERDICT: Final = re.compile(r"^\s*GPU (\d{1,4}): (OK|FAULTY)\s*$")
_LISTED: Final = re.compile(r"^GPU (\d{1,4}): .*\(UUID: ")
"""It begins with `nvidia-smi -L`, which lists every GPU of the host."""
_TESTED: Final = re.compile(r"^\s*Tested (\d{1,4}) GPUs:")
_REFUSED: Final = re.compile(r"^\s*Couldn't init a GPU test")
_ERRORS: Final = re.compile(r"proc'd:.*?errors: (.*?)(?:\s+temps:|$)")
_COUNT: Final = re.compile(r"(-?\d{1,18})\s*(\(DIED!\))?")
"""`0 - 12  (WARNING!)- -1  (DIED!)`: one per GPU, the dash between them sometimes without its space."""
PROGRESS: Final = re.compile(r"^\s*\d+(\.\d+)?%\s+proc'd:")

SHOWN: Final = 200
"""Characters of an error of its own."""


@dataclass(slots=True)
class Findings:
    """By gpu_burn's GPU number."""

    verdicts: dict[int, str] = field(default_factory=dict)
    """`OK` or `FAULTY`, as it said at its end."""
    errors: dict[int, int] = field(default_factory=dict)
    """Wrong results counted, all tenths together."""
    died: set[int] = field(default_factory=set)
    """Whose process failed during the run."""
    chosen: bool = False
    """Only some of the host's GPUs were asked to be tested: of those it lists, others may have no verdict."""
    listed: set[int] = field(default_factory=set)
    tested: int = 0
    """How many it says it tested."""
    refused: str = ""
    """The first GPU test that could not begin, as it said."""
    _now: dict[int, int] = field(default_factory=dict)

    def take(self, line: str) -> None:
        """One line, or one overwriting of the progress line."""
        verdict = VERDICT.match(line)
        if verdict:
            self.verdicts[int(verdict[1])] = verdict[2]
        elif listed := _LISTED.match(line):
            self.listed.add(int(listed[1]))
        elif tested := _TESTED.match(line):
            self.tested = int(tested[1])
        elif _REFUSED.match(line) and not self.refused:
            self.refused = " ".join(line.split())[:SHOWN]
        found = _ERRORS.search(line)
        for number, count in enumerate(_COUNT.finditer(found[1]) if found else ()):
            self._count(number, int(count[1]), died=count[2] is not None)

    def _count(self, number: int, count: int, *, died: bool) -> None:
        if died:
            self.died.add(number)
        count = max(count, 0)
        last = self._now.get(number, 0)
        self.errors[number] = self.errors.get(number, 0) + (count - last if count >= last else count)
        self._now[number] = count

    @property
    def faults(self) -> list[str]:
        """One line per GPU that is not sound."""
        numbers = sorted({*self.verdicts, *self.errors})
        return [f"GPU {n}: {self._fault(n)}" for n in numbers if self._fault(n)]

    @property
    def doubts(self) -> list[str]:
        """Why its silence about faults proves nothing: sound is what it said is OK, and nothing else."""
        named = {*self.errors, *(() if self.chosen else self.listed), *range(self.tested)}
        missing = [f"GPU {number}" for number in sorted(named - self.verdicts.keys())]
        silent = [f"no verdict on {', '.join(missing[:16])}"] if missing else []
        if not self.verdicts and not missing:
            silent = ["no verdict on any GPU"]
        return [*silent, *([self.refused] if self.refused else [])]

    def _fault(self, number: int) -> str:
        said = [] if self.verdicts.get(number, "OK") == "OK" else ["FAULTY"]
        if self.errors.get(number):
            said.append(f"{self.errors[number]} wrong results")
        if number in self.died:
            said.append("its process died")
        return ", ".join(said)


def chunks(text: str) -> tuple[list[str], str]:
    """(finished lines and overwritings, what is still being written)."""
    *done, rest = re.split(r"[\r\n]", text)
    return [line for line in done if line.strip()], rest
