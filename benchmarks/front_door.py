"""The front door: `prepare` over many small files, and decoding against soundfile.

    python benchmarks/front_door.py [--files 100000] [--corpora /path/to/corpora] [--rounds 9]

Many files: WAVs of 0.1 to 0.3 s, made in a temporary folder, are prepared by another process, which reports
its resident memory at 10, 50 and 100 % of the files, and at the end; then corpus.html is written. Decoding:
every file of EmoDB, if the corpora are given (or STILLWAVE_CORPORA), by soundfile alone, which reads it from
its path, and by `decode_noted`; one round of each in turn. Ends with one line of JSON.
"""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

MARKS = (0.1, 0.5, 1.0)  # of the files
CLASSES, SPEAKERS = 4, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--corpora", type=Path, default=os.environ.get("STILLWAVE_CORPORA") or None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    figures = {}
    if arguments.corpora:
        figures |= decoding(arguments.corpora / "emodb", arguments.rounds)
    if arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder, "corpus"), arguments.files)
            command = [sys.executable, __file__, "--child", folder]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print("".join(shown.splitlines(keepends=True)[:-1]), end="")
        figures |= json.loads(shown.splitlines()[-1])
    print(json.dumps(figures))


def make_files(root: Path, count: int) -> None:
    """Clips of noise of 16 bits, no two equal, a folder for each class and speaker."""
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal(2**20)).astype(np.int16)
    for i in range(count):
        start, length = int(rng.integers(2**19)), int(rng.integers(1600, 4800))
        path = root / f"class_{i % CLASSES}" / f"speaker_{i // CLASSES % SPEAKERS}" / f"{i:06d}.wav"
        if i < CLASSES * SPEAKERS:
            path.parent.mkdir(parents=True)
        samples = i.to_bytes(4, "little") + noise[start : start + length].tobytes()
        path.write_bytes(header(len(samples)) + samples)


def header(size: int) -> bytes:
    """Of a WAV with so many bytes of 16-bit samples, mono at 16 kHz; soundfile would write 1,000 files/s."""
    fields = (size + 36, b"WAVEfmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", size)
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", *fields)


def child(folder: Path) -> None:
    """Prepare the files, and print what it takes."""
    from stillwave.analysis.corpus import write_corpus
    from stillwave.pipeline.corpora.folder import Folder
    from stillwave.pipeline.corpora.prepare import prepare

    memory = {0.0: resident()}

    def watch(done: int, total: int) -> None:
        if done in (round(mark * total) for mark in MARKS):
            memory[done / total] = resident()

    speaker = "/(?P<speaker>[^/]+)/[^/]*$"
    config = Folder(kind="folder", speaker=speaker, max_duration_s=1.0)
    started = time.perf_counter()
    result = prepare(config, folder / "corpus", folder / "manifest.parquet", watch)
    prepared = time.perf_counter() - started
    write_corpus(folder / "manifest.parquet")
    page = time.perf_counter() - started - prepared
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bytes_per_row = (peak - memory[0.0]) * 2**20 / result.rows
    for share, size in memory.items():
        print(f"{share:4.0%} of the files decoded: {size:.0f} MiB")
    print(
        f"{result.rows} files in {prepared:.1f} s: {result.rows / prepared:.0f} files/s, peak {peak:.0f} MiB"
    )
    print(f"{bytes_per_row:.0f} bytes per row at the peak; corpus.html took {page:.1f} s")
    figures = {"files": result.rows, "files_per_s": result.rows / prepared, "page_s": page, "peak_mib": peak}
    figures |= {"bytes_per_row": bytes_per_row}
    figures |= {f"mib_at_{share:.0%}": size for share, size in memory.items()}
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


def resident() -> float:
    """This process's memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def decoding(folder: Path, rounds: int) -> dict[str, float]:
    """Median microseconds per file of both sides, their ratio, and the ratios of single rounds."""
    from stillwave.pipeline.audio.decode import decode_noted

    paths = [str(path) for path in sorted(folder.rglob("*.wav"))]
    seconds: dict[str, list[float]] = {"soundfile": [], "stillwave": []}
    for round_ in range(-1, rounds):  # the first only warms up
        for name in seconds:
            started = time.perf_counter()
            for path in paths:
                if name == "soundfile":
                    soundfile.read(path, dtype="float32")
                else:
                    decode_noted(path)
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
    each = np.array(seconds["stillwave"]) / np.array(seconds["soundfile"])
    us = {name: 1e6 * float(np.median(values)) / len(paths) for name, values in seconds.items()}
    ratio = us["stillwave"] / us["soundfile"]
    low, high = np.quantile(each, (0.25, 0.75))
    print(
        f"{len(paths)} files of EmoDB, each: soundfile {us['soundfile']:.0f} us, stillwave "
        f"{us['stillwave']:.0f} us: ratio {ratio:.2f} (of single rounds, quartiles {low:.2f} to {high:.2f})"
    )
    return {
        "decode_ratio": round(ratio, 3),
        "decode_ratio_low": round(float(low), 3),
        "decode_ratio_high": round(float(high), 3),
    }


if __name__ == "__main__":
    main()
