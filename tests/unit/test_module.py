"""Modules: the tree of declared fields, and what can be done to its parameters."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, Module, Param, Tensor, tensor, zeros
from wgpu_nn.errors import KindError, RecordError, ShapeError
from wgpu_nn.nn import DropoutConfig, Linear, LinearConfig, ReLU

CPU = Device("numpy")


class Block(Module):
    linear: Linear
    activation: ReLU

    def forward(self, x: Tensor[2]) -> Tensor[2]:
        return self.activation.forward(self.linear.forward(x))


class Net(Module):
    blocks: list[Block]
    heads: dict[str, Linear]
    scale: Param
    name: str = "net"
    sizes: tuple[int, ...] = (1, 2)

    def forward(self, x: Tensor[2]) -> Tensor[2]:
        for block in self.blocks:
            x = block.forward(x)
        return self.heads["main"].forward(x) * self.scale.value

    def features(self, x: Tensor[2]) -> Tensor[2]:
        return self.blocks[0].forward(x)


def build(device: Device = CPU) -> Net:
    blocks = [Block(LinearConfig(3, 4).init(device), ReLU()), Block(LinearConfig(4, 4).init(device), ReLU())]
    heads = {"main": LinearConfig(4, 2).init(device), "other": LinearConfig(4, 1).with_bias(False).init(device)}
    return Net(blocks, heads, Param(tensor(2.0, device)))


PATHS = [
    *("blocks.0.linear.weight", "blocks.0.linear.bias", "blocks.1.linear.weight", "blocks.1.linear.bias"),
    *("heads.main.weight", "heads.main.bias", "heads.other.weight", "scale"),
]


def values(model: Module) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in model.state().items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_fields_make_the_constructor_in_order_with_defaults() -> None:
    model = build()
    assert model.name == "net" and list(model.fields()) == ["blocks", "heads", "scale", "name", "sizes"]
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Net([])  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Block(linear=model.heads["main"], activation=ReLU(), extra=1)  # pyright: ignore


def test_parameters_have_paths_in_order_of_declaration() -> None:
    model = build()
    assert [name for name, _ in model.named_params()] == PATHS and list(model.state()) == PATHS
    assert model.num_params() == 3 * 4 + 4 + 4 * 4 + 4 + 4 * 2 + 2 + 4 + 1
    assert model.device == CPU and ReLU().device is None


def test_a_module_has_any_number_of_forward_functions() -> None:
    model, x = build(), tensor(np.ones((5, 3)), CPU)
    assert model.forward(x).shape == (5, 2) and model.features(x).shape == (5, 4)


def test_a_shared_parameter_is_counted_once_and_stays_shared() -> None:
    shared = LinearConfig(3, 3).init(CPU)
    model = Net(
        [Block(shared, ReLU()), Block(shared, ReLU())], {"main": LinearConfig(3, 1).init(CPU)}, Param(tensor(1.0, CPU))
    )
    assert [n for n, _ in model.named_params()] == [
        "blocks.0.linear.weight",
        "blocks.0.linear.bias",
        "heads.main.weight",
        "heads.main.bias",
        "scale",
    ]
    assert model.num_params() == 12 + 4 + 1
    for copy in (model.clone(), model.to_device(CPU.autodiff()), model.freeze()):
        assert copy.blocks[0].linear.weight is copy.blocks[1].linear.weight
        assert copy.blocks[0].linear.weight is not shared.weight


def test_a_clone_changes_alone() -> None:
    model = build()
    before = values(model)
    copy = model.clone()
    assert_same(values(copy), before)
    copy.scale.value = tensor(9.0, CPU)
    copy.blocks.pop()
    copy.heads["new"] = copy.heads["main"]
    assert_same(values(model), before)
    assert copy.name == "net" and type(copy) is Net


def test_a_model_moves_to_other_devices_and_back() -> None:
    model = build()
    wide = model.to_device(Device("numpy:f64"))
    assert wide.device == Device("numpy:f64") and wide.scale.value.dtype.name == "f64" and model.device == CPU
    assert_same(values(wide.to_device(CPU)), values(model))


def test_parameters_on_an_autodiff_device_are_leaves_and_valid_is_without() -> None:
    model = build().to_device(CPU.autodiff())
    x = tensor(np.ones((2, 3)), CPU.autodiff())
    grads = model.forward(x).sum().backward()
    assert model.scale.value in grads and model.heads["other"].weight.value not in grads
    resting = model.valid()
    assert resting.device == CPU and resting.valid().device == CPU
    np.testing.assert_array_equal(resting.forward(x.inner()).numpy(), model.forward(x).numpy())


def test_frozen_parameters_have_no_gradient_and_do_not_count() -> None:
    model = build(CPU.autodiff())
    frozen = model.freeze()
    assert frozen.num_params() == 0 and model.num_params() == 51
    assert not any(p.trainable for p in frozen.params()) and all(p.trainable for p in model.params())
    mixed = Net(frozen.blocks, model.heads, model.scale)
    grads = mixed.forward(tensor(np.ones((2, 3)), CPU.autodiff())).sum().backward()
    assert mixed.blocks[0].linear.weight.value not in grads and mixed.scale.value in grads
    assert (
        not mixed.clone().blocks[0].linear.weight.trainable
        and not mixed.to_device(CPU).blocks[0].linear.weight.trainable
    )


def test_a_new_value_must_fit_its_parameter() -> None:
    p = Param(zeros((2, 3), CPU.autodiff()))
    p.value = tensor(np.ones((2, 3)), CPU)
    assert p.value.device == CPU.autodiff() and p.value.sum().backward()[p.value].shape == (2, 3)
    with pytest.raises(ShapeError, match=r"param: expected a Float tensor of shape \[2, 3\], got Float \[3\]"):
        p.value = zeros((3,), CPU)
    with pytest.raises(ShapeError, match="got Int"):
        p.value = tensor(np.zeros((2, 3), np.int32), CPU)
    assert (
        p.value.sum().item() == 6
        and repr(p) == "Param([2, 3])"
        and "not trained" in repr(Param(zeros((1,), CPU), trainable=False))
    )


def test_a_state_loads_whole() -> None:
    model, other = build(), build(CPU.autodiff())
    model.load_state(other.state())
    assert_same(values(model), values(other))
    assert model.device == CPU


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("scale"), r"load Net: .*another model: missing \['scale'\], unknown none"),
        (lambda s: s.update(extra=tensor(1.0, CPU)), r"missing none, unknown \['extra'\]"),
        (lambda s: s.update({"heads.main.bias": zeros(3, CPU)}), r"expected heads.main.bias of Float \[2\], got Float \[3\]"),
        (lambda s: s.update({"scale": tensor(1, CPU)}), r"expected scale of Float \[\], got Int \[\]"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(change: object, message: str) -> None:
    model = build()
    before = values(model)
    state = {name: t * 0.0 for name, t in model.state().items()}
    change(state)  # pyright: ignore[reportCallIssue]
    with pytest.raises(RecordError, match=message):
        model.load_state(state)
    assert_same(values(model), before)


def test_a_model_prints_as_a_tree_with_counts() -> None:
    lines = repr(build()).splitlines()
    assert lines[0] == "Net(name=net, sizes=(1, 2))  # 51 parameters"
    assert lines[1:4] == [
        "  blocks.0: Block()  # 16 parameters",
        "    linear: Linear(3 -> 4, bias=True)  # 16 parameters",
        "    activation: ReLU()",
    ]
    assert "  heads.other: Linear(4 -> 1, bias=False)  # 4 parameters" in lines
    assert repr(DropoutConfig(0.5).init()) == "Dropout(prob=0.5)"


def test_a_bare_tensor_is_no_field() -> None:
    class Bad(Module):
        weight: Tensor

    with pytest.raises(KindError, match=r"module: expected a Param at weight, got a bare Tensor; wrap it in Param"):
        Bad(zeros((2,), CPU)).params()


def test_a_module_may_inherit_and_override() -> None:
    class Wide(Block):
        factor: float = 2.0

        def forward(self, x: Tensor[2]) -> Tensor[2]:
            return super().forward(x) * self.factor

    x = tensor(np.ones((1, 3)), CPU)
    model = Wide(LinearConfig(3, 2).init(CPU), ReLU())
    np.testing.assert_allclose(model.forward(x).numpy(), 2 * Block.forward(model, x).numpy())
    with pytest.raises(ShapeError, match=r"Wide\.forward\(x\)"):
        model.forward(x[0])


def test_params_can_be_mapped() -> None:
    model = build()
    doubled = model.map_params(lambda p: Param(p.value * 2.0, p.trainable))
    assert_same(values(doubled), {k: 2 * v for k, v in values(model).items()})
