"""What the sides of a split share: counts by hand, messages, and random tables that `disjoint` splits."""

import re
import unicodedata
from typing import Any

import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.config.corpus import SplitConfig
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.leaks import (
    Size,
    check_shared,
    keys_of,
    leak_warnings,
    leaking_rows,
    shares,
    sizes,
    withhold,
)
from stillwave.pipeline.corpora.manifest import own_folds, withheld_from
from stillwave.pipeline.corpora.prepare import split_rows


def rows_of(**columns: list[Any]) -> pd.DataFrame:
    ids = [f"r{number}" for number in range(len(next(iter(columns.values()))))]
    return pd.DataFrame({"id": ids, "path": ids, "sha256": ids, **columns})


def corpus(**split: Any) -> CorpusConfig:
    found: CorpusConfig = parse_config({"kind": "folder", "split": split}, CorpusConfig, "test")
    return found


def grid(*texts: str) -> pd.DataFrame:
    """Four speakers who say each of the texts angrily and sadly, as in EmoDB."""
    said = [(who, text, label) for who in "abcd" for text in texts for label in ("angry", "sad")]
    who, text, label = (list(column) for column in zip(*said, strict=True))
    return rows_of(speaker=who, text=text, emotion=label)


# Each speaker is in one fold; the texts t1 and t2 are in two.
FOLDS = rows_of(
    speaker=["a", "a", "b", "b", "c", "c"],
    text=["t1", "t2", "T1 ", "t3", "t2", "t2"],
    emotion=["x", "y", "x", "y", "x", "y"],
    fold=[0, 0, 1, 1, 2, 2],
)


def test_test_rows_that_share_their_text_are_counted() -> None:
    assert shares(FOLDS, keys_of(FOLDS, "text")).tolist() == [True, True, True, False, True, True]
    assert not shares(FOLDS, keys_of(FOLDS, "speaker")).any()
    assert leaking_rows(FOLDS, "emotion") == {"text": 5}
    assert leaking_rows(FOLDS.assign(speaker="me"), "emotion") == {"speaker": 6, "text": 5}
    lacking = FOLDS.assign(text=[None, "t2", None, " ", " ", "t2"])
    assert shares(lacking, keys_of(lacking, "text")).tolist() == [False, True, False, False, False, True]


def test_what_is_predicted_is_on_both_sides_and_no_leak() -> None:
    assert leaking_rows(FOLDS.assign(word=FOLDS["text"]), "word") == {
        "text": 5
    }  # "T1 " is said of another word
    words = FOLDS.assign(text=["one", "two"] * 3, emotion=["1", "2"] * 3)
    assert leaking_rows(words, "emotion") == leaking_rows(words, "text") == {}


def test_rows_of_test_are_compared_with_train_and_valid_and_rows_of_valid_with_train() -> None:
    split = rows_of(split=["train", "valid", "valid", "test", "test", "test"], text=list("aabbca"))
    assert shares(split, keys_of(split, "text")).tolist() == [False, True, False, True, False, True]
    assert leaking_rows(split.assign(emotion=list("xyxyxy")), "emotion") == {"text": 2}


def test_spellings_of_a_text_are_one_and_those_of_a_speaker_are_not() -> None:
    spelled = rows_of(
        text=["Grüße,  Jörg!", unicodedata.normalize("NFD", " grüSSe, jörg! "), "grüße jörg", None, " "],
        speaker=["Ann", "ann", "ann", "b", None],
    )
    keys = keys_of(spelled, "text")
    assert keys[0] == keys[1] == "grüsse, jörg!"
    assert keys[2:] == ["grüsse jörg", None, None]
    assert keys_of(spelled, "speaker") == ["Ann", "ann", "ann", "b", None]


def test_rows_that_share_a_speaker_or_a_text_are_left_out_of_each_fold_and_counted() -> None:
    keys = {"speaker": FOLDS["speaker"].tolist(), "text": ["t1", "t2", "t1", "t3", "t2", "t2"]}
    done = withhold(FOLDS.assign(emotion="x"), keys, "emotion")
    assert done["withheld"].tolist() == ["1", "2", "0", None, "0", "0"]
    assert withheld_from(done) == [{1}, {2}, {0}, set(), {0}, {0}]
    assert not shares(done, keys["text"]).any()
    assert leaking_rows(done, "emotion") == {}
    assert sizes(done) == {0: Size(2, 1, 3), 1: Size(2, 3, 1), 2: Size(2, 3, 1)}
    assert sizes(FOLDS) == {fold: Size(2, 4, 0) for fold in range(3)}


def test_a_split_is_fold_0_and_its_validation_rows_are_left_out_too() -> None:
    split = rows_of(
        split=["train", "train", "train", "valid", "valid", "test"],
        text=["a", "b", "c", "a", "c", "A"],
        speaker=["1", "2", "3", "4", "3", "5"],
        emotion=list("xxyxyx"),
    )
    done = split_rows(split, corpus(kind="predefined", disjoint=["speaker", "text"], allow_leak=True))
    assert done["withheld"].tolist() == ["0", None, None, "0", None, None]
    assert sizes(done) == {0: Size(1, 2, 2)}
    # speaker 3 is trained and validated on: refused unless accepted, as without `disjoint`
    with pytest.raises(ValueError, match=r"leaks 1 speaker group\(s\): 3 \(train: 1 rows, valid: 1 rows\)\."):
        split_rows(split, corpus(kind="predefined", disjoint=["speaker", "text"]))


def test_a_predefined_split_of_shared_speakers_may_be_made_disjoint() -> None:
    split = rows_of(split=["train", "test", "train"], speaker=["a", "a", "b"], emotion=["x", "x", "x"])
    with pytest.raises(ValueError, match=r"leaks 1 speaker"):
        split_rows(split, corpus(kind="predefined"))
    done = split_rows(split, corpus(kind="predefined", disjoint=["speaker"]))
    assert done["withheld"].tolist() == ["0", None, None]


def test_nothing_to_leave_out_is_no_column() -> None:
    own = FOLDS.drop(columns="fold").assign(text=["t1", "t2", "t3", "t4", "t5", "T5"])
    done = split_rows(own, corpus(kind="leave_one_group_out", disjoint=["speaker", "text"]))
    assert list(done.columns) == ["id", "path", "sha256", "speaker", "text", "emotion", "fold"]


def test_a_class_of_which_no_training_row_is_left_is_named_with_fold_columns_and_remedy() -> None:
    message = (
        "split.disjoint [speaker, text]: fold 0 has no training row of emotion 'angry' left, the first of 4 "
        "such pairs of a fold and a class: each of the 4 in other parts shares its text with a test row. "
        "Leave text out of split.disjoint, use more folds, or leave the class out with `classes`"
    )
    every = grid("one", "two")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        split_rows(every, corpus(kind="kfold", folds=2, disjoint=["speaker", "text"]))
    # a sad sentence of a's own is left to the folds that do not test a, the first of four
    more = pd.concat([every, rows_of(speaker=["a"], text=["three"], emotion=["sad"])], ignore_index=True)
    more["id"] = more["sha256"] = more.index.map(str)
    with pytest.raises(
        ValueError, match=r"fold 0 has .* 'angry' left, the first of 5 such pairs.* of the 6 "
    ):
        split_rows(more, corpus(kind="leave_one_group_out", disjoint=["speaker", "text"]))
    alone = rows_of(split=["train", "train", "test"], text=["a", "b", "A"], emotion=["x", "y", "y"])
    with pytest.raises(ValueError, match=r"fold 0 has no training row of emotion 'x' left: each of the 1 "):
        split_rows(alone, corpus(kind="predefined", disjoint=["text"]))


def test_a_class_that_only_one_fold_has_is_not_lost_by_disjoint() -> None:
    rows = rows_of(speaker=list("abcd"), text=["1", "2", "2", "3"], emotion=["x", "y", "y", "y"])
    done = split_rows(rows, corpus(kind="leave_one_group_out", disjoint=["speaker", "text"]))
    assert done["withheld"].tolist() == [None, "2", "1", None]


def test_split_group_text_keeps_all_spellings_of_a_text_in_one_fold() -> None:
    rows = rows_of(
        text=["Hallo", "hallo ", "Grüße", unicodedata.normalize("NFD", "grüße"), "Ja", "JA"],
        emotion=list("xyxyxy"),
    )
    done = split_rows(rows, corpus(kind="kfold", folds=3, group="text"))
    assert done["fold"].tolist()[::2] == done["fold"].tolist()[1::2]
    assert sorted(done["fold"].tolist()) == [0, 0, 1, 1, 2, 2]
    assert done["text"].tolist() == rows["text"].tolist()
    lacking = rows.assign(text=["Hallo", " ", None, "a", "b", "c"])
    message = (
        r"split\.group: 2 of 6 rows have no text \(the first is 'r1'\); fill it in, or set split\.group: null"
    )
    with pytest.raises(ValueError, match=message):
        split_rows(lacking, corpus(kind="kfold", folds=3, group="text"))
    message = (
        r"split\.disjoint: 2 of 6 rows have no text .*; fill it in, or leave text out of split\.disjoint"
    )
    with pytest.raises(ValueError, match=message):
        split_rows(
            lacking.assign(speaker=list("aabbcc")),
            corpus(kind="kfold", folds=3, disjoint=["speaker", "text"]),
        )
    with pytest.raises(
        ValueError, match=r"split\.disjoint: the corpus has no column 'session'; it has id, path"
    ):
        split_rows(rows, corpus(kind="kfold", folds=3, disjoint=["text", "session"]))


@pytest.mark.parametrize(
    ("split", "column", "remedy"),
    [
        (
            {"kind": "kfold"}, "text",
            "`split.group: text` splits by it, `split.disjoint: [speaker, text]` leaves out training rows "
            "that share any of them",
        ),
        ({"kind": "kfold", "group": None}, "text", "`split.group: text` splits by it"),
        (
            {"kind": "holdout", "group": "session"}, "speaker",
            "`split.group: speaker` splits by it, `split.disjoint: [session, speaker]` leaves out training "
            "rows that share any of them",
        ),
        (
            {"kind": "predefined", "group": None}, "text",
            "`split.disjoint: [text]` leaves out training rows that share a text",
        ),
        (
            {"kind": "predefined", "disjoint": ["speaker", "session"]}, "text",
            "`split.disjoint: [speaker, session, text]` leaves out training rows that share any of them",
        ),
        ({"kind": "kfold", "allow_leak": True}, "speaker", None),
        ({"kind": "kfold", "group": None}, "speaker", None),
        ({"kind": "kfold", "group": "text", "allow_leak": True}, "text", None),
    ],
)  # fmt: skip
def test_a_leak_is_told_with_what_helps(split: dict[str, Any], column: str, remedy: str | None) -> None:
    told = leak_warnings({column: 73}, 480, parse_config(split, SplitConfig, "test"))
    message = (
        f"{column}: 73 of 480 test rows (15.2 %) have a {column} that rows to train on have, too, so scores "
        f"may be too good for new {column}s; {remedy}"
    )
    assert told == ([] if remedy is None else [message])


def test_disjoint_gives_the_group_and_must_contain_it() -> None:
    for fields, group in (({"disjoint": ["text", "speaker"]}, "text"), ({}, "speaker")):
        assert corpus(kind="kfold", **fields).split.group == group
        assert corpus(kind="leave_one_group_out", **fields).split.group == group
    assert corpus(kind="kfold", disjoint=["text", "speaker"], group="speaker").split.group == "speaker"
    for group in ("session", None):
        message = (
            f"`split`: Value error, group {group!r} is not one of disjoint [speaker, text]: list it there, or"
        )
        with pytest.raises(ConfigError, match=re.escape(message)):
            corpus(kind="kfold", disjoint=["speaker", "text"], group=group)


SPLITS = st.sampled_from(
    [
        {"kind": "kfold", "folds": 2},
        {"kind": "kfold", "folds": 3, "group": "text"},
        {"kind": "leave_one_group_out"},
        {"kind": "holdout", "valid": 0.2, "test": 0.2},
        {"kind": "predefined", "column": "side"},
        {"kind": "predefined", "column": "number", "folds": True},
    ]
)
SIDES = ("train", "valid", "test")
ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"), st.sampled_from(["t", "T", "u", " u", "v", "w", "x", "y"]),
        st.sampled_from(SIDES), st.integers(0, 3),
    ),
    min_size=6, max_size=40,
).filter(lambda rows: all(len({key(row) for row in rows}) >= 3 for key in (lambda r: r[0], lambda r: r[1].strip().lower())))  # fmt: skip # noqa: E501


@settings(deadline=None)
@given(ROWS, SPLITS)
def test_no_row_that_is_trained_or_validated_on_shares_a_speaker_or_a_text_with_a_test_row(
    rows: list[tuple[str, str, str, int]], split: dict[str, Any]
) -> None:
    who, text, side, number = (list(column) for column in zip(*rows, strict=True))
    table = rows_of(
        speaker=who, text=text, emotion=["x"] * len(rows), side=side, number=list(map(str, number))
    )
    config = corpus(**split, disjoint=["speaker", "text"], allow_leak=True)
    try:
        done = split_rows(table, config)
    except ValueError as error:
        if "no training row of emotion 'x' left" not in str(error):
            raise
        event("no training row left")
        return
    event(f"withheld: {'withheld' in done}")
    tested, withheld = own_folds(done), withheld_from(done)
    values = [{("speaker", w), ("text", t.strip().lower())} for w, t in zip(who, text, strict=True)]
    for fold in {fold for fold in tested if fold is not None}:
        test = [row for row, own in enumerate(tested) if own == fold]
        others = [row for row in range(len(rows)) if tested[row] != fold]
        used = [row for row in others if fold not in withheld[row]]
        forbidden = set().union(*(values[row] for row in test))
        assert not any(values[row] & forbidden for row in used)
        # and nothing is left out in vain
        assert all(values[row] & forbidden for row in others if row not in used)
        assert sizes(done)[fold].test + len(used) + sizes(done)[fold].withheld == len(rows)
    for column in ("speaker", "text"):
        shared = shares(done, keys_of(done, column))
        assert not any(bad for bad, fold in zip(shared, tested, strict=True) if fold is not None)


def test_a_group_that_is_only_in_withheld_rows_is_no_leak() -> None:
    moved = FOLDS.assign(speaker=["a", "a", "b", "b", "c", "b"], withheld=[None, None, "2", "2", None, "1"])
    check_shared(moved, keys_of(moved, "speaker"), "speaker(s)", "")
    half = moved.assign(withheld=[None, None, "2", None, None, "1"])
    with pytest.raises(ValueError, match=r"leaks 1 speaker\(s\): b \(1: 2 rows, 2: 1 rows\)\. Fix"):
        check_shared(half, keys_of(half, "speaker"), "speaker(s)", "Fix")
