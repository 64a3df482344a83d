"""Many segments of one long file against as many files, and against decoding the file once.

    python benchmarks/segments.py [--hours 10] [--rows 20000] [--format flac] [--rounds 3]

The file is mono, 16 kHz, 16 bits; the segments cover it. `prepare` measures every row, and reading returns
every row's waveform, its file's sha256 checked; the samples are compared. The first half of the rows should
take half the time. Extraction reads rows in order of length, so they are read shuffled, too. Rounds are
interleaved between the sides; the best one counts. Seconds are those of the processors, all threads together,
so that other work on the machine counts little. Ends with one line of JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from stillwave.pipeline.audio import segments
from stillwave.pipeline.audio.decode import decode
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--format", choices=["flac", "wav"], default="flac")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), arguments.hours, arguments.rows, arguments.format)
        rounds = [measure(Path(folder), arguments.format) for _ in range(arguments.rounds)]
    seconds = {name: min(took[name] for took in rounds) for name in rounds[0]}
    rows = {name: arguments.rows // (2 if "half" in name else 1) for name in seconds}
    for name, took in seconds.items():
        print(f"{name:32}  {took:8.2f} s  {rows[name] / took:9.0f} rows/s")
    ratios = {
        "prepare, segments / files": seconds["prepare segments"] / seconds["prepare files"],
        "read, segments / files": seconds["read segments"] / seconds["read files"],
        "read, segments / decoding once": seconds["read segments"] / seconds["decode the file once"],
        "prepare, all / half": seconds["prepare segments"] / seconds["prepare half of the segments"],
        "read, all / half": seconds["read segments"] / seconds["read half of the segments"],
        "shuffled, segments / files": seconds["read segments, shuffled"] / seconds["read files, shuffled"],
        "shuffled, all / half": (
            seconds["read segments, shuffled"] / seconds["read half of the segments, shuffled"]
        ),
    }
    for name, ratio in ratios.items():
        print(f"{name:32}  {ratio:8.2f}")
    print(json.dumps(vars(arguments) | {name: round(value, 3) for name, value in (seconds | ratios).items()}))


def build(folder: Path, hours: float, rows: int, suffix: str) -> None:
    """`long.<suffix>`, `files/`, and a table of each: speech-like noise, another for every segment."""
    count = round(hours * 3600 * RATE / rows)
    rng = np.random.default_rng(0)
    (folder / "files").mkdir()
    of_long, of_files = list[str](), list[str]()
    with soundfile.SoundFile(folder / f"long.{suffix}", "w", RATE, 1) as long:
        for row in range(rows):
            samples = (np.cumsum(rng.standard_normal(count)) % 200 * 30).astype(np.int16)
            long.write(samples)
            soundfile.write(folder / f"files/{row}.{suffix}", samples, RATE)
            of_long.append(f"long.{suffix},{row * count / RATE},{(row + 1) * count / RATE},{row % 4}")
            of_files.append(f"files/{row}.{suffix},{row % 4}")
    (folder / "segments.csv").write_text("\n".join(["file,start,end,label", *of_long]))
    (folder / "half.csv").write_text("\n".join(["file,start,end,label", *of_long[: rows // 2]]))
    (folder / "files.csv").write_text("\n".join(["file,label", *of_files]))


def measure(folder: Path, suffix: str) -> dict[str, float]:
    """CPU seconds of each side."""
    seconds: dict[str, float] = {}
    manifests: dict[str, pd.DataFrame] = {}
    for name in ("files", "half", "segments"):
        columns = {"path": "file", "label": "label"}
        if name != "files":
            columns |= {"start": "start", "end": "end"}
        split = {"kind": "kfold", "group": None}
        config = Table.model_validate(
            {"kind": "table", "table": f"{name}.csv", "columns": columns, "label": "label", "split": split}
        )
        long_name = "half of the segments" if name == "half" else name
        _forget()
        out = folder / f"{name}.parquet"
        seconds[f"prepare {long_name}"] = _timed(prepare, config, folder, out)
        manifests[name] = read_manifest(out)
        _forget()
        seconds[f"read {long_name}"] = _timed(_read, manifests[name])
        _forget()
        shuffled = manifests[name].sample(frac=1, random_state=0)
        seconds[f"read {long_name}, shuffled"] = _timed(_read, shuffled)
    seconds["decode the file once"] = _timed(decode, folder / f"long.{suffix}")
    same = _by_row(manifests["segments"]) == _by_row(manifests["files"])
    assert same, "a segment has other samples than its file"
    return seconds


def _forget() -> None:
    segments._kept = segments._Kept()


def _read(manifest: pd.DataFrame) -> None:
    for row in manifest.to_dict("records"):
        segments.load_waveform(row["path"], RATE, row["sha256"], span=segments.span_of(row))


def _by_row(manifest: pd.DataFrame) -> list[bytes]:
    """The samples of some rows, in the order of the table."""
    order = manifest["start"] if "start" in manifest else manifest["id"].str.rpartition("/")[2].astype(int)
    rows = manifest.loc[order.sort_values().index].iloc[::97].to_dict("records")
    return [segments.load_waveform(row["path"], RATE, span=segments.span_of(row)).tobytes() for row in rows]


def _timed(work: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


if __name__ == "__main__":
    main()
