"""The Zarr side of a store: which arrays it has, how they are laid out, how they are made and read."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from cache.errors import NotReadable, StoreError
from cache.layout import Spec

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Index:
    """One entry per row, in the manifest's order. Rows of equal content share offset and frames."""

    ids: NDArray[Any]  # str
    view: NDArray[np.int64]
    content_key: NDArray[Any]  # str, sha256 of the audio bytes or the text
    offsets: NDArray[np.int64]  # first frame of the row in `frames`
    lengths: NDArray[np.int64]  # frames of the row
    unit: NDArray[np.int64]  # the unit that wrote it

    @classmethod
    def empty(cls) -> "Index":
        texts, numbers = np.array([], dtype=np.dtypes.StringDType()), np.array([], dtype=np.int64)
        return cls(texts, numbers, texts, numbers, numbers, numbers)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def equals(self, other: "Index") -> bool:
        mine, theirs = self.arrays(), other.arrays()
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def shard_key(spec: Spec, shard: int) -> str:
    """Path of a shard's file below the store's folder."""
    return "frames/c/" + "/".join([str(shard), *("0" for _ in spec.frame_shape)])


def create_group(root: Path, spec: Spec, fingerprint: dict[str, Any]) -> None:
    """Make an empty, incomplete store. The group comes first: a folder without it is not ours."""
    attributes = {
        "format_version": FORMAT_VERSION,
        "complete": False,
        "index_sha256": "",
        "fingerprint": fingerprint,
        "layout": asdict(spec),
    }
    group = zarr.create_group(root, zarr_format=3, attributes=attributes)
    group.create_array(
        "frames",
        shape=(0, *spec.frame_shape),
        dtype=spec.dtype,
        chunks=(spec.chunk_frames, *spec.frame_shape),
        shards=(spec.shard_frames, *spec.frame_shape),
        compressors=ZstdCodec(level=1) if spec.compressor else None,
        filters=None,
        # NaN never is a frame (NaN out of a model is refused), so only space that holds no row is ever
        # left out of a shard file: the rows in it stay one contiguous run that can be memory-mapped.
        fill_value=float("nan"),
        config={"write_empty_chunks": False},
    )


def read_attributes(root: Path) -> dict[str, Any]:
    """Attributes of a store.

    Raises StoreError when there is no store of ours, NotReadable when there is one that cannot be used.
    """
    try:
        attributes = json.loads((root / "zarr.json").read_text())["attributes"]
        version = attributes.get("format_version")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root}: no embedding store here; make it with `stillwave extract`") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if not (root / "frames").exists():
            raise StoreError(f"{root}: zarr.json is not that of an embedding store ({error!r})") from None
        raise NotReadable(f"{root}: zarr.json is damaged ({error!r}); re-extract with --rebuild") from None
    if version is None:
        raise StoreError(f"{root}: a Zarr group, but not an embedding store; give another path")
    if version != FORMAT_VERSION:
        raise NotReadable(
            f"{root}: format_version is {version!r}, this Stillwave reads {FORMAT_VERSION}; "
            "re-extract with --rebuild, or use the Stillwave that wrote it"
        )
    try:
        Spec(**attributes["layout"])
        missing = {"complete", "fingerprint", "index_sha256"} - attributes.keys()
    except (LookupError, TypeError, ValueError) as error:
        raise NotReadable(
            f"{root}: attribute layout is damaged ({error!r}); re-extract with --rebuild"
        ) from None
    if missing:
        raise NotReadable(f"{root}: attributes {sorted(missing)} are missing; re-extract with --rebuild")
    return dict(attributes)


def set_complete(root: Path, index_sha256: str) -> None:
    """Mark the store complete with the index of that checksum, or incomplete (""), in one atomic step."""
    group = zarr.open_group(root, mode="r+", zarr_format=3)
    wanted = {"complete": bool(index_sha256), "index_sha256": index_sha256}
    if any(group.attrs[name] != value for name, value in wanted.items()):
        group.update_attributes(wanted)


def resize_frames(root: Path, num_frames: int) -> None:
    """Set the length of `frames`. Shard files stay as they are: each is written padded to a full shard."""
    frames = open_frames(root, mode="r+")
    if frames.shape[0] != num_frames:
        frames.resize((num_frames, *frames.shape[1:]))


def open_frames(root: Path, mode: Any = "r") -> Any:
    return zarr.open_array(root / "frames", mode=mode, zarr_format=3)


def read_index(root: Path) -> tuple[Index, NDArray[Any]]:
    """The index, and the sha256 of each shard file ("" where there is none). NotReadable when damaged."""
    expected = read_attributes(root)["index_sha256"]
    group = zarr.open_group(root, mode="r", zarr_format=3)
    try:
        arrays = {name: np.asarray(group[name][:]) for name in Index.__dataclass_fields__}  # type: ignore[index]
        checksums = np.asarray(group["shard_sha256"][:])  # type: ignore[index]
    except Exception as error:  # whatever Zarr makes of missing or damaged metadata
        raise NotReadable(
            f"{root}: the index cannot be read ({error!r}); re-extract with --rebuild"
        ) from None
    index = Index(**arrays)
    if index_sha256(index, checksums) != expected:
        raise NotReadable(f"{root}: the index is not the one that was written; re-extract with --rebuild")
    return index, checksums


def index_sha256(index: Index, shard_sha256: NDArray[Any]) -> str:
    """A checksum of all index arrays; it changes whenever a row's place does."""
    digest = hashlib.sha256()
    for name, values in (index.arrays() | {"shard_sha256": shard_sha256}).items():
        data = (
            "\n".join(values.tolist()).encode()
            if values.dtype.kind == "T"
            else values.astype("<i8").tobytes()
        )
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def write_index(root: Path, index: Index, shard_sha256: list[str]) -> str:
    """Replace the index arrays and the checksums of a store marked incomplete; returns their index_sha256."""
    group = zarr.open_group(root, mode="r+", zarr_format=3)
    checksums = np.array(shard_sha256, dtype=np.dtypes.StringDType())
    for name, values in (index.arrays() | {"shard_sha256": checksums}).items():
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype.kind == "T" else values.dtype,
            chunks=(max(1, len(values)),),
            compressors=None,
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        if len(values):
            array[:] = values
    return index_sha256(index, checksums)


def fsync(path: Path) -> None:
    """Wait until a file is on the disk, so that a record never outlives what it records."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
