"""A config's fields as flags: --optimizer.lr 3e-4; knows no command, and of configs what their fields say."""

from __future__ import annotations

import argparse
import functools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

import pydantic
from pydantic_core import PydanticUndefined

from wgpu_nn.errors import ConfigError
from wgpu_nn.nn import Config
from wgpu_nn.runs.kinds import KIND, all_spelled, kinds_of

PREFIX = "field:"  # of what a parser keeps of flags, so that a field called run is none of the command's own


@dataclass(frozen=True, slots=True)
class Flag:
    """A field by its path; ``kinds`` are those of its section that have it, and empty where all do."""

    path: tuple[str, ...]
    annotation: Any
    default: Any
    text: str
    kinds: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path as it is typed."""
        return ".".join(self.path).replace("_", "-")


def flags_of(config: type[Config], above: tuple[str, ...] = ()) -> Iterator[Flag]:
    """Yield a flag for each field of ``config`` and of the configs in it; a section of kinds has those of all kinds."""
    for name, info in config.model_fields.items():
        path = (*above, name)
        default = None if info.default is PydanticUndefined else info.default
        text = info.description or ""
        kinds = {} if _many(info.annotation) else kinds_of(info.annotation)
        inner = [] if kinds or _many(info.annotation) else _configs(info.annotation)
        if name != KIND:  # a section's own flag says it
            yield Flag(path, info.annotation, default, text)
        if kinds:
            yield from _of_kinds(kinds, path)
        for section in inner:
            yield from flags_of(section, path)


def _of_kinds(kinds: Mapping[str, type[Config]], above: tuple[str, ...]) -> Iterator[Flag]:
    """Yield the flags of a section of ``kinds``, each field once."""
    found: dict[str, list[tuple[str, Flag]]] = {}
    for kind, config in kinds.items():
        for flag in flags_of(config, above):
            found.setdefault(flag.name, []).append((kind, flag))
    for same in found.values():
        first = same[0][1]
        types = list(dict.fromkeys(flag.annotation for _, flag in same))
        texts = list(dict.fromkeys(flag.text for _, flag in same if flag.text))
        defaults = {repr(flag.default) for _, flag in same}
        yield Flag(
            first.path,
            _union(types),
            first.default if len(defaults) == 1 else None,
            "; or: ".join(texts),
            () if len(same) == len(kinds) else tuple(kind for kind, _ in same),
        )


def add_flags(parser: argparse.ArgumentParser, flags: Sequence[Flag]) -> None:
    """Add the flags to a parser, a group for each section; names may be typed with underscores too."""
    parser.allow_abbrev = False  # --model.d must not become another flag when there are more of them
    groups: dict[str, Any] = {}
    for flag in sorted(flags, key=lambda flag: _section(flag) != ""):
        section = _section(flag)
        if section not in groups:
            groups[section] = parser.add_argument_group(f"fields of {section}" if section else "fields of the run")
        kept = {"dest": PREFIX + ".".join(flag.path), "default": argparse.SUPPRESS}
        plain = f"--{'.'.join(flag.path)}"
        for name, text in {
            plain: argparse.SUPPRESS,
            f"--{flag.name}": _help(flag),
        }.items():  # the second, if they are one
            if flag.annotation is bool:
                groups[section].add_argument(name, action=argparse.BooleanOptionalAction, help=text, **kept)
            else:
                groups[section].add_argument(name, metavar=_metavar(flag), help=text, **kept)


def _section(flag: Flag) -> str:
    """Return the group of a flag; the run's own fields have none."""
    section, *inside = flag.path
    head = (kinds_of(flag.annotation) and not _many(flag.annotation)) or _configs(flag.annotation)
    return section.replace("_", "-") if inside or head else ""


def given(args: argparse.Namespace) -> dict[tuple[str, ...], Any]:
    """Return what flags were given, by path: texts, and booleans."""
    found = {name.removeprefix(PREFIX): value for name, value in vars(args).items() if name.startswith(PREFIX)}
    return {tuple(name.split(".")): value for name, value in found.items()}


def overridden(
    config: type[Config], values: Mapping[str, Any], changes: Mapping[tuple[str, ...], Any]
) -> dict[str, Any]:
    """Return a config's ``values``, as JSON holds them, with those of flags instead.

    A section that was not there starts from the field's default; one of another kind starts from that kind's.
    """
    known = {flag.path: flag for flag in flags_of(config)}
    found = cast(dict[str, Any], json.loads(json.dumps(all_spelled(config, values))))
    for path in sorted(changes, key=len):  # a section's kind first, and then its fields
        flag, value = known[path], changes[path]
        read = parsed(value, flag.annotation) if isinstance(value, str) else value
        *sections, name = path
        place = found
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = _default(config, section) or ({KIND: flag.kinds[0]} if len(flag.kinds) == 1 else {})
            place = place[section]
        place[name] = read
        found = all_spelled(config, found)
    return found


def parsed(text: str, annotation: Any) -> Any:
    """Return the first reading of a flag's text that fits a field: JSON, a list with commas, text; else text as it is."""
    listed = [word.strip() for word in text.split(",")] if text else []
    if kinds_of(annotation):
        value = None if text == "none" else _json(text)
        return value if not isinstance(value, str) else listed if _many(annotation) else text
    for value in (_json(text), [_json(word) for word in listed], listed, text):
        try:
            _adapter(annotation).validate_json(json.dumps(value), strict=True)
        except pydantic.ValidationError:
            continue
        return value
    number = _json(text)
    return number if isinstance(number, int | float | dict | list) else text


@functools.cache
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _default(config: type[Config], section: str) -> dict[str, Any]:
    default = config.model_fields[section].default
    return json.loads(default.to_json()) if isinstance(default, Config) else {}


def _configs(annotation: Any) -> list[type[Config]]:
    found = [annotation, *get_args(annotation)]
    return [a for a in found if isinstance(a, type) and issubclass(a, Config)]


def _many(annotation: Any) -> bool:
    return any(getattr(part, "__origin__", None) in (tuple, list) for part in (annotation, *get_args(annotation)))


def _union(types: Sequence[Any]) -> Any:
    return functools.reduce(operator.or_, types)


def _metavar(flag: Flag) -> str:
    kinds = kinds_of(flag.annotation)
    if kinds:
        return "NAME,..." if _many(flag.annotation) else "KIND"
    if get_origin(flag.annotation) is Literal:
        return "|".join(map(str, get_args(flag.annotation)))
    parts = {getattr(part, "__name__", "") for part in (flag.annotation, *get_args(flag.annotation))}
    for name, shown in (("dict", "JSON"), ("tuple", "A,B"), ("str", "TEXT"), ("float", "X"), ("int", "N")):
        if name in parts:
            return shown
    return "JSON"


def _help(flag: Flag) -> str:
    kinds = kinds_of(flag.annotation)
    more = [f"one of {', '.join(kinds)}" if not _many(flag.annotation) else f"of {', '.join(kinds)}"] if kinds else []
    if flag.kinds:
        more.append(f"of {', '.join(flag.kinds)}")
    if isinstance(flag.default, Config):
        more.append(f"default {getattr(flag.default, KIND, 'as below')}")
    elif flag.default is not None and flag.default != ():
        more.append(f"default {_shown(flag.default)}")
    text = f"{flag.text} ({'; '.join(more)})" if more else flag.text
    return text.replace("%", "%%")


def _shown(value: Any) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).lower()
        if value in (True, False)
        else f"{value}"
    )


def read_values(path: str) -> dict[str, Any]:
    """Return the object of a JSON file; ConfigError for other files."""
    try:
        with open(path, "rb") as file:
            values = json.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable JSON file, got {error.strerror}; is the path right?") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object of a run's fields, got {type(values).__name__}")
    return cast(dict[str, Any], values)
