"""Configurations: frozen, validated, saved as JSON; what a field means is left to the module that the config builds."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, cast, dataclass_transform, get_args

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema

from wgpu_nn.errors import ConfigError, RecordError
from wgpu_nn.files import write_atomic

__all__ = ["Config", "field", "pair"]


_Value = TypeVar("_Value")
_REQUIRED: Any = ...


class _UnknownBuilder(ConfigError, AttributeError):
    """A ``with_<field>`` of no field; an AttributeError too, so that hasattr and getattr's default answer as usual."""


def field(*, default: _Value = _REQUIRED, converter: Callable[[Any], _Value]) -> _Value:
    """Declare a field whose constructor argument goes through ``converter`` before it is checked.

    Type checkers take the argument's type from it: with ``channels: tuple[int, int] = field(converter=pair)``
    they accept ``Conv2dConfig([1, 8])`` beside ``Conv2dConfig((1, 8))``. At run time lists fit tuples in any case.
    """
    info = cast(FieldInfo, pydantic.Field(default=default))
    cast(list[object], info.metadata).append(pydantic.BeforeValidator(converter))
    return cast(Any, info)


def pair(value: Sequence[int]) -> tuple[int, int]:
    """Convert a list to a tuple; anything else is left as it is, for the field's own check to refuse by name."""
    return cast(tuple[int, int], tuple(value) if isinstance(value, list) else value)


@dataclass_transform(frozen_default=True, field_specifiers=(pydantic.Field, pydantic.PrivateAttr, field))
class _ConfigMeta(type(pydantic.BaseModel)):
    """Maps positional arguments to the fields without defaults.

    It stands in the metaclass because pydantic treats a model with an ``__init__`` of its own differently: nested
    configs would be validated as Python values, not as JSON, and refuse lists for tuples and strings for enums.
    """

    if not TYPE_CHECKING:  # a typed __call__ would hide the constructors that dataclass_transform synthesises

        def __call__(cls, *args, **kwargs):
            if cls.__init__ is not pydantic.BaseModel.__init__:
                return _explained(cls, cls.__name__, lambda: super(_ConfigMeta, cls).__call__(*args, **kwargs))
            return cls._build(cls.__name__, cls._named(args, kwargs))


def _let_lists_fit_tuples(node: Any, owner: type[pydantic.BaseModel]) -> None:
    """Wrap every tuple schema below ``node`` in place, so that a Python list passes where strict JSON's does.

    Not lax tuples: those take sets, dicts and generators as well. Nested models saw to theirs.
    """
    if isinstance(node, list):
        children: list[tuple[Any, Any]] = list(enumerate(cast(list[Any], node)))
    elif isinstance(node, dict):
        mapping = cast(dict[str, Any], node)
        if mapping.get("type") == "json-or-python" or (mapping.get("type") == "model" and mapping["cls"] is not owner):
            return
        # Defaults and metadata are values that happen to lie in a schema.
        children = [(key, child) for key, child in mapping.items() if key not in {"default", "metadata", "config"}]
    else:
        return
    for key, child in children:
        _let_lists_fit_tuples(child, owner)
        if isinstance(child, dict) and cast(dict[str, Any], child).get("type") == "tuple":
            tuples = cast(CoreSchema, child)
            python = core_schema.no_info_before_validator_function(_tuple_of_list, tuples)
            cast(Any, node)[key] = core_schema.json_or_python_schema(json_schema=tuples, python_schema=python)


def _tuple_of_list(value: object) -> object:
    return tuple(cast(list[object], value)) if isinstance(value, list) else value


class Config(pydantic.BaseModel, metaclass=_ConfigMeta):
    """Base of every configuration, the framework's and yours.

    Declare fields with types and, where there is one, a default::

        class ModelConfig(Config):
            num_classes: int
            hidden_size: int
            dropout: float = 0.5

        config = ModelConfig(10, 512).with_dropout(0.2)

    Positional arguments fill the fields without defaults in order of declaration. ``with_<field>(value)`` exists for
    every field and returns a changed copy. Values are never coerced (no ``"3"``, ``3.0`` or ``True`` for an int), but
    an int fits a float and a list fits a tuple. Two configs are equal when they are of one class and save the same.

    Raises ConfigError, naming the class and the field, for anything that does not fit.
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        populate_by_name=True,
        protected_namespaces=(),
        defer_build=True,  # a schema costs milliseconds, and most configs are never made
    )

    if TYPE_CHECKING:
        # The builders are made per field at run time; this is how a type checker sees them.
        def __getattr__(self, name: str) -> Callable[[object], Self]: ...

    else:

        def __getattr__(self, name):
            if name.startswith("with_"):
                raise _UnknownBuilder(
                    f"{type(self).__name__}.{name}: unknown field"
                    f"{_guess(name.removeprefix('with_'), type(self).model_fields)}; {_fields(type(self))}"
                )
            return super().__getattr__(name)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in cls.model_fields:
            # A builder of the same name written by hand, here or in a base, wins; an inherited one serves as it is.
            if not any(f"with_{name}" in base.__dict__ for base in cls.__mro__):
                setattr(cls, f"with_{name}", _builder(cls, name))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: pydantic.GetCoreSchemaHandler, /) -> CoreSchema:
        schema = handler(source)
        _let_lists_fit_tuples(handler.resolve_ref_schema(schema), cls)
        return schema

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a config from JSON: fills defaults; raises ConfigError for unknown, missing and ill-typed fields."""
        return cls._parse(f"{cls.__name__}.from_json", text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a config from a JSON file, as ``from_json`` does; raises ConfigError naming the file and the field."""
        where = f"{cls.__name__}.load: {os.fspath(path)}"
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{where}: expected a readable JSON file, got {error.strerror}; is the path right?"
            ) from error
        return cls._parse(where, text)

    def to_json(self) -> str:
        """Return the config as indented JSON, ending in a newline.

        NaN and the infinities are written as ``NaN`` and ``Infinity``, which Python's json reads; JSON itself has none.
        """
        try:
            return json.dumps(self.model_dump(mode="json", round_trip=True), indent=2, ensure_ascii=False) + "\n"
        except (PydanticSerializationError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{type(self).__name__}.to_json: expected values that JSON can hold, got {error}; "
                "give the field a type that pydantic can serialise"
            ) from error

    def identity(self) -> dict[str, Any]:
        """Return what tells a run of this config from others, as JSON holds it: all of it.

        Override it to leave out what may change where a run goes on, as the number of its epochs.
        """
        return cast(dict[str, Any], json.loads(self.to_json()))

    @classmethod
    def advice(cls) -> str:
        """Return what errors end with: the fields as they are declared."""
        return _fields(cls)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the config as JSON, whole or not at all; raises ConfigError when the file cannot be written."""
        text = self.to_json()
        try:
            write_atomic(path, text.encode())
        except RecordError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise ConfigError(
                f"{type(self).__name__}.save: {os.fspath(path)}: expected a writable place, got {reason}; "
                "create the folder, or choose another"
            ) from error

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Do as pydantic's, with ConfigError for its ValidationError."""
        return _explained(cls, cls.__name__, lambda: super(Config, cls).model_validate(obj, **options))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Do as pydantic's, with ConfigError for its ValidationError."""
        return _explained(cls, cls.__name__, lambda: super(Config, cls).model_validate_json(json_data, **options))

    @classmethod
    def _build(cls, where: str, values: Mapping[str, object]) -> Self:
        return _explained(cls, where, lambda: super(Config, cls).model_validate(values))

    @classmethod
    def _parse(cls, where: str, text: str | bytes) -> Self:
        return _explained(cls, where, lambda: super(Config, cls).model_validate_json(text))

    @classmethod
    def _named(cls, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        required = [name for name, info in cls.model_fields.items() if info.is_required()]
        if len(args) > len(required):
            raise ConfigError(
                f"{cls.__name__}: expected at most {len(required)} positional arguments ({', '.join(required)}), "
                f"got {len(args)}; pass fields with a default by name; {_fields(cls)}"
            )
        values = dict(zip(required, args, strict=False))
        for name in values:
            if name in kwargs:
                raise ConfigError(f"{cls.__name__}: field {name}: expected one value, got two; drop one")
        return {**values, **kwargs}

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise ConfigError(
                f"{type(self).__name__}: {name}: configs are frozen, got an assignment; "
                "use config = config.with_<field>(value)"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> Never:
        raise ConfigError(f"{type(self).__name__}: {name}: configs are frozen, got a deletion; build another config")

    # By what is saved, and not by value: a NaN must equal itself after a round trip.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_json() == cast(Config, other).to_json()

    def __hash__(self) -> int:
        return hash((type(self), self.to_json()))

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name in type(self).model_fields:
            yield name, getattr(self, name)

    def __str__(self) -> str:
        return repr(self)


def _builder(cls: type[Config], name: str) -> Callable[[Config, object], Config]:
    def with_field(self: Config, value: object) -> Config:
        values = {other: getattr(self, other) for other in type(self).model_fields}
        where = f"{type(self).__name__}.with_{name}"
        return type(self)._build(where, {**values, name: value})  # pyright: ignore[reportPrivateUsage]

    with_field.__name__ = f"with_{name}"
    with_field.__qualname__ = f"{cls.__qualname__}.with_{name}"
    with_field.__doc__ = f"Return a copy with ``{name}`` set to ``value``; raises ConfigError if it does not fit."
    return with_field


def _explained(cls: type[Config], where: str, validate: Callable[[], _Value]) -> _Value:
    try:
        return validate()
    except pydantic.ValidationError as error:
        problems = [_problem(cls, dict(details)) for details in error.errors(include_url=False)]
        between = "; " if len(problems) == 1 else "\n  "
        text = problems[0] if len(problems) == 1 else "\n  " + "\n  ".join(problems)
        raise ConfigError(f"{where}: {text}{between}{cls.advice()}") from error


def _problem(cls: type[Config], details: dict[str, Any]) -> str:
    """Say what one of pydantic's error rows means: which field, what was expected, what came."""
    kind, message, value = details["type"], str(details["msg"]), details["input"]
    name, owner = _place(cls, details["loc"])
    got = f"got {_short(value)} ({type(value).__name__})"
    if kind == "json_invalid":
        return f"expected JSON, got {_short(value)}: {message.removeprefix('Invalid JSON: ')}"
    if kind == "missing":
        return f"field {name}: expected a value, got none"
    if kind == "extra_forbidden":
        return f"field {name}: unknown field{_guess(str(details['loc'][-1]), owner.model_fields)}, {got}"
    if kind == "union_tag_invalid":
        return f"field {name}: expected one of {details['ctx']['expected_tags']}, got '{details['ctx']['tag']}'"
    if kind == "union_tag_not_found":
        return f"field {name}: expected a {details['ctx']['discriminator'].strip(chr(39))}, got none"
    if kind in {"value_error", "assertion_error"}:
        message = str(details["ctx"]["error"])
        if not name and ", got " in message:  # a rule over several fields says itself what came
            return message
    elif message.startswith("Input should be "):
        message = f"expected {message.removeprefix('Input should be ')}"
    return f"field {name}: {message}, {got}" if name else f"{message}, {got}"


def _place(cls: type[Config], loc: Sequence[object]) -> tuple[str, type[Config]]:
    """Return a place as people write it, and the config that it lies in; pydantic's has the tags of unions besides."""
    found: list[str] = []
    owner, inside = cls, [cls]
    for part in loc:
        tagged = [c for c in inside if any(part in get_args(f.annotation) for f in c.model_fields.values())]
        if len(inside) > 1 and tagged:
            inside = tagged[:1]
            continue
        found.append(str(part))
        if isinstance(part, str) and inside:
            owner = inside[0]
            info = owner.model_fields.get(part)
            inside = [] if info is None else _configs(info.annotation)
    return ".".join(found), owner


def _configs(annotation: object) -> list[type[Config]]:
    """Return the configs that a field may hold, in lists and unions too."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, Config) else []
    return [found for part in get_args(annotation) for found in _configs(part)]


def _guess(name: str, fields: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"


def _fields(cls: type[Config]) -> str:
    """Spell the fields as they would be declared: the way out of most errors."""
    rows: list[str] = []
    for name, info in cls.model_fields.items():
        annotation = cast(object, info.annotation)
        # tuple[int, int] is a type for isinstance, and its name would be "tuple".
        plain = isinstance(annotation, type) and not get_args(annotation)
        kind = cast(type, annotation).__name__ if plain else str(annotation).replace("typing.", "")
        default = "" if info.is_required() else " = ..." if info.default_factory else f" = {_short(info.default)}"
        rows.append(f"{name}: {kind}{default}")
    return f"the fields of {cls.__name__} are {', '.join(rows) or 'none'}"
