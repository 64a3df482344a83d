from pathlib import Path

import pytest

from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.analysis import Analysis
from stillwave.pipeline.config.base import ConfigError, apply_overrides, load_config, overrides_of
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.transcribe.config import TranscriberConfig

CONFIGS = Path(__file__).parents[3] / "configs"
KINDS = {
    "analysis": Analysis, "corpora": CorpusConfig, "recipes": Recipe, "transcribers": TranscriberConfig,
}  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    folder = path.parent.name
    config = load_backbone(path) if folder == "backbones" else load_config(path, KINDS[folder])
    if isinstance(config, Recipe):
        for name in config.backbones:
            assert (CONFIGS / "backbones" / f"{name}.yaml").exists()


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: fbank\nnum_mel: 40", r"c.yaml: `num_mel`: Extra inputs are not permitted \(got 40\)"),
        ("kind: fbank\nnum_mels: many", r"`num_mels`: Input should be a valid integer.*\(got 'many'\)"),
        ("kind: fbnk", r"c.yaml: `kind`: must be one of 'fbank', 'wav2vec2',.* 'custom' \(got 'fbnk'\)"),
        ("num_mels: 80", r"c.yaml: `kind`: must be one of 'fbank'.*\(got None\)"),
        ("kind: [", "not valid YAML"),
        ("- kind", "expected a mapping"),
        (
            "kind: fbank\ndeltas: 0\nkind: cnn1d",
            r"(?s)'kind' is given twice, first in line 1; keep one.*line 3",
        ),
        ("{kind: fbank, deltas: 0, deltas: 1}", "'deltas' is given twice"),
        ("kind: fbank\nviews: {count: 1, count: 2}", "'count' is given twice, first in line 2"),
    ],
)
def test_a_mistake_is_named_with_file_field_and_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_backbone(write(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_backbone(tmp_path / "no.yaml")


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("\ufeffkind: fbank  # f\u00fcr\n".encode())
    assert load_backbone(path).kind == "fbank"
    path.write_bytes("kind: fbank  # f\u00fcr\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"c\.yaml: not UTF-8 text .*save it as UTF-8"):
        load_backbone(path)
    with pytest.raises(ConfigError, match=r"-S views=.*'count' is given twice"):
        apply_overrides({}, ["views={count: 1, count: 2}"])


def test_overrides_are_validated_like_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: fbank")
    config = load_backbone(path, ["deltas=0", "low_hz=60"])
    assert isinstance(config, FbankConfig)
    assert (config.deltas, config.low_hz) == (0, 60.0)
    with pytest.raises(ConfigError, match=r"`deltas`.*\(got 7\)"):
        load_backbone(path, ["deltas=7"])


def test_overrides_reach_into_groups_and_leave_the_original_alone() -> None:
    raw = {"train": {"epochs": 3}, "kind": "x"}
    result = apply_overrides(raw, ["train.epochs=5", "train.stop.patience=2", "names=[a, b]"])
    assert result == {"train": {"epochs": 5, "stop": {"patience": 2}}, "kind": "x", "names": ["a", "b"]}
    assert raw == {"train": {"epochs": 3}, "kind": "x"}


@pytest.mark.parametrize("text", ["epochs", "=3", "kind.x=3"])
def test_an_override_that_cannot_be_applied_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="-S"):
        apply_overrides({"kind": "fbank"}, [text])


def test_overrides_of_a_run_are_split_by_config() -> None:
    given = ["recipe.train.epochs=1", "corpus.seed=2"]
    assert overrides_of(given, "recipe", ("recipe", "corpus")) == ["train.epochs=1"]
    with pytest.raises(ConfigError, match=r"say which config it is for: recipe\., corpus\."):
        overrides_of(["train.epochs=1"], "recipe", ("recipe", "corpus"))


def test_configs_are_immutable() -> None:
    config = FbankConfig(kind="fbank")
    with pytest.raises(ValueError, match="frozen"):
        config.deltas = 1  # type: ignore[misc]


def test_the_default_analysis_is_what_the_fields_default_to() -> None:
    assert load_config(CONFIGS / "analysis/default.yaml", Analysis) == Analysis()
    with pytest.raises(ConfigError, match=r"precision_at \(20,\) is over more neighbours than k 10: raise k"):
        load_config(CONFIGS / "analysis/default.yaml", Analysis, ["neighbours.precision_at=[1, 20]"])
