"""The embedding store: variable-length frames in a plain Zarr group, written once, read like a memory map."""

from cache.errors import FingerprintMismatch, IncompleteStore, NotReadable, StoreError, StoreLocked
from cache.layout import Item, Row, Spec, Unit
from cache.store import EmbeddingStore
from cache.units import write_unit
from cache.writer import StoreWriter

__all__ = [
    "EmbeddingStore",
    "FingerprintMismatch",
    "IncompleteStore",
    "Item",
    "NotReadable",
    "Row",
    "Spec",
    "StoreError",
    "StoreLocked",
    "StoreWriter",
    "Unit",
    "write_unit",
]
