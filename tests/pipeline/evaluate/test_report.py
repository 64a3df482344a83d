"""The figures of a report, from a table of predictions made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stillwave.pipeline.evaluate.report as report_module
from stillwave.pipeline.evaluate.report import full_report, report_figures, summary, write_report
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.scores.intervals import interval_report
from stillwave.pipeline.scores.open_set import auroc

CLASSES = ("a", "b")


def table(rows: int = 120) -> pd.DataFrame:
    """Two known classes and an unknown one, two folds, three languages of which `xx` has no unknown rows."""
    rng = np.random.default_rng(0)
    label = rng.choice(["a", "b", "other"], rows)
    language = rng.choice(["de", "en", "xx"], rows)
    label = np.where((language == "xx") & (label == "other"), "a", label)
    p = rng.uniform(0.02, 0.98, rows)
    known = label != "other"
    frame = pd.DataFrame(
        {
            "id": [f"{i:03d}" for i in range(rows)],
            "fold": np.arange(rows) % 2,
            "speaker": rng.choice(["s", "t", "u"], rows),
            "language": language,
            "label": label,
            "known": known,
            "predicted": np.where(p > 0.5, "a", "b"),
            "p_a": p,
            "p_b": 1 - p,
            "raw_a": p**2,
            "raw_b": 1 - p**2,
            "score_msp": np.minimum(p, 1 - p),
            "score_knn": rng.normal(size=rows) + 2 * ~known,
            "tuned_msp": 0.4,
            "tuned_knn": np.where(np.arange(rows) % 2, 0.5, 1.5),
        }
    )
    frame["score"], frame["threshold"] = frame["score_knn"], frame["tuned_knn"]
    frame["decision"] = frame["predicted"].where(frame["score"] <= frame["threshold"], "unknown")
    return frame


def curves() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [0, 1, 2, 0, 1],
            "train_loss": [3.0, 2.0, 1.0, 5.0, 3.0],
            "loss_cross_entropy": [1.0, 1.0, 0.5, 2.0, 1.0],
            "loss_focal": [2.0, 1.0, 0.5, 3.0, 2.0],
            "fold": [0, 0, 0, 1, 1],
        }
    )


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return full_report(table(), CLASSES, "knn")


def test_headline_intervals_and_calibration_are_of_known_rows(metrics: dict[str, Any]) -> None:
    known = table().query("known")
    assert metrics["n"] == len(known)
    assert metrics["accuracy"] == pytest.approx((known["label"] == known["predicted"]).mean())
    assert metrics["intervals"] == interval_report(known, np.random.default_rng(0))
    assert set(metrics["intervals"]) == {"level", "resamples", "rows", "speakers"}
    right = np.where(known["label"] == "a", known["raw_a"], known["raw_b"])
    assert metrics["calibration"]["before"]["nll"] == pytest.approx(-np.log(right).mean())
    right = np.where(known["label"] == "a", known["p_a"], known["p_b"])
    assert metrics["calibration"]["after"]["nll"] == pytest.approx(-np.log(right).mean())


def test_every_score_is_compared_and_the_recipes_own_is_broken_down(metrics: dict[str, Any]) -> None:
    frame, found = table(), metrics["open_set"]
    for name in ("msp", "knn"):
        values, known = frame[f"score_{name}"].to_numpy(), frame["known"].to_numpy()
        assert found["scores"][name]["auroc"] == auroc(values, known)
        folds = [
            auroc(p[f"score_{name}"].to_numpy(), p["known"].to_numpy()) for _, p in frame.groupby("fold")
        ]
        assert found["scores"][name]["auroc_mean_of_folds"] == pytest.approx(np.mean(folds))
    german = frame[frame["language"] == "de"]
    low, high = found["intervals"]["rows"]["auroc"]
    assert low < found["scores"]["knn"]["auroc"] < high
    assert set(found["per_language"]) == {"de", "en"}  # no unknown rows in the third
    assert found["per_language"]["de"] == auroc(german["score_knn"].to_numpy(), german["known"].to_numpy())


def test_thresholds_are_each_folds_own(metrics: dict[str, Any]) -> None:
    frame, scores = table(), metrics["open_set"]["scores"]
    rejected = frame["score_knn"] > frame["tuned_knn"]
    tuned = scores["knn"]["thresholds"]["tuned"]
    assert tuned["known_rejected"] == pytest.approx(rejected[frame["known"]].mean())
    assert tuned["unknown_rejected"] == pytest.approx(rejected[~frame["known"]].mean())
    assert set(scores["knn"]["thresholds"]) == {"tuned"}  # 0.3 means nothing on its scale
    assert scores["msp"]["thresholds"]["default"]["mean"] == pytest.approx(0.3)
    unsure = frame["score_msp"] > 0.3
    assert scores["msp"]["thresholds"]["default"]["known_rejected"] == pytest.approx(
        unsure[frame["known"]].mean()
    )


def test_decisions_are_scored_with_the_unknown_as_a_class(metrics: dict[str, Any]) -> None:
    frame, found = table(), metrics["open_set"]["decision"]
    actual = frame["label"].where(frame["known"], "unknown")
    assert found["accuracy"] == pytest.approx((actual == frame["decision"]).mean())
    assert found["confusion"]["classes"] == ["a", "b", "unknown"]
    assert np.sum(found["confusion"]["matrix"]) == len(frame)
    assert found["confusion"]["matrix"][2][2] == ((frame["decision"] == "unknown") & ~frame["known"]).sum()


def test_without_unknown_rows_or_thresholds_their_figures_are_left_out() -> None:
    frame = table()
    assert "open_set" not in full_report(frame[frame["known"]], CLASSES, "knn")
    frame["decision"] = None
    assert "decision" not in full_report(frame, CLASSES, "knn")["open_set"]
    with pytest.raises(ValueError, match=r"no test rows of known classes"):
        full_report(frame[~frame["known"]], CLASSES, "knn")


def test_the_files_say_what_was_found(metrics: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/of_before.png").touch()
    write_report(tmp_path, table(), metrics, curves())
    assert json.loads((tmp_path / "metrics.json").read_text())["uar"] == metrics["uar"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary(metrics)
    assert summary(metrics)["auroc"] == metrics["open_set"]["scores"]["knn"]["auroc"]
    names = {"confusion", "reliability", "curves", "losses", "per_speaker", "open_set", "decisions"}
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {f"{name}.png" for name in names}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (tmp_path / "plots").iterdir())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "curves.csv"), curves())


def test_a_report_that_was_cut_short_has_no_metrics(
    metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, table(), metrics, curves())

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(report_module, "report_figures", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, table().head(60), metrics, curves())
    assert len(pd.read_parquet(tmp_path / "predictions.parquet")) == 60
    assert not (tmp_path / "metrics.json").exists()


def test_pictures_are_of_what_there_is() -> None:
    alone = table()
    alone["speaker"], alone["decision"] = None, None
    only = full_report(alone[alone["known"]], CLASSES, "knn")
    drawn = report_figures(alone, only, curves().drop(columns=["loss_cross_entropy", "loss_focal"]))
    assert set(drawn) == {"confusion", "reliability", "curves"}
    only["layer_weights"] = {"layer_mix": {"layers": [0, 1], "mean": [0.4, 0.6], "folds": {"0": [0.4, 0.6]}}}
    assert set(report_figures(alone, only, curves())) - set(drawn) == {"losses", "layer_weights"}


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "complete").touch()
    (tmp_path / "config.json").write_text(json.dumps({"stillwave": "0.0.9", "frame_shape": [3]}))
    with pytest.raises(ValueError, match=r"a run of format 1 \(Stillwave 0.0.9\).*train it again"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: not JSON.*train the run again"):
        Run.open(tmp_path)
