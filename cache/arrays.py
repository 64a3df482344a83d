"""The Zarr side of a store: which arrays it has, how they are laid out, written and read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from stillwave.cache.errors import NotReadable, StoreError
from stillwave.cache.layout import Spec
from stillwave.cache.storage import Storage

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Index:
    """One entry per row, in the manifest's order. Rows with equal content share offset and frames."""

    ids: NDArray[Any]  # str
    view: NDArray[np.int64]
    content_key: NDArray[Any]  # str, sha256 of the audio bytes or the text
    offsets: NDArray[np.int64]  # first frame of the row in `frames`
    lengths: NDArray[np.int64]  # number of frames
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
    """Path of a shard's file relative to the store's folder."""
    return "frames/c/" + "/".join([str(shard), *("0" for _ in spec.frame_shape)])


def create_group(
    storage: Storage, spec: Spec, fingerprint: dict[str, Any], made_with: dict[str, Any] | None = None
) -> None:
    """Make an empty, incomplete store. The group comes first: a folder without it is not ours."""
    attributes = {
        "format_version": FORMAT_VERSION,
        "complete": False,
        "index_sha256": "",
        "fingerprint": fingerprint,
        "layout": asdict(spec),
    }
    if made_with is not None:
        attributes["made_with"] = made_with
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3, attributes=attributes)
    group.create_array("frames", shape=(0, *spec.frame_shape), **_frames_options(spec))
    for key in ("zarr.json", "frames/zarr.json"):
        storage.put(key, files[key].to_bytes())


def encode_shard(spec: Spec, frames: NDArray[Any]) -> memoryview:
    """The bytes of a shard file with these (shard_frames, [layers,] dim) frames, made by Zarr in memory."""
    files: dict[str, Buffer] = {}
    zarr.create_array(MemoryStore(files), shape=frames.shape, **_frames_options(spec))[:] = frames
    (data,) = (file for key, file in files.items() if key != "zarr.json")
    return memoryview(np.asarray(data.as_numpy_array()).data)


def _frames_options(spec: Spec) -> dict[str, Any]:
    return {
        "dtype": spec.dtype,
        "chunks": (spec.chunk_frames, *spec.frame_shape),
        "shards": (spec.shard_frames, *spec.frame_shape),
        "compressors": ZstdCodec(level=1) if spec.compressor else None,
        "filters": None,
        # NaN is never a frame (NaN from a model is refused), so only space that holds no row is left out of a
        # shard file: its rows stay one contiguous run that can be memory-mapped.
        "fill_value": float("nan"),
        "config": {"write_empty_chunks": False},
    }


def read_attributes(storage: Storage) -> dict[str, Any]:
    """Attributes of a store.

    Raises StoreError if there is no store, NotReadable if there is one that cannot be used.
    """
    try:
        attributes = json.loads(storage.read("zarr.json"))["attributes"]
        version = attributes.get("format_version")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{storage}: no embedding store here; make it with `stillwave extract`") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if not storage.sizes("frames"):
            raise StoreError(f"{storage}: zarr.json describes no embedding store ({error!r})") from None
        raise NotReadable(f"{storage}: zarr.json is damaged ({error!r}); re-extract with --rebuild") from None
    if version is None:
        raise StoreError(f"{storage}: a Zarr group, but not an embedding store; give another path")
    if version != FORMAT_VERSION:
        raise NotReadable(
            f"{storage}: format_version is {version!r}, this Stillwave reads {FORMAT_VERSION}; "
            "re-extract with --rebuild, or use the Stillwave that wrote it"
        )
    try:
        Spec(**attributes["layout"])
        missing = {"complete", "fingerprint", "index_sha256"} - attributes.keys()
    except (LookupError, TypeError, ValueError) as error:
        raise NotReadable(
            f"{storage}: attribute layout is damaged ({error!r}); re-extract with --rebuild"
        ) from None
    if missing:
        raise NotReadable(f"{storage}: attributes {sorted(missing)} are missing; re-extract with --rebuild")
    return dict(attributes)


def set_complete(storage: Storage, index_sha256: str) -> None:
    """Mark the store complete, with the checksum of its index, or incomplete (""), in one atomic step."""
    document = json.loads(storage.read("zarr.json"))
    marked = document["attributes"] | {"complete": bool(index_sha256), "index_sha256": index_sha256}
    if marked != document["attributes"]:
        _put_metadata(storage, "zarr.json", document | {"attributes": marked})


def frames_length(storage: Storage) -> int:
    """The length of `frames`. NotReadable if its metadata is missing or damaged."""
    try:
        return int(json.loads(storage.read("frames/zarr.json"))["shape"][0])
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise NotReadable(
            f"{storage}: frames/zarr.json cannot be read ({error!r}); re-extract with --rebuild"
        ) from None


def resize_frames(storage: Storage, num_frames: int) -> None:
    """Set the length of `frames`. Shard files are not changed: each is written padded to a full shard."""
    document = json.loads(storage.read("frames/zarr.json"))
    if document["shape"][0] != num_frames:
        shape = [num_frames, *document["shape"][1:]]
        _put_metadata(storage, "frames/zarr.json", document | {"shape": shape})


def _put_metadata(storage: Storage, key: str, document: dict[str, Any]) -> None:
    storage.put(key, json.dumps(document, indent=2).encode())  # as Zarr itself writes it


def open_frames(storage: Storage) -> Any:
    return zarr.open_array(storage.zarr_store(), path="frames", mode="r", zarr_format=3)


def read_index(storage: Storage) -> tuple[Index, NDArray[Any]]:
    """The index, and the sha256 of each shard file ("" if there is none). NotReadable if damaged."""
    expected = read_attributes(storage)["index_sha256"]
    names = (*Index.__dataclass_fields__, "shard_sha256")
    keys = ["zarr.json", *(f"{name}/{file}" for name in names for file in ("zarr.json", "c/0"))]
    files: dict[str, Buffer] = {
        key: cpu.Buffer.from_bytes(data) for key, data in storage.read_many(keys).items()
    }
    try:
        group: Any = zarr.open_group(MemoryStore(files), mode="r", zarr_format=3)
        arrays = {name: np.asarray(group[name][:]) for name in names}
    except Exception as error:  # Zarr raises many kinds for missing or damaged metadata
        raise NotReadable(
            f"{storage}: the index cannot be read ({error!r}); re-extract with --rebuild"
        ) from None
    checksums = arrays.pop("shard_sha256")
    index = Index(**arrays)
    if index_sha256(index, checksums) != expected:
        raise NotReadable(f"{storage}: the index is not the one that was written; re-extract with --rebuild")
    return index, checksums


def index_sha256(index: Index, shard_sha256: NDArray[Any]) -> str:
    """A checksum of all index arrays; it changes if a row moves."""
    digest = hashlib.sha256()
    for name, values in (index.arrays() | {"shard_sha256": shard_sha256}).items():
        data = (
            "\n".join(values.tolist()).encode()
            if values.dtype.kind == "T"
            else values.astype("<i8").tobytes()
        )
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def write_index(storage: Storage, index: Index, shard_sha256: list[str]) -> str:
    """Replace the index arrays and the checksums of a store marked incomplete; returns their index_sha256."""
    checksums = np.array(shard_sha256, dtype=np.dtypes.StringDType())
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    for name, values in (index.arrays() | {"shard_sha256": checksums}).items():
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype.kind == "T" else values.dtype,
            chunks=(max(1, len(values)),),
            compressors=None,
            config={"write_empty_chunks": True},
        )
        if len(values):
            array[:] = values
        else:
            storage.delete_tree(f"{name}/c")
    for key in sorted(files.keys() - {"zarr.json"}):
        storage.put(key, files[key].to_bytes())
    return index_sha256(index, checksums)
