"""Small seeded ONNX graphs: a log-mel-like front end, an encoder of windows, an encoder of clips."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.pipeline.backbones.variants import BANDS, WINDOW


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / np.float32(
        shape[-1] ** 0.5
    )


def write(
    path: Path,
    nodes: list[tuple[str, list[str], list[str], dict[str, object]]],
    shape: list[int | str],
    constants: dict[str, NDArray[np.generic]],
    external: str | None = None,
) -> None:
    """A graph from `input` to `output`; external: the file of its tensors, as the graph names it."""
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **options) for kind, inputs, outputs, options in nodes],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if external is not None:
        onnx.external_data_helper.convert_model_to_external_data(model, location=external, size_threshold=0)
    onnx.save(model, path)


def write_graphs(folder: Path) -> None:
    """Two front ends, two encoders of windows, one of clips."""
    for number, name in enumerate(("front.onnx", "other_front.onnx")):
        write_front(folder / name, number)
    write(
        folder / "clip.onnx",
        [
            ("Unsqueeze", ["input", "one"], ["wave"], {}),
            ("Conv", ["wave", "filters"], ["bands"], {"strides": [320]}),
            ("Tanh", ["bands"], ["states"], {}),
            ("Transpose", ["states"], ["output"], {"perm": [0, 2, 1]}),
        ],
        ["batch", "samples"],
        {"one": np.array([1]), "filters": weights(2, 12, 1, 400)},
    )
    write_encoder(folder / "window.onnx")
    write_encoder(folder / "other.onnx", seed=3)


def write_front(path: Path, seed: int) -> None:
    """(batch, samples) -> (batch, 1, frames, bands): logarithms, none far below the loudest of the batch."""
    write(
        path,
        [
            ("Unsqueeze", ["input", "one"], ["wave"], {}),
            ("Conv", ["wave", "filters"], ["bands"], {"strides": [160]}),
            ("Abs", ["bands"], ["power"], {}),
            ("Clip", ["power", "floor"], ["clipped"], {}),
            ("Log", ["clipped"], ["logs"], {}),
            ("ReduceMax", ["logs"], ["loudest"], {"keepdims": 0}),
            ("Sub", ["loudest", "range"], ["least"], {}),
            ("Max", ["logs", "least"], ["cut"], {}),
            ("Transpose", ["cut"], ["frames"], {"perm": [0, 2, 1]}),
            ("Unsqueeze", ["frames", "one"], ["output"], {}),
        ],
        ["batch", "samples"],
        {
            "one": np.array([1]), "filters": weights(10 + seed, BANDS, 1, 400), "floor": np.float32(1e-6),
            "range": np.float32(3),
        },
    )  # fmt: skip


def write_encoder(path: Path, external: str | None = None, mixes: bool = False, seed: int = 1) -> None:
    """(windows, frames, bands, 1) -> (windows, 1, 1, 16). mixes: it also subtracts the mean over windows."""
    nodes: list[tuple[str, list[str], list[str], dict[str, object]]] = [
        ("Reshape", ["input", "flat"], ["row"], {}),
        ("MatMul", ["row", "weight"], ["product"], {}),
        ("Tanh", ["product"], ["states"], {}),
    ]
    if mixes:
        nodes += [
            ("ReduceMean", ["states"], ["mean"], {"axes": [0], "keepdims": 1}),
            ("Sub", ["states", "mean"], ["mixed"], {}),
        ]
    nodes.append(("Reshape", ["mixed" if mixes else "states", "pixels"], ["output"], {}))
    constants: dict[str, NDArray[np.generic]] = {
        "flat": np.array([0, WINDOW * BANDS]),
        "pixels": np.array([-1, 1, 1, 16]),
        "weight": weights(seed, 16, WINDOW * BANDS).T.copy(),
    }
    write(path, nodes, ["windows", WINDOW, BANDS, 1], constants, external)
