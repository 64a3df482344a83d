"""`stillwave compare` on reports written as `evaluate` writes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from stillwave.pipeline.cli import app
from stillwave.pipeline.evaluate.compare import compare
from stillwave.pipeline.scores.classification import HEADLINE, scores
from stillwave.pipeline.scores.open_set import auroc

CLASSES = ["a", "b", "c"]


def table(right: float, seed: int = 0, rows: int = 200) -> pd.DataFrame:
    """Predictions of a model that is right on about this share of rows, in an order of its own."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(99).choice(CLASSES, size=rows)
    predicted = np.where(generator.random(rows) < right, labels, generator.choice(CLASSES, size=rows))
    numbers = np.arange(rows)
    frame = pd.DataFrame(
        {
            "id": [f"u{i:04d}" for i in numbers],
            "fold": numbers % 5,
            "speaker": [f"s{i % 20}" for i in numbers],
            "label": labels,
            "predicted": predicted,
        }
    )
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def open_table(seed: int, apart: float) -> pd.DataFrame:
    """Every fourth row is of an unknown class, whose scores lie higher."""
    frame = table(0.8, seed)
    number = frame["id"].str[1:].astype(int)
    frame["known"] = number % 4 != 0
    frame.loc[~frame["known"], "label"] = "z"
    noise = np.random.default_rng(seed + 50).normal(size=len(frame))
    frame["score"] = noise + apart * ~frame["known"]
    return frame


def written(folder: Path, frame: pd.DataFrame) -> Path:
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "predictions.parquet", index=False)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A report folder, and a run folder with its report inside."""
    first, _ = written(tmp_path / "a", table(0.6)), written(tmp_path / "b/report", table(0.85, seed=1))
    return first, tmp_path / "b"


def test_rows_are_matched_by_id_and_scored(pair: tuple[Path, Path]) -> None:
    result = compare(*pair)
    assert result["rows"] == 200
    assert result["left_out"] == {"a": 0, "b": 0}
    for side, frame in (("a", table(0.6)), ("b", table(0.85, seed=1))):
        expected = scores(frame["label"].tolist(), frame["predicted"].tolist(), CLASSES)
        assert {name: result["metrics"][name][side] for name in HEADLINE} == pytest.approx(expected)
    for line in result["metrics"].values():
        low, high = line["interval"]
        assert 0 < low < line["difference"] < high
        assert line["difference"] == pytest.approx(line["b"] - line["a"])
        assert line["p"] < 0.001
    assert result["mcnemar"] < 0.001
    assert set(result["metrics"]) == set(HEADLINE)


def test_the_other_way_round_only_the_sign_changes(pair: tuple[Path, Path]) -> None:
    there, back = compare(*pair)["metrics"]["uar"], compare(*pair[::-1])["metrics"]["uar"]
    assert back["difference"] == -there["difference"]
    assert back["interval"] == pytest.approx([-x for x in there["interval"][::-1]], abs=0.005)


def test_a_run_does_not_differ_from_itself(pair: tuple[Path, Path]) -> None:
    result = compare(pair[0], pair[0])
    for line in result["metrics"].values():
        assert (line["difference"], line["interval"], line["p"]) == (0, [0, 0], 1)
    assert result["mcnemar"] == 1


def test_models_that_are_alike_do_not_differ(tmp_path: Path) -> None:
    result = compare(written(tmp_path / "a", table(0.7, 2)), written(tmp_path / "b", table(0.7, 3)))
    for line in result["metrics"].values():
        assert line["interval"][0] < 0 < line["interval"][1]
        assert line["p"] > 0.1


def test_the_seed_makes_the_draws(pair: tuple[Path, Path]) -> None:
    assert compare(*pair, seed=1) == compare(*pair, seed=1)
    assert compare(*pair, seed=1)["metrics"] != compare(*pair, seed=2)["metrics"]


def test_whole_speakers_are_drawn_together(tmp_path: Path) -> None:
    a, b = table(0.7), table(0.7)
    number = b["speaker"].str[1:].astype(int)
    b["predicted"] = np.where(number < 7, b["label"], np.where(number > 17, "a", b["predicted"]))
    paths = written(tmp_path / "a", a), written(tmp_path / "b", b)
    rows, speakers = compare(*paths), compare(*paths, group="speaker")
    assert (rows["group"], rows["groups"], speakers["group"], speakers["groups"]) == (
        None,
        None,
        "speaker",
        20,
    )
    widths = [np.diff(result["metrics"]["accuracy"]["interval"])[0] for result in (rows, speakers)]
    assert widths[1] > 1.1 * widths[0]
    with pytest.raises(ValueError, match=r"not every row has a 'dialect'.*fold, speaker, label"):
        compare(*paths, group="dialect")


def test_other_ids_are_an_error_unless_only_common_rows_are_wanted(tmp_path: Path) -> None:
    full, short = table(0.6), table(0.8, seed=1)
    short = short[short["id"] > "u0009"].replace({"id": {"u0100": "other"}})
    paths = written(tmp_path / "a", full), written(tmp_path / "b", short)
    with pytest.raises(
        ValueError, match=r"11 only in .*a \(u0000, u0001, u0002, ...\); 1 only in .*b \(other\)"
    ):
        compare(*paths)
    result = compare(*paths, common=True)
    assert result["rows"] == 189
    assert result["left_out"] == {"a": 11, "b": 1}
    kept = full[(full["id"] > "u0009") & (full["id"] != "u0100")]
    expected = scores(kept["label"].tolist(), kept["predicted"].tolist(), CLASSES)
    assert result["metrics"]["accuracy"]["a"] == pytest.approx(expected["accuracy"])


def test_other_labels_are_an_error(pair: tuple[Path, Path], tmp_path: Path) -> None:
    frame = table(0.6)
    frame.loc[frame["id"] == "u0005", "label"] = "happy"
    other = written(tmp_path / "c", frame)
    with pytest.raises(
        ValueError, match=r"1 rows have different labels in .*: 'u0005' is '[abc]' and 'happy'"
    ):
        compare(pair[0], other, common=True)


def test_unknown_rows_count_in_auroc_only(tmp_path: Path) -> None:
    a, b = open_table(0, apart=0.5), open_table(1, apart=2.0)
    result = compare(written(tmp_path / "a", a), written(tmp_path / "b", b))
    assert (result["rows"], result["unknown_rows"]) == (150, 50)
    known = a[a["known"]]
    expected = scores(known["label"].tolist(), known["predicted"].tolist(), CLASSES)
    assert result["metrics"]["uar"]["a"] == pytest.approx(expected["uar"])
    line = result["metrics"]["auroc"]
    assert line["a"] == pytest.approx(auroc(a["score"].to_numpy(), a["known"].to_numpy()))
    assert line["b"] == pytest.approx(auroc(b["score"].to_numpy(), b["known"].to_numpy()))
    assert 0 < line["interval"][0] < line["difference"] < line["interval"][1]
    assert line["p"] < 0.01
    by_speaker = compare(tmp_path / "a", tmp_path / "b", group="speaker")["metrics"]["auroc"]
    assert by_speaker["difference"] == line["difference"]
    assert by_speaker["interval"] != line["interval"]


def test_auroc_needs_a_score_on_both_sides(tmp_path: Path) -> None:
    first = written(tmp_path / "a", open_table(0, apart=0.5))
    second = written(tmp_path / "b", open_table(1, apart=2.0).drop(columns="score"))
    assert set(compare(first, second)["metrics"]) == set(HEADLINE)


def test_rows_known_to_one_only_are_left_out_on_request(tmp_path: Path) -> None:
    first = written(tmp_path / "a", open_table(0, apart=1.0))
    closed = open_table(1, apart=1.0).drop(columns=["known", "score"])  # trained on all classes
    second = written(tmp_path / "b", closed)
    with pytest.raises(ValueError, match=r"50 rows are of a known class in one .*--common leaves them out"):
        compare(first, second)
    result = compare(first, second, common=True)
    assert (result["rows"], result["unknown_rows"], result["left_out"]) == (150, 0, {"a": 50, "b": 50})


def test_what_is_no_report_is_named(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"nothing: no predictions.parquet.*`stillwave evaluate`"):
        compare(pair[0], tmp_path / "nothing")
    bare = written(tmp_path / "bare", table(0.6)[["id", "label"]])
    with pytest.raises(ValueError, match="has no column predicted"):
        compare(bare, pair[1])
    twice = written(tmp_path / "twice", pd.concat([table(0.6), table(0.6).head(1)]))
    with pytest.raises(ValueError, match=r"1 repeated ids \(u\d+\)"):
        compare(pair[0], twice)


def test_the_command_prints_a_table_or_json(pair: tuple[Path, Path]) -> None:
    shown = CliRunner().invoke(app, ["compare", *map(str, pair)])
    assert shown.exit_code == 0
    for word in ("accuracy", "macro_f1", "95% interval", "< 0.001", "McNemar", "200 rows"):
        assert word in shown.output
    assert "left out" not in shown.output
    assert "never below" not in shown.output
    shown = CliRunner().invoke(
        app, ["compare", *map(str, pair), "--json", "--group", "speaker", "--seed", "3"]
    )
    assert json.loads(shown.output) == compare(*pair, group="speaker", seed=3)


def test_few_groups_bound_p_and_the_command_says_so(tmp_path: Path) -> None:
    frames = [frame.assign(speaker=frame["fold"].astype(str)) for frame in (table(0.4), table(0.95, 1))]
    paths = [str(written(tmp_path / name, frame)) for name, frame in zip("ab", frames, strict=True)]
    line = compare(*paths, group="speaker")["metrics"]["accuracy"]
    assert line["interval"][0] > 0.2
    assert line["p"] == 2 / 2**5  # B is better in all 5 groups
    shown = CliRunner().invoke(app, ["compare", *paths, "--group", "speaker"])
    assert "5 groups by speaker drawn 5000 times" in shown.output
    assert "p for 5 groups is never below 0.062" in shown.output


def test_the_command_says_how_many_rows_it_left_out(tmp_path: Path) -> None:
    paths = written(tmp_path / "a", table(0.6)), written(tmp_path / "b", table(0.8, 1).head(150))
    shown = CliRunner().invoke(app, ["compare", *map(str, paths), "--common"])
    assert "150 rows" in shown.output
    assert "left out: 50 rows of A, 0 of B" in shown.output


def test_a_group_that_differs_between_the_reports_is_refused(tmp_path: Path) -> None:
    a, b = table(0.7), table(0.8, seed=1)
    b["fold"] = (b["fold"] + 1) % 5
    paths = written(tmp_path / "a", a), written(tmp_path / "b", b)
    with pytest.raises(
        ValueError, match=r"rows have a different 'fold' in the two reports: 'u0000' has '0' and '1'"
    ):
        compare(*paths, group="fold")
