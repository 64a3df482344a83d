"""Does a vector of the voice help a personalised head with a speaker it never heard?

    STILLWAVE_CORPORA=... python benchmarks/voices.py [--corpora emodb7 fsdd] [--seeds 3] [--work FOLDER]

Every speaker is held out in turn. A clip is the mean and deviation over time of one Whisper tiny layer and of
fbank; the head has one hidden layer. It is trained four times per fold and seed, from the same weights:
none: as it is. learned: with a vector for each training speaker and one for unknown speakers, as recipes'
`personalise` does; the held-out speaker gets the latter. clip: with a linear map of Resemblyzer's vector of
the clip itself. speaker: of the mean vector of all clips of the speaker, which takes more recordings of a
new speaker, but no labels. Settings are the same for all and were not tuned, except for the layer, which
others had found to be best on the same folds. Prints the UAR with its 95 % interval by speaker, the
difference from `none`, and one line of JSON. --work: where frames are kept, and found by the next call.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stillwave.cache import EmbeddingStore
from stillwave.heads.base import Head, Outputs
from stillwave.heads.personal import UNKNOWN_SPEAKER, Personalised
from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.scores.intervals import bootstrap, paired_bootstrap

CONFIGS = Path(__file__).parents[1] / "configs"
STORES = ("whisper_tiny", "fbank", "resemblyzer")
LABELS = {"emodb": "emotion", "emodb7": "emotion", "fsdd": "word"}
LAYERS = {"emodb": 2, "emodb7": 2, "fsdd": 3}
EPOCHS = {"emodb": 60, "emodb7": 60, "fsdd": 20}
SYSTEMS = ("none", "learned", "clip", "speaker")


class Plain(Head):
    """Vectors (batch, width) -> hidden layer -> logits."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.5))
        self.classify = nn.Linear(128, num_classes)

    @property
    def output(self) -> nn.Linear:
        return self.classify

    def outputs(self, *inputs: Tensor) -> Outputs:
        features = self.hidden(inputs[0])
        return Outputs(self.classify(features), features)


class Voiced(Personalised):
    """A personalised head whose speaker's vector is a linear map of a vector of the voice (batch, 256)."""

    def __init__(self, head: Head) -> None:
        super().__init__(head, num_speakers=1)
        self.voice = nn.Linear(256, self.speakers.embedding_dim)

    def outputs(self, *inputs: Tensor) -> Outputs:
        *others, voices = inputs
        features = self.moved(self.head.outputs(*others).features, self.voice(voices))
        return Outputs(self.output(features), features)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", choices=LABELS, default=["emodb7", "fsdd"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.corpora:
            work = (arguments.work or Path(temporary)) / name
            figures[name] = measure(name, Path(folder, name.rstrip("7")), work, arguments.seeds)
    print(json.dumps(figures))


def measure(name: str, root: Path, work: Path, seeds: int) -> dict[str, Any]:
    """Each system's UAR on a corpus, with intervals."""
    manifest = frames_of(name, root, work)
    stores = {store: EmbeddingStore(f"{work}/{store}.zarr") for store in STORES}
    ids = manifest["id"].tolist()
    each = {store: dict(opened.each(opened.rows(ids).tolist())) for store, opened in stores.items()}
    items = {store: list(values.values()) for store, values in each.items()}
    whisper = [frames[:, LAYERS[name]] for frames in items["whisper_tiny"]]
    clips = torch.stack([summary(both) for both in zip(whisper, items["fbank"], strict=True)])
    voices = torch.stack([torch.tensor(frames).float().mean(0) for frames in items["resemblyzer"]])
    speakers = manifest["speaker"].tolist()
    classes = sorted(set(manifest[LABELS[name]]))
    labels = torch.tensor([classes.index(label) for label in manifest[LABELS[name]]])
    found: dict[str, list[str]] = {}
    for system in SYSTEMS:
        found[system] = []
        for seed in range(seeds):
            numbers = torch.empty_like(labels)
            for fold in sorted(set(manifest["fold"])):
                test = torch.from_numpy((manifest["fold"] == fold).to_numpy())
                logits = trained(system, clips, voices, speakers, labels, test, seed, EPOCHS[name])
                numbers[test] = logits.argmax(1)
            found[system] += [classes[number] for number in numbers.tolist()]
    # Several seeds are further rows of the same speakers.
    actual, groups = manifest[LABELS[name]].tolist() * seeds, speakers * seeds
    return {system: row(name, system, found, actual, groups) for system in SYSTEMS}


def frames_of(name: str, root: Path, work: Path) -> pd.DataFrame:
    """The corpus's manifest, after its frames were written to `work`, if they were not there."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "manifest.parquet"
    prepare(load_config(CONFIGS / "corpora" / f"{name}.yaml", CorpusConfig), root, path)
    manifest = read_manifest(path, columns=[LABELS[name]])
    for store in STORES:
        extract(load_backbone(CONFIGS / "backbones" / f"{store}.yaml"), manifest, work / f"{store}.zarr")
    return manifest


def summary(parts: tuple[Any, ...]) -> Tensor:
    """Frames of each part, (frames, dim) -> their means and deviations, one after another."""
    tensors = [torch.tensor(part).float() for part in parts]
    return torch.cat([one for part in tensors for one in (part.mean(0), part.std(0, correction=0))])


def trained(
    system: str,
    clips: Tensor,
    voices: Tensor,
    speakers: list[str],
    labels: Tensor,
    test: Tensor,
    seed: int,
    epochs: int,
) -> Tensor:
    """Logits of the test rows, by a head trained on the others."""
    torch.manual_seed(seed)
    head: Head = Plain(clips.shape[1], int(labels.max()) + 1)
    inputs = [standard(clips, ~test)]
    if system == "learned":
        names = sorted({name for name, held_out in zip(speakers, test.tolist(), strict=True) if not held_out})
        numbers = {name: number for number, name in enumerate(names, UNKNOWN_SPEAKER + 1)}
        head = Personalised(head, len(names))
        inputs.append(torch.tensor([numbers.get(name, UNKNOWN_SPEAKER) for name in speakers]))
    elif system != "none":
        head = Voiced(head)
        if system == "speaker":
            means = {name: voices[np.array(speakers) == name].mean(0) for name in set(speakers)}
            voices = torch.stack([means[name] for name in speakers])
        inputs.append(standard(voices, ~test))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    rows = torch.nonzero(~test)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in rows[torch.randperm(len(rows), generator=generator)].split(32):
            logits = head(*(values[chosen] for values in inputs))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found: Tensor = head.eval()(*(values[test] for values in inputs))
    return found


def standard(values: Tensor, train: Tensor) -> Tensor:
    """Every column with mean 0 and deviation 1 over the training rows."""
    mean, deviation = values[train].mean(0), values[train].std(0)
    return (values - mean) / deviation.clamp(min=1e-5)


def row(
    name: str, system: str, found: dict[str, list[str]], actual: list[str], groups: list[str]
) -> dict[str, Any]:
    """A system's UAR, its interval, and that of its difference from `none`, each by speaker; printed, too."""
    recalls = pd.Series(np.equal(found[system], actual)).groupby(np.array(actual)).mean()
    uar = float(recalls.mean())
    low, high = bootstrap(actual, found[system], np.random.default_rng(0), groups=groups)["uar"]
    pair = paired_bootstrap(actual, found["none"], found[system], np.random.default_rng(0), groups=groups)
    print(
        f"{name} {system:8} UAR {uar:.3f} ({low:.3f} to {high:.3f}), "
        f"to none {pair['uar'][0]:+.3f} to {pair['uar'][1]:+.3f}",
        flush=True,
    )
    return {"uar": round(uar, 4), "interval": [low, high], "minus_none": list(pair["uar"])}


if __name__ == "__main__":
    main()
