"""Exported graphs under onnxruntime against the runs that they were made of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.cache.batches import pad
from stillwave.pipeline.backbones import build_backbone, parse_backbone
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.export import check_exports, export
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.runs.calibrate import Calibration
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech
from tests.pipeline.backbones.variants import HEAR_API

TINY = {"weights": "random", "size": "tiny"}
SEGMENT = {"kind": "segment", "num_heads": 2}
FUSION = {
    "kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "fused_dim": 16, "depth": 2, "base_dim": 16,
    "bottleneck": 8, "anchor_dim": 8,
}  # fmt: skip
BACKBONES: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    # The first of three equal layers: a third of the tracing, and the same words of ONNX.
    "wav2vec2": {"kind": "wav2vec2", **TINY, "layers": [1]},
    "cnn1d": {"kind": "cnn1d", "clip_s": None},
    "cnn1d-clip": {"kind": "cnn1d", "clip_s": 1.0},
    "sanet": {"kind": "sanet", "size": "tiny", "clip_s": None},
    "fastconformer": {"kind": "fastconformer", **TINY, "layers": [1]},
    "ast": {"kind": "ast", **TINY},
    "mbert": {"kind": "mbert", **TINY},
}
RUNS: dict[str, dict[str, Any]] = {
    "fbank": {"backbones": ["fbank"], "head": SEGMENT | {"channels": 16, "strides": [4]}},
    "wav2vec2": {"backbones": ["wav2vec2"], "head": SEGMENT},
    "cnn1d": {"backbones": ["cnn1d"], "head": {"kind": "pooled", "pooling": "adaptive"}},
    "fine-tuned": {
        "backbones": ["cnn1d"],
        "head": {"kind": "pooled"},
        "finetune": {"unfreeze": "all", "learning_rate": 1e-3},
    },
    "cnn1d-clip": {"backbones": ["cnn1d-clip"], "head": {"kind": "pooled", "pooling": "multi_scale"}},
    "sanet": {"backbones": ["sanet"], "head": {"kind": "pooled", "pooling": "attentive"}},
    "fastconformer": {"backbones": ["fastconformer"], "head": SEGMENT | {"pooling_type": "learnable"}},
    "ast": {"backbones": ["ast"], "head": SEGMENT},
    "pooled": {"backbones": ["fbank"], "head": {"kind": "pooled", "pooling": "adaptive", "bins": 4}},
    "fusion": {
        "backbones": ["fbank", "mbert"],
        "modalities": ["audio", "text"],
        "head": FUSION,
        "losses": {"uncertainty": 0.05},
        "open_set": {"score": "learned_uncertainty"},
        "personalise": {"dim": 4, "hidden": 8},
    },
}
# Samples of the items of each batch. At export they were 24,007 or fewer; a frame takes 400.
LENGTHS = [[24000, 9001], [700], [16000, 3000, 52345], [1024]]


@pytest.fixture(scope="module")
def train_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`train_run(name)`: one of RUNS, two epochs of it, trained once."""
    folder = write_speech(tmp_path_factory.mktemp("export"), count=24)
    manifest = read_manifest(folder / "manifest.parquet")

    def train_run(name: str) -> Path:
        out = folder / name
        if out.exists():
            return out
        fields = {"label": "word", "train": {"epochs": 2, "batch_size": 8, "valid_fraction": 0.3}}
        recipe = Recipe.model_validate(fields | RUNS[name])
        where = {"manifest_path": folder / "manifest.parquet"}
        configs = {name: parse_backbone(BACKBONES[name], name, trusted=True) for name in recipe.backbones}
        if recipe.finetune is not None:
            return finetune(recipe, manifest, configs, out, **where)
        for backbone, config in configs.items():
            store = folder / "e" / f"{backbone}.zarr"
            if not store.exists():
                extract(config, manifest, store)
        return train(recipe, manifest, folder / "e", out, **where)

    return train_run


def noise(length: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(length)
    return (generator.uniform(0.01, 0.3) * generator.standard_normal(length)).astype(np.float32)


def run_file(file: Path, **inputs: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def facts_in(file: Path) -> dict[str, Any]:
    entries = onnx.load(file, load_external_data=False).metadata_props
    return {entry.key: json.loads(entry.value) for entry in entries}


def differences(file: Path, run: Path, fold: int | None, batches: list[list[int]]) -> tuple[float, float]:
    """The largest of the probabilities, and of the scores relative to their size, over noise."""
    predictor = Predictor.load(run, fold, device="cpu")
    facts = facts_in(file)
    single, heard = facts["batch"] == 1, facts["clip_samples"]
    found: list[float] = []
    scores: list[tuple[float, float]] = []
    for lengths in [[n] for batch in batches for n in batch] if single else batches:
        values, sizes = pad([noise(n) for n in lengths])
        given = run_file(file, waveform=values) if single else run_file(file, waveform=values, lengths=sizes)
        for row, n in enumerate(lengths):
            expected = predictor(noise(n)[:heard], 16000)
            p = np.array(list(expected.probabilities.values()))
            found.append(float(np.abs(given["probabilities"][row] - p).max()))
            scores.append((float(given["score"][row]), expected.score))
            assert abs(float(given["entropy"][row]) - expected.entropy) <= 1e-3
            assert "learned_uncertainty" not in given
    table = np.array(scores)
    return max(found), float(np.abs(table[:, 0] - table[:, 1]).max() / np.abs(table[:, 1]).max())


def test_all_folds_in_one_graph(train_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = train_run("fbank")
    file, difference = export(run, tmp_path / "model.onnx")
    assert difference <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # one file, nothing left over
    probability, score = differences(file, run, None, LENGTHS)
    assert probability <= 1e-4
    assert score <= 1e-3
    facts = facts_in(file)
    thresholds = [Calibration.load(run / f"fold_{fold}").thresholds["vim"] for fold in range(3)]
    assert facts.pop("recipe") == json.loads((run / "config.json").read_text())["recipe"]
    assert facts.pop("threshold") == pytest.approx(np.mean(thresholds))
    assert len(facts.pop("temperatures")) == 3
    assert facts == {
        "classes": ["high", "low"], "folds": 3, "speakers": [], "score": "vim", "sample_rate": 16000,
        "min_samples": 400, "clip_samples": None, "part": "model", "batch": "any",
        "stillwave": facts["stillwave"],
    }  # fmt: skip
    outputs = run_file(file, waveform=noise(800)[None], lengths=np.array([800]))
    assert outputs["logits"].shape == (1, 3, 2)
    assert outputs["features"].shape == (1, 3, 128)


# Tracing takes seconds, most of them for arithmetic on lengths that are not known.
SLOW = ("wav2vec2", "cnn1d", "cnn1d-clip", "sanet", "fastconformer", "ast")


@pytest.mark.parametrize(
    "name", ["fine-tuned", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_backbone_in_the_graph(name: str, train_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = train_run(name)
    file, _ = export(run, tmp_path / "model.onnx", fold=1)
    longer = [[180_000]] if name == "ast" else []  # a second window
    probability, score = differences(file, run, 1, LENGTHS + longer)
    assert probability <= 1e-4
    assert score <= 1e-3


def test_eight_bit_weights(train_run: Callable[[str], Path], tmp_path: Path) -> None:
    """Labels stay; probabilities move by 0.05 at most (seen: 0.003). The filter bank's filters are floats."""
    run = train_run("fbank")
    file, difference = export(run, tmp_path / "small.onnx", fold=0, quantize="int8")
    assert 0 < difference <= 0.05
    facts = facts_in(file)
    assert (facts["quantized"], facts["classes"], facts["folds"]) == ("int8", ["high", "low"], 1)
    graph = onnx.load(file).graph
    assert "MatMulInteger" in {node.op_type for node in graph.node}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert [types[name] for name in types if name.endswith("filters")] == [onnx.TensorProto.FLOAT]
    predictor = Predictor.load(run, 0, device="cpu")
    lengths = [9000, 16000, 24000, 5000]
    exact = np.array([list(predictor(noise(n), 16000).probabilities.values()) for n in lengths])
    values, sizes = pad([noise(n) for n in lengths])
    rounded = run_file(file, waveform=values, lengths=sizes)["probabilities"]
    assert np.array_equal(exact.argmax(1), rounded.argmax(1))
    assert 0 < np.abs(exact - rounded).max() <= 0.05


@pytest.mark.slow
def test_speech_text_and_who_speaks(train_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = train_run("fusion")
    file, _ = export(run, tmp_path / "model.onnx", fold=0)
    predictor = Predictor.load(run, 0, device="cpu")
    speakers = facts_in(file)["speakers"]
    tokenize = build_backbone(parse_backbone(BACKBONES["mbert"], "mbert", trusted=True)).tokenize  # type: ignore[attr-defined]
    said = [(9000, "it is low", speakers[1]), (30000, "spoken high , not low at all", "nobody")]
    waveform, lengths = pad([noise(n) for n, _, _ in said])
    tokens, token_lengths = pad([np.array(tokenize(text)) for _, text, _ in said])
    outputs = run_file(
        file,
        waveform=waveform,
        lengths=lengths,
        tokens=tokens,
        token_lengths=token_lengths,
        speaker=np.array([2, 0]),
    )
    for row, (n, text, speaker) in enumerate(said):
        expected = predictor(noise(n), 16000, text=text, speaker=speaker if row == 0 else None)
        p = np.array(list(expected.probabilities.values()))
        assert np.abs(outputs["probabilities"][row] - p).max() <= 1e-4
        assert outputs["entropy"][row] == pytest.approx(expected.entropy, abs=1e-4)
        learned = expected.learned_uncertainty
        assert outputs["learned_uncertainty"][row] == pytest.approx(learned, abs=1e-4)
        assert outputs["score"][row] == pytest.approx(expected.score, abs=1e-4)


def test_the_head_alone(train_run: Callable[[str], Path], tmp_path: Path) -> None:
    """Any number of frames, and items that lack a modality."""
    run = train_run("fusion")
    file, _ = export(run, tmp_path / "head.onnx", part="head", fold=2)
    head, config = Run.open(run).model(2).head, Run.open(run).config
    generator = torch.Generator().manual_seed(3)
    for batch, audio, text in ((4, 90, 12), (1, 1, 3)):
        values: dict[str, Tensor] = {}
        for name, frames in (("audio", audio), ("text", text)):
            dim = config["stores"][name]["frame_shape"][-1]
            lengths = torch.randint(frames, (batch,), generator=generator) + 1
            values[f"{name}_frames"] = 5 * torch.randn(batch, frames, dim, generator=generator)
            values[f"{name}_lengths"] = lengths
        values["audio_lengths"][0] = 0
        values["speaker"] = torch.arange(batch)
        with torch.no_grad():
            expected = head.outputs(*values.values())
        p = Calibration.load(run / "fold_2").probabilities(expected)
        outputs = run_file(file, **{name: tensor.numpy() for name, tensor in values.items()})
        assert np.abs(outputs["probabilities"] - p).max() <= 1e-4
        assert np.abs(outputs["logits"][:, 0] - expected.logits.numpy()).max() <= 1e-4
    assert facts_in(file)["sample_rate"] is None


@pytest.mark.parametrize("name", ["fbank", "wav2vec2", "pooled"])
def test_the_head_of_one_backbone_alone(name: str, train_run: Callable[[str], Path], tmp_path: Path) -> None:
    """Frames of any number, from one on, though a single frame takes hundreds of samples."""
    run = train_run(name)
    file, difference = export(run, tmp_path / "head.onnx", part="head", fold=1)
    assert difference <= 1e-5
    head, config = Run.open(run).model(1).head, Run.open(run).config
    generator = torch.Generator().manual_seed(4)
    for lengths in ([14, 100, 33], [1], [3, 1]):
        frames = torch.randn(
            len(lengths), max(lengths), *config["stores"]["frames"]["frame_shape"], generator=generator
        )
        with torch.no_grad():
            expected = head.outputs(frames, torch.tensor(lengths))
        outputs = run_file(file, frames=frames.numpy(), lengths=np.array(lengths))
        p = Calibration.load(run / "fold_1").probabilities(expected)
        assert np.abs(outputs["probabilities"] - p).max() <= 1e-4
        assert np.abs(outputs["logits"][:, 0] - expected.logits.numpy()).max() <= 1e-4


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "mbert"])
def test_frames_without_loops_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backbone computes while it is traced, computed without tracing."""
    backbone = build_backbone(parse_backbone(BACKBONES[name], name, trusted=True))
    for lengths in ([23000], [9001]) if name == "ast" else ([23000, 9001, 800], [720]):
        values, sizes = (torch.from_numpy(part) for part in pad([noise(n) for n in lengths]))
        expected = backbone(values, sizes)
        with monkeypatch.context() as patched:
            patched.setattr(torch.compiler, "is_exporting", lambda: True)
            found = backbone(values, sizes)
        assert torch.equal(found.lengths, expected.lengths)
        for ours, theirs, n in zip(found.values, expected.values, expected.lengths.tolist(), strict=True):
            assert float((ours[:n] - theirs[:n]).abs().max() / theirs[:n].abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"kind": "encodec", **TINY}, "kind encodec cannot be exported.*LSTM.*--part head"),
        (
            {"kind": "hear", "module": HEAR_API},
            "kind hear cannot be exported.*--part head",
        ),
    ],
)
def test_backbones_that_do_not_export(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_exports(build_backbone(parse_backbone(raw, "test", trusted=True)))


def test_what_is_refused_leaves_no_file(train_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = train_run("fbank")
    with pytest.raises(ValueError, match="a fine-tuned run, whose head is useless without its backbone"):
        export(train_run("fine-tuned"), tmp_path / "model.onnx", part="head")
    with pytest.raises(ValueError, match=r"model\.pt: the name of an ONNX file ends in \.onnx"):
        export(run, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"no folder .*make it first"):
        export(run, tmp_path / "none" / "model.onnx")
    with pytest.raises(ValueError, match="fold 7: "):
        export(run, tmp_path / "model.onnx", fold=7)
    assert not list(tmp_path.iterdir())
