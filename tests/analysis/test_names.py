"""Names as people read them: in their order, on one line, and never alike when they are not the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwave.analysis.names import LONGEST, distinct, natural, shortened


def test_numbers_in_names_are_in_the_order_of_numbers() -> None:
    names = ["class 10", "class 2", "s", "class 1", "2", "10", "٣", "a2b10", "a2b9", "a02"]
    assert sorted(names, key=natural) == [
        "٣", "2", "10", "a02", "a2b9", "a2b10", "class 1", "class 2", "class 10", "s",
    ]  # fmt: skip


def test_a_long_name_keeps_its_ends() -> None:
    assert shortened("x" * 20 + "y" * 20) == "x" * 15 + "…" + "y" * 14
    assert len(shortened("z" * 99)) == LONGEST
    assert shortened("two\nlines") == "two\ufffdlines"


def test_names_that_would_be_alike_are_cut_where_they_are_the_same() -> None:
    names = [f"Corpus2024_recording_{i:02d}_microphone_left" for i in range(28)]
    assert len({shortened(name) for name in names}) == 1
    found = distinct(names)
    assert [f"_{i:02d}_" in name for i, name in enumerate(found)] == [True] * 28
    assert len(set(found)) == 28
    assert max(map(len, found)) <= LONGEST
    long = ["same" * 10 + f"{i}" * 40 + "same" * 10 for i in range(3)]
    assert len(set(distinct(long))) == 3
    assert distinct(["short", *names[:1]]) == ["short", shortened(names[0])]


@pytest.mark.parametrize("names", [["a\nb", "a\tb"], ["1 others", "1 others"], ["x", "x", "x (2)"]])
def test_what_cannot_be_told_apart_is_numbered(names: list[str]) -> None:
    found = distinct(names)
    assert len(set(found)) == len(names)
    assert found[1].endswith(" (2)")


@given(
    st.lists(st.text("ab\n", max_size=4).map(lambda s: "p" * 20 + s * 9 + "q" * 20), max_size=8, unique=True)
)
def test_different_names_look_different(names: list[str]) -> None:
    assert len(set(distinct(names))) == len(names)
