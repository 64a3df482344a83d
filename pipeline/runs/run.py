"""Opening a finished run: its config.json, and the models in its folder."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stillwave.cache.differences import differences
from stillwave.pipeline.audio.files import is_url
from stillwave.pipeline.backbones import (
    Backbone,
    BackboneConfig,
    build_backbone,
    load_backbone,
    parse_backbone,
)
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.runs.calibrate import FILE as CALIBRATION
from stillwave.pipeline.runs.calibrate import RENAMED, Calibration
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.model import Model, at_precision
from stillwave.pipeline.runs.seen import Seen
from stillwave.pipeline.runs.tensors import load_facts, load_state, load_tensors, state_of

CONFIG, COMPLETE = "config.json", "complete"
WEIGHTS, HISTORY = "model.safetensors", "history.csv"  # in a fold's folder, with CALIBRATION
SEEN = "seen.json"  # keys of the run's rows: nothing is estimated on them again
# "s3:/" becomes a URL when a name follows it.
SCHEME = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)
FORMAT = 3  # of a run folder; increase it if older runs cannot be read
# The keys of every config.json, and their types.
KEYS: dict[str, tuple[type, ...]] = {
    "recipe": (dict,),
    "classes": (list,),
    "folds": (list,),
    "rows": (str,),
    "stores": (dict,),
    "backbones": (dict,),
    "live": (bool,),
    "manifest": (str,),
    "embeddings": (str, type(None)),
}


@dataclass(frozen=True)
class Run:
    """A trained run: `Run.open(folder)`.

    folds: their numbers. rows: digest of the rows it was trained on. stores: the fingerprint and the frame
    shape of each modality. backbones: for each modality, the settings that made its frames, if known. live:
    its backbones were trained too. manifest, embeddings: their paths at training; the latter is None for a
    live run. config: all of config.json. trusted: see `open`.
    """

    folder: Path
    classes: tuple[str, ...]
    folds: tuple[int, ...]
    rows: str
    stores: Mapping[str, Mapping[str, Any]]
    backbones: Mapping[str, Mapping[str, Any] | None]
    live: bool
    manifest: str
    embeddings: str | None
    config: Mapping[str, Any]
    trusted: bool = False

    @classmethod
    def open(cls, folder: "str | Path | Run", *, trusted: bool = False) -> "Run":
        """The run in a folder; a Run is returned as it is.

        trusted: whether its config.json may have code imported and files fetched (docs/security.md); only for
        your own runs, or those of people you trust. Raises ValueError naming the file and the key that is
        wrong, also if there is no complete run of this format.
        """
        if isinstance(folder, Run):
            return folder
        folder = Path(folder)
        config = _read(folder)
        return cls(
            folder=folder,
            classes=tuple(config["classes"]),
            folds=tuple(config["folds"]),
            **{key: config[key] for key in KEYS if key not in ("recipe", "classes", "folds")},
            config=config,
            trusted=trusted,
        )

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe. Raises ValueError for a custom head, unless the run is trusted."""
        found: Recipe = parse_config(
            _renamed(self.config["recipe"]), Recipe, source=str(self.folder / CONFIG), trusted=self.trusted
        )
        return found

    def place(self, name: Literal["manifest", "embeddings"]) -> str:
        """The path of the manifest or the stores at training. ValueError for a URL in an untrusted run."""
        found = str(getattr(self, name))
        if not self.trusted and (is_url(found) or SCHEME.match(found)):
            raise ValueError(
                f"{self.folder / CONFIG}: {name} is the URL {found}, which is not followed, because the run "
                f"may be somebody else's: give it with --{name}, or use --trust-run"
            )
        return found

    def fold_folder(self, fold: int) -> Path:
        """The folder of a fold. Raises ValueError for a fold that the run does not have."""
        if fold not in self.folds:
            raise ValueError(f"fold {fold}: {self} has {', '.join(map(str, self.folds))}")
        return self.folder / f"fold_{fold}"

    def facts(self, fold: int) -> dict[str, Any]:
        """The facts of one model, without its tensors: classes, and speakers that have a vector."""
        return load_facts(self.fold_folder(fold) / WEIGHTS)

    def weights(self, fold: int) -> dict[str, Tensor]:
        """The trained tensors of one model, by their names in `Model`."""
        tensors, _ = load_tensors(self.fold_folder(fold) / WEIGHTS)
        return tensors if self.live else {f"head.{name}": tensor for name, tensor in tensors.items()}

    def calibration(self, fold: int) -> Calibration:
        return Calibration.load(self.fold_folder(fold))

    def digests(self, folds: Iterable[int] | None = None) -> dict[str, str]:
        """sha256 of each fold's weights, by its number as text; empty if there are none."""
        found = {}
        for fold in self.folds if folds is None else folds:
            file = self.folder / f"fold_{fold}" / WEIGHTS
            found[str(fold)] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
        return found

    def training_digest(self) -> str:
        """sha256 of what determines a report: recipe, classes, rows, frames, and what every fold learned.

        A report with another digest belongs to another training of the run.
        """
        told = [self.config[key] for key in ("recipe", "classes", "rows", "stores")]
        files = [self.fold_folder(fold) / CALIBRATION for fold in self.folds]
        calibrations = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        parts = [json.dumps(told, sort_keys=True), *self.digests().values(), *calibrations]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def seen(self) -> Seen:
        """The recordings of its rows."""
        return Seen(json.loads((self.folder / SEEN).read_text()))

    def encoders(self, backbones: str | Path | None = None) -> dict[str, Backbone]:
        """The backbones by modality: frozen, on the CPU, with the weights they had before the run's training.

        They are built from the settings recorded in the run, or from `<name>.yaml` in the folder `backbones`.
        Raises ValueError if they would give different frames from those that the run was trained on.
        """
        found = {}
        for name, store in self.recipe.stores().items():
            encoder = build_backbone(self._settings(name, store, backbones))
            if differing := differences(self.stores[name]["fingerprint"], fingerprint(encoder)):
                raise ValueError(
                    f"{self}: the backbone {store} would give different frames from those of the training: "
                    f"{'; '.join(differing)}. Use the weights and library versions of the training, or train "
                    "again"
                )
            found[name] = encoder
        return found

    def _settings(self, name: str, store: str, backbones: str | Path | None) -> BackboneConfig:
        if backbones is not None:
            return load_backbone(Path(backbones) / f"{store}.yaml")
        settings = self.backbones.get(name)
        if settings is None:
            raise ValueError(
                f"{self}: it does not record how the frames of {store} were made, because an older Stillwave "
                "wrote their store; give the folder of the backbone configs with --backbones"
            )
        return parse_backbone(settings, f"{self.folder / CONFIG}: backbones.{name}", trusted=self.trusted)

    def model(self, fold: int, encoders: Mapping[str, Backbone] | None = None) -> Model:
        """The model of a fold: frozen, in eval mode, on the CPU.

        encoders: from `encoders`. A live run's weights are put into them. In a cached run, the model starts
        with them, and without them reads stored frames.
        """
        if encoders is None:
            encoders = self.encoders() if self.live else {}
        if self.live:
            precision = self.recipe.train.precision
            encoders = {name: at_precision(encoder, precision) for name, encoder in encoders.items()}
        shapes = {name: tuple(store["frame_shape"]) for name, store in self.stores.items()}
        speakers = self.facts(fold).get("speakers") or ()
        head = build_head(self.recipe, shapes, len(self.classes), num_speakers=len(speakers))
        model = Model(encoders, head, self.recipe.finetune if self.live else None)
        load_state(model, self.weights(fold), self.fold_folder(fold))
        return model.eval().requires_grad_(False)


def tensors_to_save(model: Model) -> dict[str, Tensor]:
    """The tensors that `Run.weights` reads: for a model without encoders, under the head's own names."""
    prefix = "" if model.encoders else "head."
    return {name.removeprefix(prefix): tensor for name, tensor in state_of(model).items()}


def _read(run: Path) -> dict[str, Any]:
    """config.json, which has all of KEYS."""
    file = run / CONFIG
    if not file.exists():
        raise ValueError(f"{run}: no run here; make it with `stillwave train`")
    if not (run / COMPLETE).exists():
        raise ValueError(
            f"{run}: training has not finished; run the same `stillwave train` again, and it resumes"
        )
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); train the run again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: holds no JSON object, but {config!r:.40}; train the run again")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{run}: a run of format {config.get('format', 1)} (Stillwave {config.get('stillwave', '?')}); "
            f"this version reads format {FORMAT}: train it again"
        )
    for key, kinds in KEYS.items():
        if key not in config:
            raise ValueError(f"{file}: lacks the key {key!r}; train the run again")
        if not isinstance(config[key], kinds):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ValueError(f"{file}: {key!r} is {config[key]!r:.40}, no {wanted}; train the run again")
    return config


def _renamed(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe, its open-set score under its current name."""
    open_set = recipe.get("open_set", {})
    score = open_set.get("score")
    return recipe | ({"open_set": open_set | {"score": RENAMED[score]}} if score in RENAMED else {})
