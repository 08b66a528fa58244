"""The committed dashboards, made ready for one Grafana."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

POSTGRESQL: Final = "GRAFANA_DS_UID"
PROMETHEUS: Final = "PROMETHEUS_DS_UID"
"""Variables of the committed files that stand for the data source."""
_SHORT: Final = {"gpu-telemetry": "host", "gpu-detail": "gpu"}
"""Of those whose file is not called as people call them."""
_SERVERS: Final = frozenset({"id", "version"})
"""Fields that Grafana sets."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One file. `model`: as committed, with the variables in it."""

    name: str
    """What `--only` takes: host, fleet, gpu, pipeline, ..."""
    file: str
    model: dict[str, Any]

    @property
    def uid(self) -> str:
        return str(self.model["uid"])

    @property
    def title(self) -> str:
        return str(self.model["title"])

    @property
    def sources(self) -> frozenset[str]:
        """Which of the two variables it refers to."""
        text = json.dumps(self.model)
        return frozenset(name for name in (POSTGRESQL, PROMETHEUS) if f"${{{name}}}" in text)


def committed() -> list[Dashboard]:
    """All that come with this version, by name of the file."""
    found = [path for path in files("grafana").iterdir() if path.name.endswith(".json")]
    return [_read(path.name, path.read_text("utf-8")) for path in sorted(found, key=lambda path: path.name)]


def names() -> list[str]:
    """What `--only` takes."""
    return [name_of(path.name) for path in files("grafana").iterdir() if path.name.endswith(".json")]


def name_of(file: str) -> str:
    stem = file.removesuffix(".json")
    return _SHORT.get(stem, stem.removeprefix("gpu-"))


def _read(file: str, text: str) -> Dashboard:
    return Dashboard(name_of(file), file, json.loads(text))


def rendered(model: Mapping[str, Any], uids: Mapping[str, str]) -> dict[str, Any]:
    """The model with every `${VARIABLE}` of `uids` replaced. The variables themselves go: a picker that steers nothing
    would be left. Raises ValueError where a variable for a data source stays without a value."""
    replaced: dict[str, Any] = _replace(dict(model), {f"${{{name}}}": uid for name, uid in uids.items()})
    templating = replaced.get("templating", {})
    if "list" in templating:
        templating["list"] = [v for v in templating["list"] if not (v["type"] == "datasource" and v["name"] in uids)]
    left = re.findall(r"\$\{(\w+_DS_UID)\}", json.dumps(replaced))
    if left:
        raise ValueError(f"no data source for {', '.join(sorted(set(left)))}")
    return {**replaced, "id": None}


def without_links(model: Mapping[str, Any], uids: Collection[str]) -> dict[str, Any]:
    """The model without what leads to the dashboards `uids`: links at the top, of panels, of fields."""
    if not uids:
        return dict(model)
    leads_there = re.compile(rf"/d/({'|'.join(map(re.escape, sorted(uids)))})([/?#]|$)")

    def is_kept(value: Any) -> bool:
        url = value.get("url") if isinstance(value, dict) else None
        return not (isinstance(url, str) and leads_there.match(url))

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: pruned(inner) for key, inner in value.items()}
        return [pruned(inner) for inner in value if is_kept(inner)] if isinstance(value, list) else value

    found: dict[str, Any] = pruned(dict(model))
    return found


def _replace(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace(inner, words) for inner in value]
    if isinstance(value, str):
        for word, uid in words.items():
            value = value.replace(word, uid)
    return value


def content(model: Mapping[str, Any]) -> dict[str, Any]:
    """What people see of it, without what Grafana counts."""
    return {key: value for key, value in model.items() if key not in _SERVERS}


def fingerprint(model: Mapping[str, Any]) -> str:
    """Of the content; stands in the version's message. Grafana may rewrite a dashboard when it saves or reads it (a
    newer schema, its own minimal refresh): by this we know our own all the same."""
    text = json.dumps(content(model), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
