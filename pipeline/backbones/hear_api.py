"""Our audio backbones behind the HEAR API (arXiv 2203.03022), as hear-eval-kit and others call it.

    import stillwave.pipeline.backbones.hear_api as module
    model = module.load_model("configs/backbones/wav2vec2.yaml")
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)

`audio` is (n_sounds, n_samples) in [-1, 1] at `model.sample_rate`, all of it valid.
"""

import torch
from torch import Tensor, nn

from stillwave.pipeline.audio.decode import resample
from stillwave.pipeline.backbones import Backbone, build_backbone, load_backbone
from stillwave.pipeline.backbones.fbank import FbankConfig

SAMPLE_RATES = (16000, 22050, 44100, 48000)  # Hz; those that the API allows


class HearModel(nn.Module):
    """A backbone with the attributes that HEAR asks for.

    sample_rate: Hz of the audio to pass: the backbone's own, or the next one of SAMPLE_RATES, which is then
        resampled on the CPU.
    timestamp_embedding_size, scene_embedding_size: the backbone's dim, times the layers it keeps.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if backbone.modality != "audio" or backbone.sample_rate is None:
            raise ValueError(f"{type(backbone).__name__} encodes text; a HEAR module needs an audio backbone")
        if backbone.sample_rate > SAMPLE_RATES[-1]:
            raise ValueError(
                f"`sample_rate` {backbone.sample_rate} Hz: a HEAR module has at most {SAMPLE_RATES[-1]} Hz"
            )
        self.backbone = backbone
        self.backbone_rate = backbone.sample_rate
        self.shortest = backbone.shortest()
        self.sample_rate = next(rate for rate in SAMPLE_RATES if rate >= backbone.sample_rate)
        self.timestamp_embedding_size = self.scene_embedding_size = backbone.dim * backbone.num_layers

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(sounds, samples) -> embeddings (sounds, frames, size), and the frames' centres in ms, (frames,).

        Audio too short for a frame is padded with zeros to the shortest that gives one.
        """
        waveforms = audio.float()
        if self.sample_rate != self.backbone_rate:
            rows = [resample(row.cpu().numpy(), self.sample_rate, self.backbone_rate) for row in waveforms]
            waveforms = torch.stack([torch.from_numpy(row) for row in rows]).to(audio.device)
        missing = self.shortest - waveforms.shape[1]
        waveforms = nn.functional.pad(waveforms, (0, max(0, missing)))
        lengths = torch.full((len(waveforms),), waveforms.shape[1], device=audio.device)
        if self.backbone.channels == 2:
            waveforms = waveforms[..., None].expand(-1, -1, 2)
        values, lengths = self.backbone(waveforms, lengths)
        times = self.backbone.frame_times(int(lengths[0]))
        return values[:, : int(lengths[0])].flatten(2), (1000 * times).float().to(audio.device)


def load_model(model_file_path: str = "") -> HearModel:
    """The backbone that a YAML of configs/backbones/ describes; fbank where none is named."""
    if not model_file_path:
        return HearModel(build_backbone(FbankConfig(kind="fbank")))
    return HearModel(build_backbone(load_backbone(model_file_path)))


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings (n_sounds, n_timestamps, size) float32, and their centres in ms (n_sounds, n_timestamps)."""
    if audio.ndim != 2:
        raise ValueError(f"audio of shape {tuple(audio.shape)}: a HEAR module takes (n_sounds, n_samples)")
    if not isinstance(model, HearModel):
        raise ValueError(f"model is a {type(model).__name__}: pass what load_model of this module returned")
    embeddings, times = model.to(audio.device)(audio)
    return embeddings, times.expand(len(audio), -1)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding per sound, (n_sounds, size) float32: the mean of those at the timestamps."""
    embeddings, _ = get_timestamp_embeddings(audio, model)
    return embeddings.mean(1)
