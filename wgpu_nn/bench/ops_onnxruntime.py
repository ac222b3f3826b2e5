"""ONNX Runtime's engines of the benchmarks of ops, on the CPU: a graph of one op each, inputs and result bound once."""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# No extra of ours brings onnxruntime.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from wgpu_nn.bench.engine import Engine, Label
from wgpu_nn.bench.exact import EPSILON, Arrays, conv_sizes
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.work import Item

Graph = tuple[list[Any], dict[str, np.ndarray]]  # nodes from in0, in1, ... to out, and constants


def _single(op: str, count: int, **attributes: Any) -> Callable[[Item], Graph]:
    return lambda item: ([helper.make_node(op, [f"in{i}" for i in range(count)], ["out"], **attributes)], {})


def _conv(item: Item) -> Graph:
    pad, groups = conv_sizes(item.sizes)[6:]
    return [helper.make_node("Conv", ["in0", "in1"], ["out"], pads=[pad] * 4, group=groups)], {}


def _scale(item: Item) -> Graph:
    numbers = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    nodes = [helper.make_node("Mul", ["in0", "two"], ["t"]), helper.make_node("Add", ["t", "one"], ["out"])]
    return nodes, numbers


def _sum(axes: list[int]) -> Callable[[Item], Graph]:
    node = lambda: helper.make_node("ReduceSum", ["in0", "axes"], ["out"], keepdims=0)
    return lambda item: ([node()], {"axes": np.array(axes, np.int64)})


def _layer_norm(item: Item) -> Graph:
    constants = {
        "scale": np.ones(item.sizes[1], np.float32),
        "bias": np.zeros(item.sizes[1], np.float32),
    }
    return [
        helper.make_node("LayerNormalization", ["in0", "scale", "bias"], ["out"], axis=1, epsilon=EPSILON)
    ], constants


def _attention(item: Item) -> Graph:
    nodes = [
        helper.make_node("Mul", ["in0", "scale"], ["q"]),
        helper.make_node("Transpose", ["in1"], ["k"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "in2"], ["out"]),
    ]
    return nodes, {"scale": np.array(1 / math.sqrt(item.sizes[-1]), np.float32)}


GRAPHS: dict[str, Callable[[Item], Graph]] = {
    "matmul": _single("MatMul", 2),
    "conv2d": _conv,
    "scale": _scale,
    "add": _single("Add", 2),
    "sum all": _sum([0, 1]),
    "sum rows": _sum([1]),
    "sum columns": _sum([0]),
    "softmax": _single("Softmax", 1, axis=1),
    "log_softmax": _single("LogSoftmax", 1, axis=1),
    "layer_norm": _layer_norm,
    "attention": _attention,
}
OPSET, IR = 17, 9


def prepare(item: Item, arrays: Arrays) -> Job:
    nodes, constants = GRAPHS[item.kind](item)
    described = [helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, a.shape) for i, a in enumerate(arrays)]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, item.row.out(item.sizes))
    held = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, item.kind.replace(" ", "_"), described, [out], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for i, a in enumerate(arrays):
        binding.bind_cpu_input(f"in{i}", a)
    result = np.empty(item.row.out(item.sizes), np.float32)
    binding.bind_output("out", "cpu", 0, np.float32, result.shape, result.ctypes.data)

    def fetch() -> np.ndarray:
        session.run_with_iobinding(binding)
        return result

    return Job(lambda: session.run_with_iobinding(binding), lambda: None, fetch)


def engines(work: Sequence[Item]) -> tuple[list[Engine], str]:
    """Return an engine for each item of one op, and what they run on."""
    held = Held()
    found: list[Engine] = [
        OpsEngine(Label("onnxruntime", "onnxruntime CPU", item.key), item, prepare, held)
        for item in work
        if item.kind in GRAPHS
    ]
    return found, f"onnxruntime {onnxruntime.__version__} CPU, onnx {onnx.__version__}"
