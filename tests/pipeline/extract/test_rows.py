"""Rows that are spans of files, from the table to predictions: as if each were a file of its own."""

import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.audio.augment import apply, draw
from stillwave.pipeline.audio.decode import resample
from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.config.views import GaussianEffect, SpeedEffect, ViewsConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.rows import plan_rows
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import clips_of
from stillwave.pipeline.predict.enroll import enroll, read_clips
from stillwave.pipeline.predict.output import shower
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.predict.results import Prediction
from stillwave.pipeline.runs.waveforms import LiveFeatures
from stillwave.pipeline.train.stage import train
from tests.fakes import speech_config, write_speech

FBANK = FbankConfig(kind="fbank", deltas=0)
VIEWS = ViewsConfig(count=1, speed=SpeedEffect(probability=1.0), gaussian=GaussianEffect(probability=1.0))
RATE = 22_050  # not the backbone's


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`long`: one FLAC per speaker, of which rows are spans; `short`: the same samples, one file per row."""
    root = tmp_path_factory.mktemp("spans")
    single = pd.read_csv(write_speech(root / "speech") / "table.csv")
    rows: dict[str, list[dict[str, object]]] = {"long": [], "short": []}
    for speaker, clips in single.groupby("speaker"):
        parts, at = [], 0
        for name, word, text in clips[["file_path", "word", "text"]].itertuples(index=False):
            samples = resample(*soundfile.read(root / "speech" / name, dtype="float32"), RATE)
            cut = (np.round(samples * 2**15).clip(-(2**15), 2**15 - 1)).astype(np.int16)
            parts += [np.full(997, 500, np.int16), cut]
            at += 997
            facts = {"word": word, "speaker": speaker, "text": text}
            span = {"start": at / RATE, "end": (at + len(cut)) / RATE}
            rows["long"].append({"file_path": f"wav/{speaker}.flac", **span, **facts})
            at += len(cut)
            rows["short"].append({"file_path": name, **facts})
            (root / "short" / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "short" / name, cut, RATE)
        rows["long"][-1]["end"] = None  # up to the file's end
        (root / "long/wav").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / f"long/wav/{speaker}.flac", np.concatenate(parts), RATE)
    for name, table in rows.items():
        pd.DataFrame(table).to_csv(root / name / "table.csv", index=False)
        config = speech_config()
        if name == "long":
            columns = {**config.columns, "start": "start", "end": "end"}
            config = config.model_copy(update={"columns": columns})
        prepare(config, root / name, root / name / "manifest.parquet")
        extract(FBANK, read_manifest(root / name / "manifest.parquet"), root / name / "e/fbank.zarr")
    return root


def in_table_order(corpus: Path, name: str) -> pd.DataFrame:
    """The manifest's rows as they are in the long table."""
    manifest = read_manifest(corpus / name / "manifest.parquet")
    return manifest.sort_values(["speaker", "start"] if "start" in manifest else ["speaker", "id"])


def test_frames_of_a_span_are_those_of_a_file_with_its_samples(corpus: Path) -> None:
    spans, files = in_table_order(corpus, "long"), in_table_order(corpus, "short")
    assert spans["num_samples"].tolist() == files["num_samples"].tolist()
    assert spans["end"].isna().sum() == 6
    long, short = (EmbeddingStore(corpus / name / "e/fbank.zarr") for name in ("long", "short"))
    places = [{id_: place for place, id_ in enumerate(store.ids)} for store in (long, short)]
    for one, other in zip(spans["id"], files["id"], strict=True):
        np.testing.assert_array_equal(long[places[0][one]], short[places[1][other]])
    assert len(set(long.content_key)) == len(spans) == 36
    assert spans["sha256"].nunique() == 6
    assert set(spans["sha256"]).isdisjoint(long.content_key)


def test_training_and_prediction_know_spans(corpus: Path, tmp_path: Path) -> None:
    head = {"kind": "segment", "num_heads": 4, "channels": 16, "strides": [4], "hidden": 16}
    fields = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "valid_fraction": 0.3}
    recipe = Recipe.model_validate({"label": "word", "backbones": ["fbank"], "head": head, "train": fields})
    path = corpus / "long/manifest.parquet"
    manifest = read_manifest(path)
    train(recipe, manifest, corpus / "long/e", tmp_path / "run", manifest_path=path)
    evaluate(tmp_path / "run", manifest=path, embeddings=corpus / "long/e")
    tested = pd.read_parquet(tmp_path / "run/report/predictions.parquet")
    assert tested["id"].tolist() == manifest["id"].tolist()
    pd.testing.assert_frame_equal(tested[["start", "end"]], manifest[["start", "end"]])
    for name in ("long", "short"):  # the same files; and files with the same samples in other bytes
        refused = pytest.raises(ValueError, match="36 of 36 rows are recordings that the run was trained on")
        with refused if name == "long" else nullcontext():
            evaluate(
                tmp_path / "run", tmp_path / name, ensemble=True, manifest=corpus / name / "manifest.parquet",
                embeddings=corpus / name / "e",
            )  # fmt: skip
    predictor = Predictor.load(tmp_path / "run", fold=0, segment_s=0.5, hop_s=0.25)
    found = list(predictor.predict_many(clips_of([str(path)])))
    files = list(predictor.predict_many(clips_of([str(corpus / "short/manifest.parquet")])))
    twins = dict(
        zip(in_table_order(corpus, "long")["id"], in_table_order(corpus, "short")["id"], strict=True)
    )
    alone = {one.clip: one for one in files}
    for one, (start, seconds) in zip(found, manifest[["start", "duration_s"]].to_numpy(), strict=True):
        twin = alone[twins[one.clip]]
        assert isinstance(one, Prediction)
        assert isinstance(twin, Prediction)
        assert one.probabilities == pytest.approx(twin.probabilities, abs=1e-6)
        assert (one.start_s, one.end_s) == (start, pytest.approx(start + seconds))
        assert list(one.to_dict())[:4] == ["clip", "duration_s", "start_s", "end_s"]
        assert "start_s" not in twin.to_dict()
        shifted = [(part.start_s + start, part.end_s + start) for part in twin.segments]
        assert [(part.start_s, part.end_s) for part in one.segments] == shifted
    written = io.StringIO()
    show = shower("csv", written, predictor.classes)
    for one in found:
        show(one)
    lines = pd.read_csv(io.StringIO(written.getvalue()))
    lines = lines[lines["segment"].isna()].set_index("clip").loc[manifest["id"]]
    assert lines["start_s"].tolist() == pytest.approx(manifest["start"].tolist())
    ends = (manifest["start"] + manifest["duration_s"]).tolist()
    assert lines["end_s"].tolist() == pytest.approx(ends)
    assert any(one.segments for one in found if isinstance(one, Prediction))
    # a table of clips to enrol: of a file that the run knows, and of a new one
    known = manifest.iloc[:4].assign(file_path=lambda rows: rows["path"].map(lambda path: Path(path).name))
    known = known.assign(end=known["start"] + known["duration_s"])[["file_path", "start", "end", "word"]]
    known.to_csv(corpus / "long/wav/clips.csv", index=False)
    clips = read_clips(corpus / "long/wav/clips.csv", "word")
    assert [clip.name.rpartition("[")[2] for clip, _ in clips if not isinstance(clip, str | Path)] == [
        f"{row.start}-{row.end}]" for row in known.itertuples()
    ]
    assert enroll(tmp_path / "run", "new", clips, tmp_path / "new.safetensors").num_seen == 4
    samples, _ = soundfile.read(corpus / "long/wav/s0.flac", dtype="int16")
    soundfile.write(corpus / "long/wav/new.flac", samples[::-1], RATE)
    known.assign(file_path="new.flac").to_csv(corpus / "long/wav/clips.csv", index=False)
    clips = read_clips(corpus / "long/wav/clips.csv", "word")
    assert enroll(tmp_path / "run", "new", clips, tmp_path / "new.safetensors").num_seen == 0


def test_views_and_live_features_are_drawn_from_the_span(corpus: Path) -> None:
    backbone = build_backbone(FBANK)
    manifest = read_manifest(corpus / "long/manifest.parquet")
    rows, sources, _ = plan_rows(backbone, manifest, VIEWS)
    clean = [sources[row.item] for row in rows if not row.item.view]
    views = [sources[row.item] for row in rows if row.item.view]
    assert len({source.effects for source in views}) == len(views) == 36
    assert all(
        view.effects == draw(VIEWS, source.content, 1) for source, view in zip(clean, views, strict=True)
    )
    features = LiveFeatures(backbone, [*clean[:3]], torch.device("cpu"), Finetune())
    values, lengths = features.batch(np.arange(3))
    for value, length, source in zip(values, lengths, clean, strict=False):
        assert source.span is not None
        first = round(source.span.start * RATE)
        samples, _ = soundfile.read(source.path, start=first, dtype="float32")
        count = manifest.set_index("id")["num_samples"][source.id]
        waveform = resample(samples[:count], RATE, 16_000)
        np.testing.assert_array_equal(value[:length].numpy(), waveform)
        assert apply(waveform, 16_000, draw(VIEWS, source.content, 1)).shape != waveform.shape
