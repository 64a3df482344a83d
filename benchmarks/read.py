"""Random reads of variable-length rows: our store against np.memmap, plain zarr-python and HDF5.

    python benchmarks/read.py [--rows 2000] [--rounds 5]

Every side holds the same rows (about 190 frames x 768, fp16), reads them in the same random orders from a
warm page cache in one process, and copies each row out, as a batch would. The bytes read are compared. Rounds
are interleaved between the sides; the median round counts. Ends with one line of JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from stillwave.cache import EmbeddingStore, Item, Row, Spec, StoreWriter, write_unit

DIM = 768
Read = Callable[[int], NDArray[np.float16]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = build(Path(folder), arguments.rows)
        rates = measure(sides, arguments.rows, arguments.rounds)
    width = max(map(len, rates))
    for name, rate in rates.items():
        print(f"{name:{width}}  {rate:9.0f} rows/s   {rate / rates['memmap']:5.2f} of memmap")
    figures = {f"{name}_rows_per_s": round(rate) for name, rate in rates.items()}
    figures |= {
        f"stillwave_over_{name}": round(rates["stillwave"] / rates[name], 3)
        for name in rates
        if name != "stillwave"
    }
    print(json.dumps({"rows": arguments.rows, "dim": DIM, **figures}))


def build(folder: Path, rows: int) -> dict[str, Read]:
    """Write the same rows four ways; returns how each is read by row number."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(170), 0.5, rows), 20, 1200).astype(np.int64)
    offsets = np.cumsum(lengths) - lengths
    frames = rng.standard_normal((int(lengths.sum()), DIM), dtype=np.float32).astype(np.float16)
    print(f"{rows} rows, mean {lengths.mean():.0f} frames, {frames.nbytes / 2**30:.2f} GiB")

    frames.tofile(folder / "frames.bin")
    mapped = np.memmap(folder / "frames.bin", dtype=np.float16, mode="r", shape=frames.shape)

    array = zarr.create_array(
        folder / "plain.zarr", shape=frames.shape, dtype="float16", chunks=(256, DIM), shards=(16_384, DIM),
        compressors=None,
    )  # fmt: skip
    array[:] = frames

    with h5py.File(folder / "frames.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(256, DIM))
    dataset = h5py.File(folder / "frames.h5")["frames"]

    spec = Spec(dim=DIM)
    wanted = [Row(f"r{i}", Item(f"{i:06d}", 0), int(n)) for i, n in enumerate(lengths)]
    with StoreWriter(folder / "ours.zarr", spec, {"kind": "benchmark"}) as writer:
        for unit in writer.plan(wanted):
            rows_of = [int(item.content_key) for item in unit.items]
            pieces = [frames[offsets[i] : offsets[i] + lengths[i]] for i in rows_of]
            write_unit(folder / "ours.zarr", spec, unit, zip(unit.items, pieces, strict=True))
        writer.finish()
    store = EmbeddingStore(folder / "ours.zarr")

    def from_(source: "np.memmap | zarr.Array | h5py.Dataset") -> Read:
        return lambda i: source[offsets[i] : offsets[i] + lengths[i]]

    sides = {
        "memmap": from_(mapped),
        "stillwave": lambda i: store[i],
        "hdf5": from_(dataset),
        "zarr": from_(array),
    }
    for name, read in sides.items():
        same = all(
            np.array_equal(read(i), frames[offsets[i] : offsets[i] + lengths[i]]) for i in range(0, rows, 7)
        )
        assert same, f"{name} reads other bytes"
    return sides


def measure(sides: dict[str, Read], rows: int, rounds: int) -> dict[str, float]:
    """Median rows/s of each side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(rows).tolist()
        for name, read in sides.items():
            started = time.perf_counter()
            for i in order:
                np.array(read(i))
            seconds[name].append(time.perf_counter() - started)
    return {name: rows / float(np.median(values)) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
