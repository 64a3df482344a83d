"""Backbone and head as one model: what fine-tuning trains, and what turns new audio into answers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.cache.fingerprint import differences
from stillwave.heads.devices import send
from stillwave.heads.outputs import Outputs
from stillwave.heads.wrapped import WrappedHead
from stillwave.pipeline.backbones import Backbone, Frames, build_backbone
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.config.backbone import BackboneConfig
from stillwave.pipeline.config.base import load_config, parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.runs.head import load_head, read_run, read_weights, untrained_head
from stillwave.pipeline.runs.tensors import load_state
from stillwave.pipeline.runs.unfreeze import unfreeze

FrameChange = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class LiveModel(WrappedHead):
    """Waveforms or token ids to logits: `encoders`, one per modality, and a `head` on their frames.

    It has the methods of a head, but reads, of each modality in turn, (batch, samples) or (batch, tokens) and
    lengths, 0 where an item lacks the modality; then the numbers of the speakers, if the head wants them.
    finetune: which parts of the encoders train; None for none, and then they are frozen.
    augment: of the first modality's frames, while training.
    """

    def __init__(
        self,
        encoders: Mapping[str, Backbone],
        head: nn.Module,
        finetune: Finetune | None = None,
        augment: FrameChange | None = None,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.head = head
        self.augment = augment
        self.trained: list[nn.Module] = []
        self.factors: dict[str, float] = {}  # of the learning rate, by the names of what trains
        for name, encoder in encoders.items():
            encoder.eval().requires_grad_(False)
            if finetune is not None:
                modules, factors = unfreeze(encoder, finetune)
                self.trained += modules
                self.factors |= {f"encoders.{name}.{key}": factor for key, factor in factors.items()}
        self.train_whole = finetune is not None and finetune.unfreeze == "all"
        kept = {id(t) for m in self.trained for t in (*m.parameters(), *m.buffers())}
        state = self.state_dict(keep_vars=True)
        self.frozen_names = frozenset(
            name for name, tensor in state.items() if name.startswith("encoders.") and id(tensor) not in kept
        )

    def train(self, mode: bool = True) -> "LiveModel":
        """As of any module, but what is frozen stays in eval mode."""
        super().train(mode)
        if not self.train_whole:
            self.encoders.eval()
            for module in self.trained:
                module.train(mode)
        return self

    def outputs(self, *inputs: Tensor) -> Outputs:
        """-> logits, features and uncertainty, as of the head."""
        values, lengths, *others = self.frames(*inputs)
        if self.augment is not None and self.training:
            seed = int(torch.randint(2**62, ()))  # of the stream that dropout draws from
            values, lengths = self.augment(values, lengths, torch.Generator().manual_seed(seed))
        found: Outputs = self.head.outputs(values, lengths, *others, *inputs[2 * len(self.encoders) :])
        return found

    def frames(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """-> of each modality in turn, the frames (batch, frames, [layers,] dim) and lengths (batch,)."""
        encoders = [encoder for encoder in self.encoders.values() if isinstance(encoder, Backbone)]
        pairs = zip(encoders, inputs[::2], inputs[1::2], strict=False)
        return tuple(tensor for pair in pairs for tensor in encode(*pair))


def encode(encoder: Backbone, values: Tensor, lengths: Tensor) -> Frames:
    """The frames of a batch of which some items, with the length 0, may have none. lengths: on the host."""
    there = lengths > 0
    if there.all():
        return encoder(values, lengths)  # type: ignore[no-any-return]
    if not there.any():
        shape = (encoder.num_layers, encoder.dim) if encoder.num_layers > 1 else (encoder.dim,)
        return Frames(
            torch.zeros(len(lengths), 1, *shape, device=values.device),
            torch.zeros(len(lengths), dtype=torch.int64, device=values.device),
        )
    chosen = there.nonzero()[:, 0]
    index = send(chosen, values.device)
    found = encoder(values[index], lengths[chosen])
    frames = found.values.new_zeros(len(lengths), *found.values.shape[1:])
    counts = found.lengths.new_zeros(len(lengths))
    return Frames(frames.index_copy(0, index, found.values), counts.index_copy(0, index, found.lengths))


def at_precision(encoder: Backbone, precision: str) -> Backbone:
    """The backbone, computing in `precision` from here on, if it has a choice."""
    config: Any = encoder.config
    if hasattr(config, "precision"):
        encoder.config = config.model_copy(update={"precision": precision})
    return encoder


def load_encoders(run: Path, backbones: Path | None = None) -> dict[str, Backbone]:
    """The backbones of a run by modality: frozen, on the CPU, with the weights they had before its training.

    They are built from the settings that the run has kept, or from `<name>.yaml` in the folder `backbones`.
    Raises ValueError when they would give other frames than those the run was trained on.
    """
    config = read_run(run)
    recipe: Recipe = parse_config(config["recipe"], Recipe, source=str(run / "config.json"))
    encoders = {}
    for name, store in recipe.stores().items():
        settings = config["backbones"].get(name)
        source = f"{run / 'config.json'}: backbones.{name}"
        if backbones is not None:
            settings, source = load_config(backbones / f"{store}.yaml", BackboneConfig), str(backbones)
        elif settings is None:
            raise ValueError(
                f"{run}: it does not say how the frames of {store} were made, for their store is of an older "
                "Stillwave; name the folder of the backbone configs with --backbones"
            )
        else:
            settings = parse_config(settings, BackboneConfig, source=source)
        encoder = build_backbone(settings)
        if differing := differences(config["stores"][name]["fingerprint"], fingerprint(encoder)):
            raise ValueError(
                f"{run}: the backbone {store} would give other frames than those it was trained on: "
                f"{'; '.join(differing)}. Give it the weights and library versions of then, or train again"
            )
        encoders[name] = encoder
    return encoders


def load_live(
    run: Path, fold: int, backbones: Path | None = None, encoders: Mapping[str, Backbone] | None = None
) -> tuple[LiveModel, dict[str, Any]]:
    """One model of a run, frozen, in eval mode, and the run's config; of a cached run or a fine-tuned one.

    encoders: what `load_encoders` gave, to be used instead; a fine-tuned run's weights are put into them.
    """
    given = dict(encoders) if encoders is not None else load_encoders(run, backbones)
    config = read_run(run)
    if not config["live"]:
        head, _ = load_head(run, fold)
        return LiveModel(given, head).eval(), config
    recipe: Recipe = parse_config(config["recipe"], Recipe, source=str(run / "config.json"))
    state, facts = read_weights(run, fold)
    encoders = {name: at_precision(encoder, recipe.train.precision) for name, encoder in given.items()}
    model = LiveModel(encoders, untrained_head(config, facts), recipe.finetune)
    load_state(model, state, run / f"fold_{fold}")
    return model.eval().requires_grad_(False), config
