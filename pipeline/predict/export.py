"""A run as one ONNX graph: waveforms, or frames, to calibrated probabilities, without Python or torch."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.onnx import quantize_weights, run_graph, write_graph
from stillwave.pipeline.runs.calibrate import threshold_of
from stillwave.pipeline.runs.model import at_precision
from stillwave.pipeline.runs.run import Run
from stillwave.version import VERSION

Part = Literal["model", "head"]

# Kinds that export: with any number of items in a batch, or with one item at a time, because their arithmetic
# is per item.
BATCHED = ("fbank", "wav2vec2", "mbert", "fastconformer", "cnn1d", "sanet")
SINGLE = ("ast",)
OTHERS = {
    "encodec": "its paddings depend on numbers, and its LSTM would have a fixed number of steps",
    "hear": "its model is third-party code",
    "onnx": "it is already an ONNX graph: run that, then the exported head",
    "whisper": "the windows that it cuts a clip into depend on the clip's length",
}
# Scores that are arithmetic on logits and features; the others look up training rows or branch on numbers.
SCORES = ("msp", "mls", "energy", "vim", "cac", "learned_uncertainty")
TOLERANCE = 1e-3  # between probabilities; rounding makes 1e-6
EXAMPLES = 3  # items in the batch that export traces with; 1 would become a constant


class Exported(NamedTuple):
    """difference: the largest between probabilities of the file and of the run, on a batch of noise."""

    file: Path
    difference: float


class Graph(nn.Module):
    """The models of a run as one function of tensors: what `Ensemble` computes, as pure arithmetic.

    part: `model`, from waveforms or token ids on, or `head`, from frames. single: no lengths; the whole item
    is valid.
    """

    def __init__(self, models: Ensemble, part: Part = "model", single: bool = False) -> None:
        super().__init__()
        self.single = single
        # One set of encoders for all heads, or one each in a fine-tuned run; none for `head`.
        self.encoders = nn.ModuleList(_encoders(models) if part == "model" else ())
        self.stored = [
            None if models.live else getattr(torch, encoder.config.storage_dtype)
            for encoder in models.encoders.values()
        ]
        self.heads = nn.ModuleList(fold.model.head for fold in models.folds)
        self.calibrations = [fold.calibration for fold in models.folds]
        wanted = {"learned_uncertainty": "learned_uncertainty", "score": models.recipe.open_set.score}
        fitted = [calibration.scorers for calibration in self.calibrations]
        self.scorers = nn.ModuleDict({
            name: nn.ModuleList(scorers[score] for scorers in fitted)
            for name, score in wanted.items() if score in SCORES and score in fitted[0]
        })  # fmt: skip
        self.num_modalities = len(models.encoders)
        for number, fold in enumerate(models.folds):
            # A speaker's number in this fold, by the number among the speakers of all folds; 0 is the unknown
            # one.
            own = {speaker: place for place, speaker in enumerate(fold.speakers, 1)}
            table = torch.tensor([0, *(own.get(speaker, 0) for speaker in models.speakers)])
            self.register_buffer(f"speakers_{number}", table)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The inputs that `inputs_of` names -> by name:

        probabilities (batch, classes), entropy (batch,), learned_uncertainty (batch,) for heads that have it,
        score (batch,) if the recipe's can be exported: means over the models; logits (batch, models, classes)
        and features (batch, models, dim) of each model.
        """
        if self.single:
            waveform, *others = inputs
            lengths = torch.ones_like(waveform[:, 0], dtype=torch.int64) * waveform.shape[1]
            inputs = (waveform, lengths, *others)
        read = 2 * self.num_modalities
        frames = [self._frames(encoders, inputs[:read]) for encoders in self.encoders] or [inputs[:read]]
        found: list[Outputs] = []
        for number, head in enumerate(self.heads):
            speakers = [getattr(self, f"speakers_{number}")[one] for one in inputs[read:]]
            own = frames[number % len(frames)]
            outputs: Outputs = head.outputs(*own, *speakers)  # type: ignore[operator]
            found.append(outputs.each(lambda value: value.float()))
        scaled = [own.softmax(outputs.logits) for own, outputs in zip(self.calibrations, found, strict=True)]
        p = torch.stack(scaled).mean(0)
        terms = p * p.clamp(min=torch.finfo(p.dtype).tiny).log()
        entropy = -terms.sum(1) / float(np.log(p.shape[1]))
        results = {"probabilities": p.float(), "entropy": entropy.float()}
        for name, scorers in self.scorers.items():
            assert isinstance(scorers, nn.ModuleList)
            scores = [scorer(outputs) for scorer, outputs in zip(scorers, found, strict=True)]
            results[name] = torch.stack(scores).mean(0).float()
        results["logits"] = torch.stack([outputs.logits for outputs in found], 1)
        results["features"] = torch.stack([outputs.features for outputs in found], 1)
        return results

    def _frames(self, encoders: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Values and lengths of each modality -> frames, rounded as a store rounds them, and lengths."""
        parts: list[Tensor] = []
        for number, (encoder, stored) in enumerate(zip(encoders.values(), self.stored, strict=True)):
            values, lengths = encoder(*inputs[2 * number : 2 * number + 2])
            parts += [values if stored is None else values.to(stored).float(), lengths]
        return tuple(parts)


def export(
    run: str | Path | Run,
    out: str | Path,
    *,
    part: Part = "model",
    fold: int | None = None,
    quantize: Literal["int8"] | None = None,
    backbones: str | Path | None = None,
) -> Exported:
    """Write a run to `out`, an .onnx file; above 2 GB the weights are in a file next to it, `<out>.data`.

    part: `model` reads waveforms or token ids; `head` reads frames, from any backbone. fold: the one model to
    export; None for all, averaged as in `predict`. quantize: `int8` stores the weights of matrix products,
    except those of a filter bank, as 8-bit integers. backbones: as in `predict`.

    Everything is computed in fp32, regardless of the run's precision. The file's metadata holds what a caller
    must know: see `facts_of`. Raises ValueError for a backbone that cannot be exported, and if the file does
    not give the run's results under onnxruntime.
    """
    run, out = Run.open(run), Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the name of an ONNX file ends in .onnx")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: no folder {out.parent}; make it first")
    if part == "head" and run.live:
        raise ValueError(
            f"{run}: a fine-tuned run, whose head is useless without its backbone: use part model"
        )
    models = Ensemble(run, fold, backbones, device="cpu")
    if part == "model":
        check_inputs(run, [*models.encoders.values()])
        for encoder in models.encoders.values():
            check_exports(encoder)
        for encoders in _encoders(models):
            for encoder in encoders.values():
                at_precision(encoder.float(), "fp32")
    single = part == "model" and any(one.config.kind in SINGLE for one in models.encoders.values())
    graph = Graph(models, part, single).eval().requires_grad_(False)
    names, arguments, dynamic = inputs_of(models, part, single)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / out.name
        write_graph(graph, names, arguments, dynamic, draft, facts_of(models, part, single))
        difference = _difference(graph, draft, dict(zip(names, arguments, strict=True)))
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{out}: under onnxruntime the probabilities differ by {difference:.1e} from the run's, more "
                f"than {TOLERANCE:.0e}; export the head alone, with --part head"
            )
        if quantize is not None:
            quantize_weights(draft)
            difference = _difference(graph, draft, dict(zip(names, arguments, strict=True)))
        for file in sorted(Path(folder).iterdir(), reverse=True):  # weights next to the graph come before it
            file.replace(out.parent / file.name)
    return Exported(out, difference)


@torch.no_grad()
def _difference(graph: Graph, file: Path, inputs: dict[str, Tensor]) -> float:
    """The largest difference between a probability of the file and of torch."""
    ours = graph(*inputs.values())["probabilities"]
    return float((run_graph(file, inputs)["probabilities"] - ours).abs().max())


def check_exports(encoder: Backbone) -> None:
    """Raise ValueError for a backbone that cannot be exported, with the reason and the remedy."""
    config = encoder.config
    reason = None
    if config.kind not in (*BATCHED, *SINGLE):
        reason = OTHERS.get(config.kind, "it has not been tried")
    elif getattr(config, "implementation", "custom") == "nemo":
        reason = "its model is NeMo's; set `implementation` to custom or transformers when you extract"
    if reason is not None:
        raise ValueError(
            f"a backbone of kind {config.kind} cannot be exported: {reason}. Export the head alone, "
            "with --part head, and give it the frames of `stillwave extract`"
        )


def check_inputs(run: Run, encoders: Sequence[Backbone]) -> None:
    """Raise ValueError for backbones that do not export together, with the reason and the remedy."""
    modalities = [encoder.modality for encoder in encoders]
    twice = next((name for name in modalities if modalities.count(name) > 1), None)
    alone = [encoder.config.kind for encoder in encoders if encoder.config.kind in SINGLE]
    if twice:
        reason = f"{modalities.count(twice)} of its backbones read {twice}, but a graph has one input for it"
    elif alone and len(encoders) > 1:
        reason = f"a backbone of kind {alone[0]} exports only without others"
    else:
        return
    remedy = "" if run.live else ". Export the head alone, with --part head, and give it their frames"
    raise ValueError(f"{run}: {reason}{remedy}")


def inputs_of(
    models: Ensemble, part: Part, single: bool
) -> tuple[list[str], list[Tensor], list[dict[int, str]]]:
    """Names of the inputs, examples of them, and the names of their dynamic axes.

    For part `model`: waveform (batch, samples) float32 at the backbone's rate and lengths (batch,) int64; for
    a single item (1, samples) without lengths; tokens (batch, tokens) int64 and token_lengths. For `head`:
    frames (batch, frames, [layers,] dim) and lengths; with several parts <part>_frames and <part>_lengths of
    each, audio and text or the names of the stores, where a length of 0 means that the item lacks it. Last,
    for a personalised run, speaker (batch,) int64: 0 for an unknown one, or the number, from 1, in the
    metadata's speakers.
    """
    names: list[str] = []
    arguments: list[Tensor] = []
    dynamic: list[dict[int, str]] = []
    batch = 1 if single else EXAMPLES
    generator = torch.Generator().manual_seed(0)
    axes = {} if single else {0: "batch"}
    for name, encoder in models.encoders.items():
        least = 1 if part == "head" else encoder.shortest()  # frames, samples or tokens
        text = encoder.modality == "text"
        if part == "head":
            prefix = "" if name == "frames" else f"{name}_"
            values = torch.randn(batch, 57, *encoder.frame_shape, generator=generator)
            own, length, axis = f"{prefix}frames", f"{prefix}lengths", f"num_{prefix}frames"
        elif text:
            values = torch.tensor(encoder.tokenize("a b c d e f g h i j k l m n o"))[:17].expand(batch, -1)
            own, length, axis = "tokens", "token_lengths", "num_tokens"
        else:
            samples = 400_007 if single else 24_007  # several windows; no multiple of a stride
            values = 0.1 * torch.randn(batch, samples, generator=generator)
            own, length, axis = "waveform", "lengths", "num_samples"
        names.append(own)
        arguments.append(values.contiguous())
        dynamic.append(axes | {1: axis})
        if not single:
            longest = values.shape[1]
            names.append(length)
            arguments.append(torch.tensor([longest, max(longest // 2, least), longest - 1]))
            dynamic.append({0: "batch"})
    if models.recipe.personalise is not None:
        names.append("speaker")
        arguments.append(torch.zeros(batch, dtype=torch.int64))
        dynamic.append(axes)
    return names, arguments, dynamic


def facts_of(models: Ensemble, part: Part, single: bool) -> dict[str, str]:
    """The file's metadata, with JSON values.

    classes, folds, speakers; temperatures, one per fold, already applied to the probabilities; score, the
    name of the open-set score, or null if the graph has none, and threshold, above which an item is of an
    unknown class, or null; sample_rate (Hz) and min_samples of the waveforms, null without; clip_samples, how
    much of a longer waveform is used (`predict` cuts it into such pieces), null for all; part, batch (`any`
    or 1), recipe, stillwave.
    """
    recipe = models.recipe
    name = recipe.open_set.score
    thresholds = [threshold_of(recipe.open_set, name, fold.calibration) for fold in models.folds]
    threshold = float(np.mean(thresholds))
    encoders = models.encoders.values() if part == "model" else ()
    audio = next((encoder for encoder in encoders if encoder.modality == "audio"), None)
    facts = {
        "classes": models.classes,
        "folds": len(models.folds),
        "speakers": models.speakers,
        "temperatures": [fold.calibration.temperature for fold in models.folds],
        "score": name if name in SCORES else None,
        "threshold": threshold if name in SCORES and np.isfinite(threshold) else None,
        "sample_rate": audio.sample_rate if audio else None,
        "min_samples": audio.shortest() if audio else None,
        "clip_samples": getattr(audio, "clip_length", None),
        "part": part,
        "batch": 1 if single else "any",
        "recipe": models.run.config["recipe"],
        "stillwave": VERSION,
    }
    return {key: json.dumps(value) for key, value in facts.items()}


def _encoders(models: Ensemble) -> list[Any]:
    """Modules by modality: one set, or one per model for a fine-tuned run."""
    if models.live:
        return [fold.model.encoders for fold in models.folds]
    return [nn.ModuleDict(models.encoders)]
