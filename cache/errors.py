"""What can go wrong with a store, by name."""


class StoreError(ValueError):
    """A store that cannot be used as asked; the message names the store and the remedy."""


class IncompleteStore(StoreError):
    """The store is being written, or its writing was interrupted."""


class FingerprintMismatch(StoreError):
    """The store holds frames made with another backbone, weights, config or precision."""


class StoreLocked(StoreError):
    """Another process is writing the store."""


class NotReadable(StoreError):
    """A store that this version cannot read: damaged metadata, or another format version."""
