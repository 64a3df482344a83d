"""ONNX graphs as a backbone: a front end where there is one, then an encoder of windows or whole clips."""

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
TOLERANCE = 1e-5  # between a window's numbers alone and beside another one
REMEDY = "set the fields to what the graph does, which its model card says"

Array = NDArray[np.float32]


class OnnxConfig(BackboneConfig):
    """One or two ONNX graphs. A file is a path, or `package:name/file` for one in an installed package.

    graph: of the encoder. front: of what runs before it on the whole waveform, such as a log-mel graph.
    sha256, front_sha256: of the files; another file of that name is then refused.
    sample_rate: Hz. input_scale: what the waveform, in [-1, 1], is multiplied by first.
    front_window, front_hop: samples that a frame of `front` sees, and from one to the next.
    front_scale, front_offset: its frames are multiplied by the one, then the other is added.
    sees: `window`: the encoder takes windows of fixed length, each of which gives one frame; `clip`: it
        takes a clip of any length and gives its frames.
    pad: samples of silence put before and behind a clip. Half of what a frame sees puts the first frame's
        centre at the clip's start, and the last one's at its end.
    window, hop: what a frame of the encoder sees, and from one to the next; in frames of `front`, or in
        samples where there is none.
    precision: always fp32, for a graph says itself what it computes in.
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
    """What ONNX graphs make of a clip: one frame per window, or the frames of the whole clip.

    A front end, and an encoder of clips, get the items one by one and without padding: some graphs scale by
    the loudest of all that they are given. Windows of all items meet in one batch, unless the graph mixes
    them, which is tried when it is loaded. So is the number of frames, which must follow from `window` and
    `hop`. Graphs run on the CPU, or by CUDA where onnxruntime has it; they hold no weights that torch knows.
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
        return max(0, (length + 2 * self.config.pad - self.first_window) // self.hop_length + 1) * (
            length > 0
        )

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
            alone, beside = (
                self._run(window, "cpu"),
                self._run(np.concatenate([window, 1000 * window]), "cpu"),
            )
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
        check_sha256(path, sha256, f"`{field}` {name}")
        self.content, self.sha256 = _read(path, f"`{field}` {name}")
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
        import onnxruntime

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


def _read(path: Path, where: str) -> tuple[bytes, str]:
    """A graph with all its tensors, and the sha256 of both. Tensors outside the file's folder are refused."""
    import onnx
    from onnx.external_data_helper import _get_all_tensors, load_external_data_for_model, uses_external_data

    content = path.read_bytes()
    digest = hashlib.sha256(content)
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
