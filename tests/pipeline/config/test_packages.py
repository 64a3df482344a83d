"""Packages that only some work needs: what asks for a missing one says so, the rest does without."""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stillwave.pipeline.audio.augment as augment_module
import stillwave.pipeline.runs.folder as run_folder
from stillwave.analysis.projections import umap
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.audio.augment import Effects, apply, view_key
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.commands.analysis import explore, report
from stillwave.pipeline.config.analysis import Umap
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.views import ViewsConfig
from stillwave.pipeline.corpora.espeak import synthesize
from stillwave.pipeline.extract.scale import connect, start_workers
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.processes import Launched
from tests.fakes import row, write_store

CONTENT = "ab" * 32


def to_dask(folder: Path) -> Any:
    write_store(folder / "x.zarr", [row("a", 3)])
    return EmbeddingStore(folder / "x.zarr").to_dask()


def finetune_with_pitch(folder: Path) -> Any:
    tuning = {"augment": {"pitch": {"probability": 1}}}
    recipe = Recipe.model_validate(
        {"backbones": ["fbank"], "label": "word", "head": {"kind": "segment"}, "finetune": tuning}
    )
    backbones = {"fbank": FbankConfig(kind="fbank")}
    return finetune(recipe, pd.DataFrame(), backbones, folder, manifest_path=folder / "manifest.parquet")


ASKED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "pitch needs python-stretch": (
        "python_stretch.Signalsmith",
        lambda folder: apply(np.zeros(9, np.float32), 16_000, Effects(semitones=1.0)),
    ),
    "finetune.augment.pitch needs python-stretch": ("python_stretch.Signalsmith", finetune_with_pitch),
    "the demo corpus needs espeakng-loader": ("espeakng_loader", lambda folder: synthesize([])),
    "--workers needs distributed": ("distributed", lambda folder: start_workers(1).__enter__()),
    "--scheduler needs distributed": ("distributed", lambda folder: connect("tcp://x:1").__enter__()),
    "to_dask needs dask": ("dask", to_dask),
    "finetune needs accelerate": ("accelerate", lambda folder: Launched("fp32", "cpu")),
    "umap needs umap-learn": ("umap", lambda folder: umap(np.eye(20), Umap(), 0)),
    "explore needs bokeh": ("stillwave.analysis.explorer", lambda folder: explore([folder])),
    "report needs jinja2": ("stillwave.analysis.report", lambda folder: report([folder])),
}


@pytest.mark.parametrize("message", ASKED)
def test_what_asks_for_a_missing_package_names_it_and_the_remedy(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, ask = ASKED[message]
    monkeypatch.setitem(sys.modules, module, None)  # its import fails
    with pytest.raises(ValueError, match=rf"^{message}, which cannot be imported .*: `pip install "):
        ask(tmp_path)


def test_views_without_the_package_whose_version_is_in_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(name: str) -> str:
        if name == "python-stretch":
            raise PackageNotFoundError(name)
        return version(name)

    views = ViewsConfig.model_validate({"count": 1, "speed": {"probability": 1}})
    view_key(CONTENT, 1, views)
    monkeypatch.setattr(augment_module, "version", version_of)
    augment_module._versions.cache_clear()
    with pytest.raises(ValueError, match=r"^views needs python-stretch, .*: `pip install python-stretch`"):
        view_key(CONTENT, 1, views)


def test_a_run_without_dvclive_lacks_its_folder_alone_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)
    run_folder._say_once.cache_clear()
    with caplog.at_level(logging.INFO, run_folder.__name__):
        for fold in ("fold_0", "fold_1"):
            (tmp_path / fold).mkdir()
            run_folder.write_curves(tmp_path / fold, [{"loss": 2.0}, {"loss": 1.0}])
    (said,) = caplog.messages
    assert "`pip install dvclive`" in said
    assert [path.name for path in (tmp_path / "fold_1").iterdir()] == ["history.csv"]
    assert pd.read_csv(tmp_path / "fold_1/history.csv")["loss"].tolist() == [2.0, 1.0]
