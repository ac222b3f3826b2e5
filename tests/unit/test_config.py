"""Config: constructors, builders, JSON round trips and what they refuse; no module is built here."""

import copy
import enum
import json
import math
import pickle
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpu_nn.errors import ConfigError
from wgpu_nn.nn.config import Config, field, pair


class ModelConfig(Config):
    num_classes: int
    hidden_size: int
    dropout: float = 0.5


class Conv2dConfig(Config):
    channels: tuple[int, int] = field(converter=pair)
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = field(converter=pair, default=(1, 1))


class Padding(enum.Enum):
    SAME = "same"
    VALID = "valid"


class Everything(Config):
    model: ModelConfig = ModelConfig(10, 512)
    maybe: ModelConfig | None = None
    padding: Padding = Padding.SAME
    paddings: tuple[Padding, ...] = (Padding.VALID,)
    mode: Literal["train", "eval"] = "train"
    axes: tuple[tuple[int, int], ...] | None = None
    layers: list[Conv2dConfig] = pydantic.Field(default_factory=list)
    rates: dict[str, float] = pydantic.Field(default_factory=dict)
    nan: float = math.nan
    low: float = -math.inf
    name: str = "ü\n"
    seed: int | str | None = None


class Wide(ModelConfig):
    width: int = 3


class Checked(Config):
    rate: float = 0.1

    @pydantic.field_validator("rate")
    @classmethod
    def _in_range(cls, rate: float) -> float:
        if not 0 <= rate <= 1:
            raise ValueError("expected a rate in 0..1")
        return rate


def loose(cls: type[Any]) -> Any:
    """The class without its static types, to call it wrongly."""
    return cls


def test_positions_fill_the_required_fields_in_order():
    assert ModelConfig(10, 512) == ModelConfig(hidden_size=512, num_classes=10)


def test_positions_and_keywords_mix():
    assert ModelConfig(10, hidden_size=3, dropout=0).dropout == 0.0


def test_lists_fit_tuples_in_python():
    config = Conv2dConfig([1, 8], kernel_size=(3, 3)).with_kernel_size([5, 5]).with_stride([2, 2])
    assert (config.channels, config.kernel_size, config.stride) == ((1, 8), (5, 5), (2, 2))


def test_lists_fit_nested_and_optional_tuples_in_python():
    assert loose(Everything)(axes=[[1, 2], (3, 4)]).axes == ((1, 2), (3, 4))


@pytest.mark.parametrize("value", [{1, 8}, {1: 1, 8: 8}, iter([1, 8]), "18", 3, [1], [1, 2, 3], [1, 2.0], [1, True]])
def test_what_is_no_list_of_two_ints_does_not_fit(value: object):
    with pytest.raises(ConfigError, match=r"Conv2dConfig: .*kernel_size"):
        loose(Conv2dConfig)([1, 8], value)


@pytest.mark.parametrize("value", ["3", 3.0, 1.5, True, None, [3], math.nan])
def test_nothing_but_an_int_fits_an_int(value: object):
    with pytest.raises(ConfigError, match="field hidden_size: expected a valid integer, got "):
        loose(ModelConfig)(10, value)
    text = json.dumps({"num_classes": 10, "hidden_size": value})
    with pytest.raises(ConfigError, match="field hidden_size: expected a valid integer, got "):
        ModelConfig.from_json(text)


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5]])
def test_nothing_but_a_number_fits_a_float(value: object):
    with pytest.raises(ConfigError, match="field dropout: expected a valid number, got "):
        ModelConfig(10, 512).with_dropout(value)
    with pytest.raises(ConfigError, match="field dropout: expected a valid number, got "):
        ModelConfig.from_json(json.dumps({"num_classes": 1, "hidden_size": 1, "dropout": value}))


def test_an_int_fits_a_float_and_becomes_one():
    assert isinstance(ModelConfig(1, 2, dropout=1).dropout, float)


def test_too_many_positions_name_the_class_and_the_fields():
    with pytest.raises(ConfigError, match=r"ModelConfig: expected at most 2 .*\(num_classes, hidden_size\), got 3"):
        loose(ModelConfig)(10, 512, 0.1)


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match="ModelConfig: field hidden_size: expected a value, got none"):
        loose(ModelConfig)(10)


def test_a_field_given_twice_is_named():
    with pytest.raises(ConfigError, match="ModelConfig: field num_classes: expected one value, got two"):
        loose(ModelConfig)(10, 512, num_classes=3)


def test_an_unknown_field_is_named_and_a_near_one_offered():
    with pytest.raises(ConfigError, match=r"field dropuot: unknown field \(did you mean dropout\?\)"):
        loose(ModelConfig)(10, 512, dropuot=0.3)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)num_classes.*hidden_size"):
        loose(ModelConfig)("a", "b")


def test_a_builder_returns_a_changed_copy():
    config = ModelConfig(10, 512)
    assert config.with_dropout(0.2) == ModelConfig(10, 512, dropout=0.2)
    assert config.dropout == 0.5


def test_every_field_has_a_builder_in_dir():
    assert {"with_num_classes", "with_hidden_size", "with_dropout"} <= set(dir(ModelConfig(1, 2)))
    assert loose(ModelConfig).with_dropout.__doc__


def test_builders_are_inherited_and_return_the_subclass():
    assert Wide(1, 2).with_dropout(0.1).with_width(4) == Wide(1, 2, dropout=0.1, width=4)
    assert type(Wide(1, 2).with_num_classes(3)) is Wide


def test_a_builder_written_by_hand_wins():
    class Clamped(Config):
        rate: float = 0.0

        def with_rate(self, value: float) -> "Clamped":
            return Clamped(rate=min(value, 1.0))

    class Further(Clamped):
        more: int = 1

    assert Clamped().with_rate(7).rate == 1.0
    assert Further().with_rate(7).rate == 1.0


def test_an_unknown_builder_is_a_config_error_that_names_the_fields():
    with pytest.raises(ConfigError, match=r"ModelConfig.with_dropuot: unknown field .*num_classes: int"):
        ModelConfig(1, 2).with_dropuot(3)


def test_an_unknown_builder_answers_hasattr_and_getattr():
    config: Any = ModelConfig(1, 2)
    assert not hasattr(config, "with_nothing")
    assert getattr(config, "with_nothing", 3) == 3


def test_other_unknown_attributes_are_attribute_errors():
    with pytest.raises(AttributeError, match="nope"):
        _ = ModelConfig(1, 2).nope


@pytest.mark.parametrize("name", ["dropout", "unknown"])
def test_assignment_is_refused_with_the_builder_as_way_out(name: str):
    with pytest.raises(ConfigError, match=r"frozen.*with_"):
        setattr(ModelConfig(1, 2), name, 0.1)


def test_deletion_is_refused():
    with pytest.raises(ConfigError, match="frozen"):
        del loose(ModelConfig)(1, 2).dropout


def test_a_validator_of_the_users_speaks_through_config_error():
    with pytest.raises(ConfigError, match=r"Checked.with_rate: field rate: expected a rate in 0..1, got 2"):
        Checked().with_rate(2)


def test_an_ill_typed_default_is_found_out():
    class Wrong(Config):
        rate: float = loose(str)("x")

    with pytest.raises(ConfigError, match="Wrong: field rate: expected a valid number"):
        Wrong()


def test_pydantic_entry_points_raise_config_error_too():
    with pytest.raises(ConfigError):
        ModelConfig.model_validate({"num_classes": 1})
    with pytest.raises(ConfigError):
        ModelConfig.model_validate_json("{")


def test_a_constructor_of_the_users_own_still_raises_config_error():
    class Own(Config):
        a: int

        def __init__(self, twice: Any) -> None:
            super().__init__(a=twice * 2)  # pyright: ignore[reportCallIssue]

    assert loose(Own)(3).a == 6
    with pytest.raises(ConfigError):
        loose(Own)("x")


def test_a_config_without_fields_works():
    class Empty(Config):
        pass

    assert Empty.from_json(Empty().to_json()) == Empty()


def test_repr_is_the_call_that_makes_it():
    assert repr(ModelConfig(10, 512)) == str(ModelConfig(10, 512))
    assert eval(repr(ModelConfig(10, 512))) == ModelConfig(10, 512)


def test_configs_of_two_classes_differ():
    class Twin(Config):
        rate: float = 0.1

    assert Twin() != Checked()


def test_equal_configs_hash_alike():
    assert len({Everything(), Everything.from_json(Everything().to_json())}) == 1


def test_configs_pickle_and_copy():
    config = Everything(axes=((1, 2),))
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_every_kind_of_field_survives_a_file(tmp_path: Path):
    config = Everything(
        maybe=ModelConfig(1, 2),
        paddings=(),
        mode="eval",
        axes=((1, 2), (3, 4)),
        layers=[Conv2dConfig([1, 8], (3, 3))],
        rates={"a": math.inf},
        seed="x",
    )
    config.save(tmp_path / "config.json")
    again = Everything.load(tmp_path / "config.json")
    assert again == config
    assert math.isnan(again.nan) and again.low == -math.inf and again.padding is Padding.SAME


@given(st.floats(), st.integers())
def test_every_number_survives_json(dropout: float, size: int):
    config = ModelConfig(size, 1, dropout=dropout)
    again = ModelConfig.from_json(config.to_json())
    assert again == config
    assert again.num_classes == size and (again.dropout == dropout or math.isnan(dropout))


def test_the_file_is_json_to_another_reader(tmp_path: Path):
    ModelConfig(10, 512).save(tmp_path / "config.json")
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"num_classes": 10, "hidden_size": 512, "dropout": 0.5}
    assert text.count("\n") == 5


def test_load_fills_defaults(tmp_path: Path):
    (tmp_path / "c.json").write_text('{"num_classes": 3, "hidden_size": 4}')
    assert ModelConfig.load(tmp_path / "c.json").dropout == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"num_classes": 3}', "field hidden_size: expected a value, got none"),
        ('{"num_classes": "3", "hidden_size": 4}', "field num_classes: expected a valid integer, got '3'"),
        ('{"num_classes": 3, "hidden_size": 4, "drop": 1}', r"field drop: unknown field \(did you mean dropout"),
        ("[1, 2]", "expected an object, got"),
        ("", "expected JSON"),
        ('{"num_classes": 3', "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("\0", "expected JSON"),
    ],
)
def test_load_names_the_file_the_field_and_what_was_expected(tmp_path: Path, text: str, said: str):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        ModelConfig.load(path)
    assert str(path) in str(caught.value)


def test_a_nested_field_is_named_by_its_path():
    with pytest.raises(ConfigError, match=r"field layers.0.stride.1: expected a valid integer, got 'x'"):
        Everything.from_json('{"layers": [{"channels": [1, 8], "kernel_size": [3, 3], "stride": [1, "x"]}]}')


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_config_error(data: bytes):
    with pytest.raises(ConfigError):
        ModelConfig.from_json(data)


def test_load_of_no_file_or_a_folder_is_a_config_error(tmp_path: Path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ConfigError, match="expected a readable JSON file"):
            ModelConfig.load(path)


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.json"
    ModelConfig(1, 2).save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        ModelConfig(3, 4).save(path)
    assert ModelConfig.load(path) == ModelConfig(1, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


def test_save_into_a_folder_that_is_a_file_is_a_config_error(tmp_path: Path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f" / "c.json", tmp_path / "none" / "c.json"):
        with pytest.raises(ConfigError, match="expected a writable place"):
            ModelConfig(1, 2).save(path)


def test_a_value_that_json_cannot_hold_is_a_config_error():
    class Loose(Config):
        anything: Any = None

    with pytest.raises(ConfigError, match=r"Loose.to_json"):
        Loose(anything=object()).to_json()
