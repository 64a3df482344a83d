"""Writing torch modules as ONNX files, and storing their weights as 8-bit integers."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.pipeline.backbones.quiet import quiet

OPSET = 20  # the first with a Fourier transform of any axis
FRONT_ENDS = ("Fbank", "LogMel")  # classes whose matrix products are of powers: eight bits do not span 100 dB
LARGEST = 2**31 - 2**24  # bytes; protobuf's limit for one file


def write_graph(
    module: nn.Module,
    names: Sequence[str],
    arguments: Sequence[Tensor],
    dynamic: Sequence[dict[int, str]],
    out: Path,
    facts: dict[str, str],
) -> None:
    """Trace `module`, whose forward gives a dict of tensors, and write it with `facts` as its metadata.

    names: of the inputs. arguments: examples of them. dynamic: the names of each one's dynamic axes; axes
    with the same name are equally long. Raises ValueError if ONNX cannot express the module.
    """
    _import_onnx()
    # Not by name: a name promises every length from 0 on, but a single frame is traced separately.
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in dynamic)
    with torch.no_grad():
        outputs = list(module(*arguments))
    with quiet(), torch.no_grad():
        try:
            traced = torch.export.export(module, tuple(arguments), dynamic_shapes=(shapes,), strict=False)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names),
                output_names=outputs,
                dynamic_shapes=list(dynamic),
                verbose=False,
            )
        except Exception as error:  # the tracer and the exporter raise their own kinds
            raise ValueError(
                f"this model cannot be written as ONNX ({_first_line(error)}); try --part head"
            ) from error
        assert program is not None
        program.model.metadata_props.update(facts)
        size = sum(tensor.nbytes for tensor in module.state_dict().values())
        program.save(out, external_data=size > LARGEST)


def quantize_weights(file: Path) -> None:
    """Replace the constant matrices of an ONNX file's matrix products by 8-bit integers, in place.

    The other factor is quantized while the graph runs, by its largest value (onnxruntime's dynamic
    quantization). Convolutions stay: on CPUs their integer kernels are slower than those for floats.
    """
    onnx = _import_onnx()
    data = file.with_name(f"{file.name}.data")  # holds weights that are too large for the file
    with quiet(), tempfile.TemporaryDirectory(dir=file.parent) as folder:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = onnx.load(file)
        kept = [node.name for node in model.graph.node if not _quantizes(node, model.graph)]
        facts = {entry.key: entry.value for entry in model.metadata_props}
        small = Path(folder) / file.name
        del model.graph.value_info[:]  # inferred shapes, which conflict with those that the quantizer infers
        quantize_dynamic(
            model,
            small,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            use_external_data_format=data.exists(),
        )
        large = sum(part.stat().st_size for part in Path(folder).iterdir()) > LARGEST
        written = onnx.load(small)
        onnx.helper.set_model_props(written, facts | {"quantized": '"int8"'})
        data.unlink(missing_ok=True)
        onnx.save(written, file, save_as_external_data=large, location=data.name)


def run_graph(file: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of an ONNX file under onnxruntime, on the CPU."""
    _import_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def _quantizes(node: Any, graph: Any) -> bool:
    """Whether a node is a matrix product of floats outside a filter bank."""
    classes = [entry.value for entry in node.metadata_props if entry.key.endswith("class_hierarchy")]
    if any(f".{name}'" in value for value in classes for name in FRONT_ENDS):
        return False
    wide = {tensor.name for tensor in graph.initializer if tensor.data_type != 1}  # 1 is float32
    return node.op_type in ("MatMul", "Gemm") and not wide.intersection(node.input)


def _import_onnx() -> Any:
    """The onnx package. ValueError with the remedy if something that export needs is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"export needs onnx, onnxscript and onnxruntime ({error}): pip install 'stillwave[onnx]'"
        ) from error
    return onnx


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause) else ''}"
