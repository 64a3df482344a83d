"""ONNX graphs as a backbone: an optional front end, then an encoder of windows or whole clips."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import BackboneConfig
from stillwave.pipeline.backbones.weights import check_sha256, local_path

WINDOWS_AT_ONCE = 64
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
TOLERANCE = 1e-5  # between the numbers of a window alone and next to another one
REMEDY = "set these fields to the graph's own, from its model card"

Array = NDArray[np.float32]


class OnnxConfig(BackboneConfig):
    """One or two ONNX graphs. A file is a path, or `package:name/file` for one in an installed package.

    graph: the encoder. front: a graph that runs before it on the whole waveform, for example log-mel.
    sha256, front_sha256: of the files; any other file of that name is refused.
    sample_rate: Hz. input_scale: factor on the waveform, which is in [-1, 1].
    front_window, front_hop: length and step of the frames of `front`, in samples.
    front_scale, front_offset: its frames are multiplied by the first, then the second is added.
    sees: `window`: the encoder takes windows of fixed length and gives one frame for each; `clip`: it takes
        a clip of any length and gives its frames.
    pad: samples of silence added before and after a clip. Half a window centres the first frame on the start
        of the clip.
    window, hop: length and step of the encoder's frames, in frames of `front`, or in samples without one.
    precision: always fp32; the graph determines its own arithmetic.
    """

    kind: Literal["onnx"]
    precision: Literal["fp32"] = "fp32"
    graph: str = Field(min_length=1)
    sha256: str | None = None
    front: str | None = None
    front_sha256: str | None = None
    sample_rate: int = Field(16000, ge=1000)
    input_scale: float = Field(1.0, gt=0)
    front_window: int = Field(1, ge=1)
    front_hop: int = Field(1, ge=1)
    front_scale: float = 1.0
    front_offset: float = 0.0
    pad: int = Field(0, ge=0)
    sees: Literal["window", "clip"] = "window"
    window: int = Field(ge=1)
    hop: int = Field(ge=1)

    # The fingerprint has the content of the files in their place.
    not_in_fingerprint: ClassVar[frozenset[str]] = BackboneConfig.not_in_fingerprint | {
        "graph", "sha256", "front", "front_sha256",
    }  # fmt: skip


class Onnx(Backbone):
    """Frames from ONNX graphs: one per window, or those of the whole clip.

    A front end, or an encoder of clips, gets one item at a time, without padding, because some graphs scale
    by the loudest value of the whole batch. Windows of all items share a batch, unless the graph mixes them.
    Loading tests that, and that the number of frames follows from `window` and `hop`. Graphs run on the CPU,
    or on CUDA if onnxruntime supports it.
    """

    config_type = OnnxConfig
    config: OnnxConfig
    modality = "audio"
    libraries = ("onnxruntime",)
    version = 1

    def __init__(self, config: OnnxConfig) -> None:
        super().__init__()
        self.config = config
        self.graph = GraphFile(config.graph, "graph", config.sha256)
        self.front = GraphFile(config.front, "front", config.front_sha256) if config.front else None
        self.sample_rate = config.sample_rate
        step = config.front_hop if self.front else 1
        self.hop_length: int = step * config.hop
        first = (config.window - 1) * step + (config.front_window if self.front else 1)
        self.first_window = first  # samples that the first frame sees
        self.first_centre = first / 2 - config.pad
        self.at_once = WINDOWS_AT_ONCE
        self.dim = self._probe()

    def num_frames(self, length: int) -> int:
        padded = length + 2 * self.config.pad
        return max(0, (padded - self.first_window) // self.hop_length + 1) if length > 0 else 0

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        self.checked(lengths, lengths.device)
        counts = [self.num_frames(length) for length in lengths.tolist()]
        waveforms = batch.detach().cpu().float().numpy()
        heard = [
            self._heard(waveform[:length], batch.device.type)
            for waveform, length in zip(waveforms, lengths.tolist(), strict=True)
        ]
        if self.config.sees == "clip":
            frames = [self._frames_of(self.graph, one, batch.device.type) for one in heard]
        else:
            windows = np.concatenate([self._windows(one) for one in heard])
            found = np.concatenate(
                [
                    self._run(windows[start : start + self.at_once], batch.device.type)
                    for start in range(0, len(windows), self.at_once)
                ]
            )
            frames = np.split(found, np.cumsum(counts)[:-1])
        self._check_counts([len(one) for one in frames], counts, lengths.tolist())
        values = nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in frames], batch_first=True)
        return Frames(values.to(batch.device), torch.tensor(counts, device=batch.device))

    def _heard(self, waveform: Array, device: str = "cpu") -> Array:
        """(samples,) -> what the encoder is given of it: (samples,), or (frames, bands) of the front end."""
        padded = np.pad(self.config.input_scale * waveform, self.config.pad)
        if self.front is None:
            return padded
        found = self._frames_of(self.front, padded, device)
        return self.config.front_scale * found + np.float32(self.config.front_offset)

    def _frames_of(self, graph: "GraphFile", item: Array, device: str) -> Array:
        """What a graph makes of one whole item: (frames, dim)."""
        found = graph(graph.shaped(item[None], f"a clip of {len(item)}"), device)
        if found.ndim < 2 or found.size != found.shape[-2] * found.shape[-1]:
            raise ValueError(
                f"`{graph.field}` {graph.name}: one clip gives {found.shape}; wanted are (1, frames, numbers)"
            )
        frames: Array = found.reshape(found.shape[-2:])
        return frames

    def _windows(self, heard: Array) -> Array:
        """(length, ...) -> (windows, window, ...)."""
        config = self.config
        cut = np.lib.stride_tricks.sliding_window_view(heard, config.window, axis=0)[:: config.hop]
        return np.ascontiguousarray(np.moveaxis(cut, -1, 1))

    def _run(self, windows: Array, device: str) -> Array:
        """(windows, window, ...) -> (windows, dim)."""
        found = self.graph(self.graph.shaped(windows, f"a window of {self.config.window}"), device)
        if found.size != len(windows) * found.shape[-1]:
            raise ValueError(
                f"`graph` {self.graph.name}: {len(windows)} windows give {found.shape}; wanted is one frame "
                "for each: set `sees: clip` for a graph that gives the frames of whatever it is given"
            )
        return found.reshape(len(windows), -1)

    def _probe(self) -> int:
        """The width of a frame. Raises ValueError where the graphs do not do what the config says."""
        generator = np.random.default_rng(0)
        least = max(1, self.first_window - 2 * self.config.pad)
        tried = [least, least + self.hop_length - 1, least + self.hop_length, least + 7 * self.hop_length + 3]
        noise = [0.1 * generator.standard_normal(int(length), np.float32) for length in tried]
        if self.front is not None:
            for waveform in noise:
                seen = len(waveform) + 2 * self.config.pad
                wanted = (seen - self.config.front_window) // self.config.front_hop + 1
                if (found := len(self._heard(waveform))) != wanted:
                    raise ValueError(
                        f"`front` {self.config.front}: {seen} samples give {found} frames; of "
                        f"front_window {self.config.front_window} and front_hop {self.config.front_hop} they "
                        f"would be {wanted}: {REMEDY}"
                    )
        with torch.no_grad():
            for waveform in noise:
                frames = self(torch.from_numpy(waveform[None]), torch.tensor([len(waveform)])).values
        if self.config.sees == "window":
            window = self._windows(self._heard(waveform))[:1]
            alone = self._run(window, "cpu")
            beside = self._run(np.concatenate([window, 1000 * window]), "cpu")
            if not np.abs(alone[0] - beside[0]).max() <= TOLERANCE * np.abs(alone).max():
                self.at_once = 1
        return int(frames.shape[-1])

    def _check_counts(self, found: Sequence[int], wanted: Sequence[int], lengths: Sequence[int]) -> None:
        for count, want, length in zip(found, wanted, lengths, strict=True):
            if count != want:
                raise ValueError(
                    f"`graph` {self.config.graph}: {length} samples give {count} frames; of window "
                    f"{self.config.window} and hop {self.config.hop} they would be {want}: {REMEDY}"
                )

    def fingerprint(self) -> dict[str, Any]:
        files = {one.field: one.sha256 for one in (self.front, self.graph) if one is not None}
        return super().fingerprint() | {"weights": files}


class GraphFile:
    """An ONNX file with one input and one output, ready to run on any device."""

    def __init__(self, name: str, field: str, sha256: str | None) -> None:
        self.name, self.field = name, field
        path = local_path(name, field)
        if not path.is_file():
            raise ValueError(f"`{field}` {name}: there is no such file")
        self.content, self.sha256 = _read(path, sha256, f"`{field}` {name}")
        self._sessions: dict[str, Any] = {}
        session = self._session("cpu")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or not outputs:
            names = ", ".join(one.name for one in inputs)
            raise ValueError(f"`{field}` {name}: it has {len(inputs)} inputs ({names}); it may have one")
        self.input, self.output = inputs[0].name, outputs[0].name
        self.rank = inputs[0].shape

    def __call__(self, values: Array, device: str) -> Array:
        found: Array = self._session(device).run([self.output], {self.input: values})[0]
        return found.astype(np.float32)

    def shaped(self, values: Array, what: str) -> Array:
        """`values` with axes of 1 where the input has them; ValueError where it has no place for them."""
        left = list(values.shape[1:])
        shape: list[int] = []
        for axis in self.rank[1:]:  # a number where it is fixed, else a name
            size = 1 if axis == 1 and left[:1] != [1] else left.pop(0) if left else 0
            shape.append(size if axis == size or not isinstance(axis, int) else 0)
        if left or 0 in shape:
            raise ValueError(
                f"`{self.field}` {self.name}: its input is {self.rank}, and {what} is {values.shape[1:]}"
            )
        return values.reshape(len(values), *shape)

    def _session(self, device: str) -> Any:
        import onnxruntime  # which is there: _read has imported it

        provider = PROVIDERS.get(device, PROVIDERS["cpu"])
        if provider not in onnxruntime.get_available_providers():
            provider = PROVIDERS["cpu"]
        if provider not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # as many batches run at once as there are threads
            options.log_severity_level = 4
            self._sessions[provider] = onnxruntime.InferenceSession(
                self.content, options, providers=[provider]
            )
        return self._sessions[provider]


def _read(path: Path, wanted: str | None, where: str) -> tuple[bytes, str]:
    """A graph with all its tensors, and the sha256 of both. Tensors outside the file's folder are refused.

    wanted: the sha256 of the file itself, if the config gives it.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        from onnx.external_data_helper import (
            _get_all_tensors,
            load_external_data_for_model,
            uses_external_data,
        )
    except ImportError as error:
        raise ValueError(
            f"kind onnx needs onnx and onnxruntime ({error}): pip install 'stillwave[onnx]'"
        ) from error
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    check_sha256(digest.hexdigest(), wanted, where, path.name)
    try:
        model = onnx.load_from_string(content)
        outside = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
        if outside:
            load_external_data_for_model(model, str(path.parent.resolve()))
            for tensor in outside:
                digest.update(tensor.raw_data)
            content = model.SerializeToString()
    except Exception as error:  # protobuf's, onnx's checker's, the file system's
        raise ValueError(f"{where}: not a whole ONNX model: {re.sub(chr(10), ' ', str(error))}") from error
    return content, digest.hexdigest()
