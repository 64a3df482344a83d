"""Small stand-ins and builders that several tests share."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import soundfile
from numpy.typing import NDArray

from stillwave.cache import Item, Row, Spec, StoreWriter, Unit, write_unit
from stillwave.cache.places import open_storage
from stillwave.pipeline.config.corpus import KFold
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table

ROOT = Path(__file__).parents[1]
PYTHON_PATH = f"{ROOT / 'src'}{os.pathsep}{ROOT}"  # of processes that import this checkout, and its tests


SPEC = Spec(dim=3, chunk_frames=4, shard_frames=16)
FINGERPRINT: dict[str, Any] = {"kind": "fake", "version": 1, "config": {"layers": "last"}, "weights": "abc"}


def contents_digest(manifest: Path, root: Path) -> str:
    """Of a manifest's columns, with paths below `root`: the same on every machine."""
    table = pq.read_table(manifest)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    columns["path"] = [Path(path).relative_to(root).as_posix() for path in columns["path"]]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16]


def row(id_: str, length: int, *, key: str | None = None, view: int = 0) -> Row:
    return Row(id_, Item(key or f"key-{id_}", view), length)


def frames_of(item: Item, length: int, spec: Spec) -> NDArray[Any]:
    """Frames that only depend on the item: what a deterministic backbone would give."""
    seed = [*item.content_key.encode(), item.view]
    return np.random.default_rng(seed).standard_normal((length, *spec.frame_shape)).astype(spec.dtype)


def unit_frames(unit: Unit, spec: Spec) -> Iterator[tuple[Item, NDArray[Any]]]:
    return ((item, frames_of(item, n, spec)) for item, n in zip(unit.items, unit.lengths, strict=True))


def write_store(
    path: str | Path,
    rows: Sequence[Row],
    spec: Spec = SPEC,
    fingerprint: dict[str, Any] = FINGERPRINT,
    **options: Any,
) -> list[Unit]:
    """Extract `rows` with frames_of; returns the units that had to be written."""
    with StoreWriter(path, spec, fingerprint, **options) as writer:
        pending = writer.plan(rows)
        for unit in pending:
            write_unit(path, spec, unit, unit_frames(unit, spec))
        writer.finish()
    return pending


def rows_with_views(manifest: pd.DataFrame, count: int, frames: int = 6, settings: str = "") -> list[Row]:
    """The clean row and `count` views of every row of a manifest, of lengths that differ."""
    return [
        row(
            record["id"],
            frames + (7 * i + view) % 5,
            key=record["sha256"] if view == 0 else f"{record['sha256']}-{view}{settings}",
            view=view,
        )
        for i, record in enumerate(manifest.to_dict("records"))
        for view in range(count + 1)
    ]


def files_of(path: str | Path) -> dict[str, bytes]:
    """Every file below a folder or URL, by relative path."""
    storage = open_storage(path)
    return {key: storage.read(key) for key in storage.sizes()}


def write_wave(path: Path, seconds: float, hertz: float, seed: int, sample_rate: int = 16_000) -> None:
    """A tone with harmonics in noise: pitched as `hertz`, different for every seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in (1, 2, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * tone + 0.01 * rng.standard_normal(len(time)), sample_rate)


def write_speech(folder: Path, count: int = 36, seed: int = 0) -> Path:
    """`count` clips, low and high in turn, six speakers, prepared into `folder`/manifest.parquet."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        label, speaker = ("low", "high")[i % 2], f"s{i // 2 % 6}"
        hertz = (120 if label == "low" else 240) * rng.uniform(0.9, 1.1)
        write_wave(folder / "wav" / f"{i:03d}.wav", rng.uniform(0.3, 1.2), hertz, seed=seed + i)
        lines.append(f"wav/{i:03d}.wav,{label},{speaker},the tone number {i % 4} is {label}")
    (folder / "table.csv").write_text("\n".join(["file_path,word,speaker,text", *lines, ""]))
    prepare(speech_config(), folder, folder / "manifest.parquet")
    return folder


def speech_config(**fields: Any) -> Table:
    """The corpus config of write_speech."""
    return Table(
        kind="table",
        table="table.csv",
        columns={"path": "file_path", "word": "word", "speaker": "speaker", "text": "text"},
        label="word",
        split=KFold(kind="kfold", folds=3),
        **fields,
    )
