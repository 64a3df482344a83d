"""Small analysis folders, written as `analyze` writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.fakes import write_wave

ROWS = 60


def write_analysis(folder: Path, rows: pd.DataFrame, seed: int = 0, k: int = 10, **facts: Any) -> Path:
    """An analysis of made-up embeddings of `rows` (id, path, label, speaker, ...), in clusters by label.

    Adds coordinates of PCA and t-SNE, K-means clusters and true cosine neighbours. `facts`: of analysis.json.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    codes, names = pd.factorize(rows["label"], sort=True)
    centres = rng.standard_normal((len(names) + 1, 16))
    values = (centres[codes] + 0.5 * rng.standard_normal((len(rows), 16))).astype(np.float32)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k].astype(np.int32)
    left, _, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    angle = 2 * np.pi * codes / (len(names) + 1)
    circle = 9 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.standard_normal((len(rows), 2))
    rows = rows.assign(
        kmeans=codes.astype(np.int32),
        pca_x=left[:, 0].astype(np.float32),
        pca_y=left[:, 1].astype(np.float32),
        tsne_x=circle[:, 0].astype(np.float32),
        tsne_y=circle[:, 1].astype(np.float32),
    )
    rows.to_parquet(folder / "rows.parquet")
    np.save(folder / "embeddings.npy", values)
    np.save(folder / "neighbours_cosine.npy", nearest)
    known = {
        "store": f"data/embeddings/{folder.name}.zarr",
        "rows": len(rows),
        "dim": values.shape[1],
        "label": "emotion",
        "classes": list(names),
        "projections": {"pca": {"explained": [0.31, 0.12]}, "tsne": {"kl": 1.2}},
        "notes": [],
    }
    (folder / "analysis.json").write_text(json.dumps(known | facts))
    return folder


def rows_of(root: Path) -> pd.DataFrame:
    """60 rows, three labels, four speakers; the first 12 have recordings, in `root`, the last 10 no path."""
    records = []
    for i in range(ROWS):
        path = root / "wav" / f"clip #{i} 100%?.wav"
        if i < 12:
            write_wave(path, 0.8, 200 + 10 * i, seed=i)
        label, speaker = ("calm", "loud", "sad")[i % 3], f"s{i % 4}"
        predicted = label if i % 5 else "calm"
        records.append(
            {
                "id": f"clip_{i:02d}", "path": str(path) if i < 50 else "", "label": label,
                "speaker": speaker, "language": ("de", "en")[i // 30], "text": f"number {i}",
                "duration_s": 0.8, "predicted": predicted, "correct": predicted == label,
                "confidence": i / 100, "entropy": 1 - i / 100,
            }
        )  # fmt: skip
    return pd.DataFrame(records)
