"""FastConformer run by NVIDIA's NeMo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillwave.pipeline.backbones.fastconformer.conformer import SUBSAMPLING, Architecture
from stillwave.pipeline.backbones.fastconformer.mel import MelSettings
from stillwave.pipeline.backbones.fastconformer.nemo_file import SIZES, parse_nemo_config
from stillwave.pipeline.backbones.fastconformer.recorded import RecordedEncoder
from stillwave.pipeline.backbones.quiet import quiet


class NemoMel(nn.Module):
    """NeMo's preprocessor, without dither and narrow-band augmentation."""

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        preprocessor.featurizer.dither = 0.0
        preprocessor.featurizer.nb_augmentation_prob = 0.0
        preprocessor.featurizer.pad_to = 0

    def forward(self, batch: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `LogMel.forward`."""
        mels, num_frames = self.preprocessor(input_signal=batch, length=lengths)
        longest = batch.shape[1] // self.preprocessor.featurizer.hop_length
        return mels[..., :longest].transpose(1, 2), num_frames


def restore_nemo(source: Path | str) -> tuple[NemoMel, RecordedEncoder, Architecture, MelSettings]:
    """NeMo's preprocessor and encoder of a .nemo file (Path) or of a name in NeMo's catalogue (str)."""
    with quiet():
        model_class = import_nemo().models.ASRModel
        try:
            if isinstance(source, Path):
                model = model_class.restore_from(str(source), map_location="cpu")
            else:
                model = model_class.from_pretrained(source, map_location="cpu")
        except Exception as error:  # NeMo raises many kinds of errors
            raise ValueError(f"`weights` {source}: NeMo cannot restore it: {error}") from error
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(model.cfg, resolve=True)
    encoder = RecordedEncoder(model.encoder, _run)
    return NemoMel(model.preprocessor), encoder, *parse_nemo_config(config, str(source))


def build_nemo(
    architecture: Architecture, mel: MelSettings, state: Mapping[str, Tensor]
) -> tuple[NemoMel, RecordedEncoder]:
    """NeMo's preprocessor, and its encoder with these weights; RuntimeError if they do not fit."""
    with quiet():
        modules = import_nemo().modules
        encoder = modules.ConformerEncoder(
            **{theirs: getattr(architecture, ours) for ours, theirs in SIZES.items()},
            subsampling="dw_striding",
            subsampling_factor=SUBSAMPLING,
            subsampling_conv_channels=architecture.subsampling_channels,
            ff_expansion_factor=architecture.ff_dim // architecture.d_model,
            dropout_att=0.1,
        )
        preprocessor = modules.AudioToMelSpectrogramPreprocessor(
            sample_rate=mel.sample_rate,
            n_window_size=mel.win_length,
            n_window_stride=mel.hop_length,
            window_size=None,
            window_stride=None,
            features=mel.num_mels,
            n_fft=mel.n_fft,
            preemph=mel.preemphasis,
        )
    encoder.load_state_dict(state)
    return NemoMel(preprocessor), RecordedEncoder(encoder, _run)


def _run(model: Any, mels: Tensor, lengths: Tensor) -> object:
    return model(audio_signal=mels.transpose(1, 2), length=lengths)


def import_nemo() -> Any:
    """NeMo's package of speech models. ValueError with the remedy if it cannot be imported."""
    try:
        import nemo.collections.asr as asr  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            f"`implementation` nemo needs NeMo, which cannot be imported ({error}): "
            "pip install 'stillwave[nemo]', or set `implementation` to transformers or custom"
        ) from error
    return asr
