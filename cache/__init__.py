"""The embedding store: variable-length frames in a plain Zarr group, written once, read like a memory map."""

from stillwave.cache.errors import FingerprintMismatch, IncompleteStore, NotReadable, StoreError, StoreLocked
from stillwave.cache.layout import Item, Row, Spec, Unit
from stillwave.cache.store import EmbeddingStore
from stillwave.cache.units import write_unit
from stillwave.cache.writer import StoreWriter

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
