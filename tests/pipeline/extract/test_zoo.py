"""The zoo through prepare and extract: each file ends as frames or in a quarantine, and none stops a run."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.corpus import KFold
from stillwave.pipeline.corpora.folder import Folder
from stillwave.pipeline.corpora.prepare import PrepareResult, prepare
from stillwave.pipeline.extract.stage import ExtractResult, extract, quarantine_path
from tests.zoo import NOTED, ZOO, encode, tone

FBANK = FbankConfig(kind="fbank", deltas=0, max_bad_fraction=1.0)
LINKS: dict[str, int | str] = {
    "link.wav": 48,
    "dangling.wav": "decode missing",
    "to_itself.wav": "decode missing",
    "pipe.wav": "decode missing",
}
LATER: dict[str, int | str] = {
    "deleted_later.wav": "extract missing",
    "changed_later.wav": "extract changed",
    "cut_later.wav": "extract changed",
    "emptied_later.wav": "extract empty",
    "text_later.wav": "extract changed",
    "folder_later.wav": "extract missing",
}
LOCKED: dict[str, int | str] = {} if os.geteuid() == 0 else {"locked.wav": "decode missing"}
EXPECTED = {name: expected for name, (_, expected) in ZOO.items()} | LINKS | LATER | LOCKED


def build(root: Path) -> None:
    """All files of the zoo below `root`/any, the label of all of them."""
    folder = root / "any"
    for number, (name, data) in enumerate(
        [*((name, data) for name, (data, _) in ZOO.items()), *((name, None) for name in LATER | LOCKED)]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(tone(0.5, hz=600 + number), format="WAV") if data is None else data)
    (folder / "link.wav").symlink_to(folder / "s16.wav")
    (folder / "dangling.wav").symlink_to(folder / "gone.wav")
    (folder / "to_itself.wav").symlink_to(folder / "to_itself.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "round_and_round").symlink_to(root)
    (folder / "empty_folder.wav").mkdir()
    (folder / "notes.txt").write_text("no audio, and not in the corpus")
    (folder / ".hidden.wav").write_bytes(b"neither")
    for name in LOCKED:
        (folder / name).chmod(0)


def spoil(folder: Path) -> None:
    """What happens to files between prepare and extract."""
    (folder / "deleted_later.wav").unlink()
    (folder / "changed_later.wav").write_bytes(encode(tone(0.5, hz=999), format="WAV"))
    (folder / "cut_later.wav").write_bytes((folder / "cut_later.wav").read_bytes()[:-100])
    (folder / "emptied_later.wav").write_bytes(b"")
    (folder / "text_later.wav").write_text("overwritten")
    (folder / "folder_later.wav").unlink()
    (folder / "folder_later.wav").mkdir()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareResult, ExtractResult]:
    """The zoo's folder after both stages, and what they said."""
    root = tmp_path_factory.mktemp("zoo")
    build(root / "corpus")
    config = Folder(
        kind="folder",
        label="kind",
        max_duration_s=2.0,
        max_bad_fraction=1.0,
        split=KFold(kind="kfold", folds=2, group=None, allow_leak=True),
    )
    prepared = prepare(config, root / "corpus", root / "manifest.parquet")
    spoil(root / "corpus/any")
    return root, prepared, extract(FBANK, pd.read_parquet(root / "manifest.parquet"), root / "fbank.zarr")


def outcomes(root: Path) -> list[tuple[str, int | str]]:
    """(file name, frames or "stage reason") of every stored row and every line of both quarantines."""
    paths = pd.read_parquet(root / "manifest.parquet").set_index("id")["path"]
    store = EmbeddingStore(root / "fbank.zarr")
    found: list[tuple[str, int | str]] = [
        (paths[id_], len(frames)) for id_, frames in zip(store.ids.tolist(), store, strict=True)
    ]
    for file in (root / "quarantine.csv", quarantine_path(root / "fbank.zarr")):
        lines = pd.read_csv(file, keep_default_na=False)
        found += [(line.path, f"{line.stage} {line.reason}") for line in lines.itertuples()]
    folder = root / "corpus/any"
    return [(Path(path).relative_to(folder).as_posix(), outcome) for path, outcome in found]


def test_the_zoo_is_large_enough() -> None:
    assert len(EXPECTED) >= 40
    assert sum(isinstance(expected, str) for expected in EXPECTED.values()) >= 30


def test_every_file_is_accounted_for_once(zoo: tuple[Path, PrepareResult, ExtractResult]) -> None:
    root, prepared, extracted = zoo
    names = Counter(name for name, _ in outcomes(root))
    assert names == Counter(EXPECTED.keys())
    assert prepared.rows + sum(prepared.quarantined.values()) == len(EXPECTED)
    assert extracted.rows + len(extracted.quarantined) == prepared.rows
    assert prepared.ignored == {".txt": 1, "hidden": 1}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_ends_as_frames_or_with_its_reason(
    name: str, zoo: tuple[Path, PrepareResult, ExtractResult]
) -> None:
    root, _, _ = zoo
    assert dict(outcomes(root))[name] == EXPECTED[name]


def test_the_manifest_notes_what_is_unusual(zoo: tuple[Path, PrepareResult, ExtractResult]) -> None:
    root, prepared, _ = zoo
    rows = pd.read_parquet(root / "manifest.parquet").dropna(subset="note")
    assert dict(zip(rows["path"].map(lambda path: Path(path).name), rows["note"], strict=True)) == NOTED
    assert prepared.noted == dict(sorted(Counter(NOTED.values()).items()))


def test_every_stored_frame_is_finite_and_of_its_own_file(
    zoo: tuple[Path, PrepareResult, ExtractResult],
) -> None:
    root, _, extracted = zoo
    store = EmbeddingStore(root / "fbank.zarr")
    assert all(np.isfinite(frames).all() for frames in store)
    rows = {Path(id_).name: row for row, id_ in enumerate(store.ids.tolist())}
    assert store.offsets[rows["twin_a"]] == store.offsets[rows["twin_b"]]
    assert store.offsets[rows["link"]] == store.offsets[rows["s16"]]
    distinct = len(np.unique(store.offsets))
    assert distinct == extracted.rows - 2
    tones = [
        rows[name]
        for name in ("s16", "s24", "float", "flac", "vorbis", "mp3", "ulaw", "192000_hz", "7999_hz")
    ]
    mean = np.stack([np.asarray(store[row], dtype=float).mean(0)[:60] for row in tones])  # up to 4 kHz
    assert np.ptp(mean.argmax(axis=1)) <= 1  # all near 420 Hz, whatever the container and the rate


def test_a_second_run_tries_the_bad_files_again_and_computes_none(
    zoo: tuple[Path, PrepareResult, ExtractResult],
) -> None:
    root, _, first = zoo
    again = extract(FBANK, pd.read_parquet(root / "manifest.parquet"), root / "fbank.zarr")
    assert again.forwards == 0
    assert again.quarantined == first.quarantined
