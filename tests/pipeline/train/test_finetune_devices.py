"""Fine-tuning on each device: in pieces, with activations computed again, the CPU's losses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stillwave.pipeline.backbones import parse_backbone
from stillwave.pipeline.train.finetune import finetune
from tests.devices import on_each_device
from tests.pipeline.train.test_finetune import transformers_without_dropout, tuned


@on_each_device
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_epoch_has_the_cpus_losses(
    precision: str, device: str, manifest: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    """Without dropout, of which a GPU draws other numbers."""
    settings = transformers_without_dropout(tmp_path / "weights")
    model = parse_backbone(settings, "test", trusted=True)
    table = manifest.drop(columns="fold").assign(split=np.where(manifest["fold"] == 0, "test", "train"))
    losses = {}
    for out, where, kind in (("cpu", "cpu", "fp32"), ("there", device, precision)):
        wanted = tuned(
            train={"epochs": 2, "accumulate": 2, "precision": kind},
            gradient_checkpointing=True,
            learning_rate=1e-4,
        )
        run = finetune(
            wanted,
            table,
            {"wav2vec2": model},
            tmp_path / out,
            manifest_path=speech / "manifest.parquet",
            device=where,
        )
        losses[out] = pd.read_csv(run / "fold_0" / "history.csv")["train_loss"].to_numpy()
    np.testing.assert_allclose(losses["there"], losses["cpu"], rtol=0.01 if precision == "fp32" else 0.05)
    assert losses["there"][-1] < losses["there"][0]
