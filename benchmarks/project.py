"""Time and memory of PCA, t-SNE and UMAP, and of pooling a store that is far larger than they are.

    python benchmarks/project.py [--rows 50000] [--dim 768] [--frames 20] [--only pca,tsne,umap,pool]

Rows are 40 seeded clusters. Each side is a separate process: t-SNE reads 50 principal components, as
`stillwave analyze` does, and UMAP the vectors. `pool` makes the vectors from a store on
disk; its memory is compared with what the frames would take. Peak memory is what the operating system
counted; private excludes the pages of the mapped store, which it reclaims when needed. Ends
with one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("pca", "tsne", "umap", "pool")
CLUSTERS = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--frames", type=int, default=20, help="mean number of frames of a row")
    parser.add_argument("--only", default=",".join(SIDES))
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, folder = arguments.child
        measure(side, Path(folder))
        return
    sides = arguments.only.split(",")
    figures: dict[str, Any] = {"rows": arguments.rows, "dim": arguments.dim, "threads": threads()}
    print("{rows} x {dim}, {threads} threads".format(**figures), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        vectors = clustered(arguments.rows, arguments.dim)
        np.save(Path(folder) / "vectors.npy", vectors)
        if "pool" in sides:
            figures["frames_mib"] = write_frames(Path(folder) / "rows.zarr", vectors, arguments.frames)
        for side in sides:
            command = [sys.executable, __file__, "--child", side, folder]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            figures[side] = json.loads(shown.splitlines()[-1])
            print(f"{side}: {figures[side]}", flush=True)
    if "pool" in sides:
        pool = figures["pool"]
        pool["of_frames"] = round((pool["private_mib"] - pool["before_mib"]) / figures["frames_mib"], 4)
        print(f"pooling took {pool['of_frames']:.1%} of the {figures['frames_mib']} MiB of frames as memory")
    print(json.dumps(figures))


def clustered(rows: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    noise = rng.standard_normal((rows, dim), dtype=np.float32)
    return centres[rng.integers(0, CLUSTERS, rows)] + noise


def write_frames(path: Path, vectors: np.ndarray, frames: int) -> int:
    """A store whose rows are frames around each vector; returns the size of its frames in MiB."""
    from stillwave.cache import Item, Row, Spec, StoreWriter, write_unit

    rng = np.random.default_rng(1)
    lengths = rng.integers(frames // 2, frames + (frames + 1) // 2, len(vectors)).clip(1)
    rows = [Row(f"{i:06d}", Item(str(i), 0), int(length)) for i, length in enumerate(lengths)]
    spec = Spec(dim=vectors.shape[1])
    with StoreWriter(path, spec, {"kind": "synthetic"}) as writer:
        for unit in writer.plan(rows):
            made = (
                (item, (vectors[int(item.content_key)] + rng.standard_normal((length, spec.dim), np.float32)))
                for item, length in zip(unit.items, unit.lengths, strict=True)
            )
            write_unit(path, spec, unit, ((item, values.astype(spec.dtype)) for item, values in made))
        writer.finish()
    return int(lengths.sum()) * spec.dim * 2 // 2**20


def measure(side: str, folder: Path) -> None:
    """One side, in a separate process: prints seconds and memory as JSON."""
    from stillwave.analysis import projections
    from stillwave.analysis.embeddings import pool_store
    from stillwave.cache import EmbeddingStore
    from stillwave.pipeline.config.analysis import Pca, Tsne, Umap

    if side == "pool":
        store = EmbeddingStore(folder / "rows.zarr")
        before, start = memory("RssAnon"), time.perf_counter()
        with Watch() as watch:
            pool_store(store, np.arange(len(store)), "mean")
    else:
        x = np.load(folder / "vectors.npy")
        before, start = memory("RssAnon"), time.perf_counter()
        with Watch() as watch:
            if side == "umap":
                projections.umap(x, Umap(), 0)
            else:
                components, _ = projections.pca(x, Pca().components, 0)
                if side == "tsne":
                    projections.tsne(components, Tsne(), 0)
    seconds = time.perf_counter() - start
    facts = {"peak_mib": memory("VmHWM"), "private_mib": watch.peak, "before_mib": before}
    print(json.dumps({"seconds": round(seconds, 1)} | facts))


class Watch:
    """The largest private memory of this process within the block, sampled every 10 ms; MiB."""

    def __enter__(self) -> "Watch":
        self.peak, self._done = memory("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, memory("RssAnon"))


def memory(field: str) -> int:
    """A field of this process's status (Linux), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) // 1024


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
