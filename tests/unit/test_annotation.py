"""Annotations of ranks and kinds: what they say, and what a call that does not fit is told."""

from __future__ import annotations

from typing import Any

import pytest

from wgpu_nn import Bool, Device, Float, Int, Module, Tensor, tensor
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.tensor import checked

CPU = Device("numpy")
F1, F2, I1, B1 = tensor([0.5], CPU), tensor([[0.5]], CPU), tensor([1], CPU), tensor([True], CPU)


@checked
def every(
    x: Tensor[1], y: Tensor[1, Int], z: Tensor[1, Bool] | None = None, *, w: Tensor[2] | None = None, n: int = 3
) -> Tensor[1]:
    return x if n == 3 else y


@checked
def pair(x: Tensor[2], flip: bool = False) -> tuple[Tensor[2], Tensor[1, Int]]:
    return (I1, x) if flip else (x, I1)  # pyright: ignore[reportReturnType]


@checked
def free(x: Tensor, other: Any = None) -> Tensor:
    return x


def test_an_annotation_prints_as_it_is_written() -> None:
    assert (
        repr(Tensor[3]) == "Tensor[3]"
        and repr(Tensor[3, Int]) == "Tensor[3, Int]"
        and repr(Tensor[3, Float]) == "Tensor[3]"
    )
    assert repr(Tensor[0, Bool] | None) == "Tensor[0, Bool] | None" and Tensor[2] == Tensor[2, Float] != Tensor[2, Int]
    assert repr(None | Tensor[1]) == "Tensor[1] | None"


@pytest.mark.parametrize("item", ["a", (1, 2), (1, Int, Int), True, 1.0, Int])
def test_an_annotation_of_nothing_known_is_refused(item: Any) -> None:
    with pytest.raises((KindError, ValueError)):
        Tensor[item]


def test_a_call_that_fits_goes_through() -> None:
    assert every(F1, I1) is F1 and every(F1, I1, B1, w=F2) is F1 and every(y=I1, x=F1, z=None) is F1
    assert pair(F2)[0] is F2 and free(I1) is I1 and free(F2) is F2
    assert every.__name__ == "every" and every.__wrapped__  # pyright: ignore


def test_a_call_that_does_not_fit_names_the_function_the_argument_and_both_types() -> None:
    with pytest.raises(ShapeError, match=r"every\(x\): expected a Tensor\[1\], got rank 2 of shape \[1, 1\]"):
        every(F2, I1)
    with pytest.raises(KindError, match=r"every\(y\): expected a Tensor\[1, Int\], got a Float tensor of shape \[1\]"):
        every(F1, F1)
    with pytest.raises(KindError, match=r"every\(z\): expected a Tensor\[1, Bool\] \| None, got a Int tensor"):
        every(F1, I1, I1)
    with pytest.raises(ShapeError, match=r"every\(w\)"):
        every(F1, I1, w=F1)
    with pytest.raises(
        KindError, match=r"every\(x\): expected a Tensor\[1\], got float; make it one with wgpu_nn.tensor\(\)"
    ):
        every(0.5, I1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(KindError, match=r"every\(x\): expected a Tensor\[1\], got NoneType"):
        every(None, I1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        every(F1)  # pyright: ignore[reportCallIssue]


def test_results_are_checked_and_those_of_a_tuple_one_by_one() -> None:
    with pytest.raises(KindError, match=r"every -> : expected a Tensor\[1\], got a Int tensor"):
        every(F1, I1, n=4)
    with pytest.raises(KindError, match=r"pair -> \[0\]: expected a Tensor\[2\], got a Int tensor"):
        pair(F2, flip=True)


def test_a_module_checks_all_its_forward_functions() -> None:
    class Two(Module):
        def forward(self, x: Tensor[2]) -> Tensor[2]:
            return x

        def encode(self, x: Tensor[1]) -> tuple[Tensor[1], Tensor[1]]:
            return x, x

        def plain(self, x: int) -> int:
            return x

    model = Two()
    assert model.forward(F2) is F2 and model.encode(F1)[1] is F1 and model.plain(3) == 3
    with pytest.raises(ShapeError, match=r"Two\.forward\(x\): expected a Tensor\[2\]"):
        model.forward(F1)
    with pytest.raises(ShapeError, match=r"Two\.encode\(x\)"):
        model.encode(F2)


def test_text_annotations_of_names_unknown_at_run_time_are_left_alone() -> None:
    def fn(x: Missing[Tensor[1]]) -> Tensor[1]:  # pyright: ignore  # noqa: F821
        return x

    assert checked(fn)(F1) is F1
