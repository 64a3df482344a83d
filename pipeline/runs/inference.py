"""A head's outputs on many rows, in their order."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillwave.cache.batches import length_bucketed
from stillwave.heads.base import Head, Outputs
from stillwave.pipeline.runs.features import Features

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> Any:
    """A context in which `precision` is computed on `device`."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


@torch.no_grad()
def outputs_of(
    head: Head,
    features: Features,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 64,
    precision: str = "fp32",
) -> Outputs:
    """The outputs of `rows`, in their order, in fp32 on the CPU. Raises ValueError for no rows."""
    if not len(rows):
        raise ValueError("no rows to predict")
    head.eval()
    batches = length_bucketed(features.lengths[rows], max_rows=batch_size)
    parts: list[Outputs] = []
    for batch in batches:
        inputs = features.batch(rows[batch])
        with autocast(features.device, precision):
            found = head.outputs(*inputs)
        parts.append(found.each(lambda value: value.float()))
    place = torch.from_numpy(np.argsort(np.concatenate(batches)))
    given = [part.learned_uncertainty for part in parts if part.learned_uncertainty is not None]
    whole = Outputs(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.features for part in parts]),
        torch.cat(given) if given else None,
    )
    # Copy to the host once, not per batch: each copy waits for the device.
    return whole.each(lambda value: value.cpu()[place])


def predict(
    head: Head,
    features: Features,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 64,
    precision: str = "fp32",
) -> NDArray[np.float32]:
    """Logits of `rows`, (rows, classes), in their order."""
    found = outputs_of(head, features, rows, batch_size=batch_size, precision=precision)
    logits: NDArray[np.float32] = found.logits.numpy()
    return logits
