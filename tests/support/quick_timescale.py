"""The embedded TimescaleDB for tests that look at the database and not at how it is started."""

from __future__ import annotations

from services.embedded.timescale import EmbeddedTimescale


class QuickTimescale(EmbeddedTimescale):
    """Compiles its WebAssembly once, fast, and does not optimise it: half of a start's 4 s of CPU went into that.

    It pays for a server of seconds; one that works for longer than that is as fast without (measured: 15 s of CPU).
    """

    def _command(self) -> list[str]:
        node, *arguments = super()._command()
        return [node, "--liftoff-only", *arguments]
