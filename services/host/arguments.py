"""Kinds of numbers on command lines; what is refused is refused before anything starts."""

from __future__ import annotations

from argparse import ArgumentTypeError


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def positive(text: str) -> float:
    value = not_negative(text)
    if value == 0:
        raise ArgumentTypeError(f"{text}: must be above 0")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"{text}: must be 1 or more")
    return value
