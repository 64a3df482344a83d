"""The speaker encoder of Resemblyzer (GE2E, arXiv 1710.10467): one vector of the voice per 1.6 s window."""

import hashlib
import io
import math
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import zero_padding
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import BackboneConfig
from stillwave.pipeline.backbones.mel_filters import slaney_filters
from stillwave.pipeline.backbones.numerics import compute_in, item_moments
from stillwave.pipeline.backbones.weights import check_sha256, local_path

SAMPLE_RATE, N_FFT, MEL_HOP, NUM_MELS = 16000, 400, 160, 40  # of the only trained model
WINDOW = 160  # mel frames
COVERED = 0.75  # of the last window, at least, unless it is the only one
QUIETEST_DB = -30.0  # clips below it, relative to full scale, are amplified to it
WINDOWS_AT_ONCE = 256


class ResemblyzerConfig(BackboneConfig):
    """Resemblyzer's speaker encoder.

    precision: always fp32. weights: its `pretrained.pt`: a path, or `package:name/file` for a file in an
    installed package. sha256: of that file; any other file of that name is refused.
    hop_s: seconds from one window to the next, rounded to 10 ms.
    """

    kind: Literal["resemblyzer"]
    precision: Literal["fp32"] = "fp32"
    weights: str = Field(min_length=1)
    sha256: str | None = None
    hop_s: float = Field(0.77, ge=0.01, le=WINDOW * MEL_HOP / SAMPLE_RATE)

    # The fingerprint has the loaded weights in their place.
    not_in_fingerprint: ClassVar[frozenset[str]] = BackboneConfig.not_in_fingerprint | {"weights", "sha256"}


class Resemblyzer(Backbone):
    """(256,) per window of 1.6 s, not negative and of length 1; those of one speaker have a high cosine.

    As Resemblyzer's `embed_utterance(..., return_partials=True)`: quiet clips are amplified, mel power (not
    its logarithm) goes through three LSTM layers, and the state after the last step through a linear layer
    and ReLU. Silence fills the last window, so every clip has at least one. Resemblyzer's `preprocess_wav`
    also cuts out long pauses, with a detector that is not part of the weights; this class does not.
    """

    config_type = ResemblyzerConfig
    config: ResemblyzerConfig
    modality = "audio"
    version = 1
    dim = 256
    sample_rate = SAMPLE_RATE
    first_centre = WINDOW * MEL_HOP / 2
    hop_length: int
    hann: Tensor
    filters: Tensor

    def __init__(self, config: ResemblyzerConfig) -> None:
        super().__init__()
        self.config = config
        self.step = round(config.hop_s * SAMPLE_RATE / MEL_HOP)  # mel frames from one window to the next
        self.hop_length = self.step * MEL_HOP
        self.lstm = nn.LSTM(NUM_MELS, self.dim, num_layers=3, batch_first=True)
        self.linear = nn.Linear(self.dim, self.dim)
        self._load()
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", slaney_filters(NUM_MELS, N_FFT, SAMPLE_RATE), persistent=False)

    def num_frames(self, length: int) -> int:
        started = (length // MEL_HOP + 1 - WINDOW) // self.step + 2  # the last one ends behind the clip
        covered = math.floor((length - COVERED * WINDOW * MEL_HOP) / self.hop_length) + 1
        return max(1, min(started, covered)) if length > 0 else 0

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        counts = [self.num_frames(length) for length in lengths.tolist()]
        lengths = self.checked(lengths, batch.device)
        places = [(row, number) for row, count in enumerate(counts) for number in range(count)]
        rows, numbers = send(torch.tensor(places).T.contiguous(), batch.device)
        with compute_in("fp32", batch.device):
            mels = self._mels(amplified(batch, lengths), max(counts))
            windows = mels.unfold(1, WINDOW, self.step)[rows, numbers].transpose(1, 2)
            vectors = torch.cat([self._vectors(part) for part in windows.split(WINDOWS_AT_ONCE)])
        values = vectors.new_zeros(len(batch), max(counts), self.dim).index_put((rows, numbers), vectors)
        return Frames(values, send(torch.tensor(counts), batch.device))

    def _mels(self, waveforms: Tensor, count: int) -> Tensor:
        """(batch, samples), 0 behind each item -> (batch, mel frames of `count` windows, 40).

        Frame t is centred on sample 160 * t.
        """
        frames = WINDOW + (count - 1) * self.step
        size = (frames - 1) * MEL_HOP + N_FFT
        padded = nn.functional.pad(waveforms, (N_FFT // 2, size))[:, :size]
        spectrum = torch.stft(padded, N_FFT, MEL_HOP, window=self.hann, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (self.filters @ power).transpose(1, 2)

    def _vectors(self, windows: Tensor) -> Tensor:
        """(windows, 160, 40) -> (windows, 256)."""
        states, _ = self.lstm(windows)
        return nn.functional.normalize(self.linear(states[:, -1]).relu(), dim=1)

    def _load(self) -> None:
        """Only the encoder's own parameters; what training needed besides is left out."""
        where = f"`weights` {self.config.weights}"
        path = local_path(self.config.weights, "weights")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{where}: {error.strerror}; give the path of Resemblyzer's pretrained.pt"
            ) from error
        check_sha256(hashlib.sha256(content).hexdigest(), self.config.sha256, where, path.name)
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["model_state"]
            own = {name: tensor for name, tensor in state.items() if name.startswith(("lstm.", "linear."))}
            self.load_state_dict(own)
        except (UnpicklingError, RuntimeError, LookupError, TypeError, AttributeError, EOFError) as error:
            remedy = "give Resemblyzer's pretrained.pt, or a checkpoint with the same `model_state`"
            raise ValueError(f"{where}: not a speaker encoder of Resemblyzer; {remedy}") from error

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"preprocessing": {"hop_length": self.hop_length}}


def amplified(batch: Tensor, lengths: Tensor) -> Tensor:
    """(batch, samples) fp32, 0 behind each item: quiet ones as loud as QUIETEST_DB, the others unchanged."""
    waveforms = zero_padding(batch.float(), lengths)
    mean, variance = item_moments(waveforms, lengths)
    loudness = (mean.square() + variance).sqrt()
    silence = torch.finfo(torch.float32).tiny
    return waveforms * (10 ** (QUIETEST_DB / 20) / loudness.clamp(min=silence)).clamp(min=1)
