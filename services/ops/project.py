"""Files that are named relative to the project's directory, looked for from another one."""

from __future__ import annotations

from pathlib import Path

from services.settings import Settings


def misplaced(settings: Settings, field: str) -> str | None:
    """What to do where the default of `field` (a path of `Settings`) is used outside of any project directory; else
    None. A project's directory has a `.env`, which is read from the current directory only."""
    if field in settings.model_fields_set or Path(".env").exists():
        return None
    return f"{field.upper()} is not set and there is no .env here: set it, or go to the project's directory"
