"""Kinds: unions of configs that a field ``kind`` tells apart, written short as the kind's name; knows no such config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import pydantic

from wgpu_nn.nn import Config

KIND, OWN = "kind", "own"


class Kind(Config):
    """One of several configs for the same place; ``kind`` says which."""

    kind: str = pydantic.Field(description="which of them")


def kinds_of(union: Any) -> dict[str, type[Kind]]:
    """Return the configs of a union of kinds by their names, None and lists aside; there are none in other types."""
    if isinstance(union, type) and issubclass(union, Kind):
        return {cast(str, union.model_fields[KIND].default): union}
    found: dict[str, type[Kind]] = {}
    for inner in get_args(union):
        found |= kinds_of(inner)
    return found


def spelled(value: object) -> Any:
    """Return a kind's name as the config it stands for: "adam" is {"kind": "adam"}, "net:NetConfig" one of the user's."""
    if isinstance(value, list):
        return [spelled(v) for v in cast(list[object], value)]
    if not isinstance(value, str):
        return value
    return {KIND: OWN, "name": value} if ":" in value else {KIND: value}


def all_spelled(config: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields' values of a ``config`` with kinds spelled out; one that is left out is the default's."""
    found = dict(values)
    for name, info in config.model_fields.items():
        if name in found and kinds_of(info.annotation):
            found[name] = spelled(found[name])
            if isinstance(found[name], dict) and isinstance(info.default, Kind):
                found[name] = {KIND: info.default.kind, **found[name]}
    return found


def part(union: Any, description: str, default: Any = ...) -> Any:
    """Declare a field of kinds, or of a list of them; its JSON schema has their names, which ``all_spelled`` spells out."""

    def short(schema: dict[str, Any]) -> None:
        names = list(kinds_of(union))
        text: list[dict[str, Any]] = [{"enum": [name for name in names if name != OWN], "type": "string"}]
        if OWN in names:
            text.append({"pattern": ".+:.+", "type": "string"})
        place = schema.get("items", schema)
        moved = {key: place.pop(key) for key in ("oneOf", "discriminator", "$ref") if key in place}
        place["anyOf"] = [*text, *([moved] if moved else []), *place.pop("anyOf", [])]

    return pydantic.Field(default=default, description=description, json_schema_extra=short)
