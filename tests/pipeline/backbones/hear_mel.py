"""A HEAR module as others write them: its own padding, random weights, and batches that it normalises."""

import torch
from torch import Tensor, nn

WINDOW = 1024
HOP_MS = 50


class Spectra(nn.Module):
    """Log spectra of reflection-padded windows around 0, 50, 100, ... ms, through an untrained layer."""

    timestamp_embedding_size = scene_embedding_size = 12

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.norm = nn.BatchNorm1d(WINDOW // 2 + 1)  # left in train mode, as modules come
        self.linear = nn.Linear(WINDOW // 2 + 1, 12).double()  # no seed of its own

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        times = torch.arange(0, audio.shape[1] / self.sample_rate * 1000, HOP_MS)
        padded = nn.functional.pad(
            audio, (WINDOW // 2, WINDOW // 2), mode="reflect"
        )  # fails on <= 512 samples
        places = (times * self.sample_rate / 1000).long()[:, None] + torch.arange(WINDOW)
        windows = padded[:, places.to(audio.device)] * torch.hann_window(WINDOW, device=audio.device)
        spectra = self.norm(torch.fft.rfft(windows).abs().add(1e-4).log().transpose(1, 2)).transpose(1, 2)
        values = self.linear(spectra.double()).float()
        return values - values.mean((0, 1)) / 2, times.expand(len(audio), -1)


def load_model(model_file_path: str = "") -> Spectra:
    """`model_file_path` is the sample rate: 16000 Hz gives 800 samples per hop, 22050 Hz 1102.5."""
    return Spectra(int(model_file_path or 16000))


def get_timestamp_embeddings(audio: Tensor, model: Spectra) -> tuple[Tensor, Tensor]:
    embeddings, times = model(audio)
    return embeddings, times


def get_scene_embeddings(audio: Tensor, model: Spectra) -> Tensor:
    return get_timestamp_embeddings(audio, model)[0].mean(1)
