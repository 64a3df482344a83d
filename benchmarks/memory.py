"""Peak memory of an extraction from a corpus, and from one ten times as large.

    python benchmarks/memory.py [--rows 300] [--backbone configs/backbones/fbank.yaml]

Each side is a separate process that extracts clips of 2 to 4 s of noise; its peak resident memory is what
the operating system counted. Ends with one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--backbone", type=Path, default=Path("configs/backbones/fbank.yaml"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.backbone, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(Path(folder), 10 * arguments.rows)
        peaks = [
            peak(Path(folder), arguments.backbone, rows) for rows in (arguments.rows, 10 * arguments.rows)
        ]
    figures = {"rows": arguments.rows, "mib": peaks[0], "mib_10x": peaks[1], "ratio": peaks[1] / peaks[0]}
    print(
        "{rows} rows: {mib:.0f} MiB; ten times the rows: {mib_10x:.0f} MiB; ratio {ratio:.3f}".format(
            **figures
        )
    )
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def make_corpus(folder: Path, rows: int) -> None:
    """`rows` clips and a manifest."""
    from stillwave.pipeline.config.corpus import Holdout
    from stillwave.pipeline.corpora.prepare import prepare
    from stillwave.pipeline.corpora.table import Table

    rng = np.random.default_rng(0)
    (folder / "wav").mkdir()
    for i in range(rows):
        noise = 0.1 * rng.standard_normal(int(rng.uniform(2, 4) * 16_000))
        soundfile.write(folder / "wav" / f"{i:05d}.wav", noise, 16_000)
    lines = ["path,emotion,speaker", *(f"wav/{i:05d}.wav,e{i % 4},s{i % 10}" for i in range(rows))]
    (folder / "table.csv").write_text("\n".join(lines))
    columns = {"path": "path", "emotion": "emotion", "speaker": "speaker"}
    config = Table(kind="table", table="table.csv", columns=columns, split=Holdout(kind="holdout"))
    prepare(config, folder, folder / "manifest.parquet")


def peak(folder: Path, backbone: Path, rows: int) -> float:
    """Peak memory, in MiB, of a process that extracts the first `rows` rows."""
    command = [sys.executable, __file__, "--child", folder, "--rows", str(rows), "--backbone", backbone]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(shown.split()[-1])


def child(folder: Path, backbone: Path, rows: int) -> None:
    from stillwave.pipeline.backbones import load_backbone
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.extract.stage import extract

    manifest = read_manifest(folder / "manifest.parquet")[:rows]
    extract(load_backbone(backbone), manifest, folder / f"{rows}.zarr")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
