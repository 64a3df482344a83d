"""What the pictures show: every row in its colour, names as they are, nothing cut off or on the data."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from stillwave.analysis.pictures import MARKERS, MOST, OTHER, PALE, by_category, by_value, foremost, save
from stillwave.analysis.profiles import dimensions_figure, layers_figure
from stillwave.pipeline.evaluate import fonts
from stillwave.pipeline.evaluate.plots import PALETTE

AXES = ("t-SNE 1", "t-SNE 2")
ODD = ["<script>alert(1)</script>", "_hidden", "$x^2$", "$unclosed", r"\frac{", "a & b", "%s {0}", ""]


def points(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 2))


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def check_places(figure: Figure) -> None:
    """Nothing leaves the figure, the legend is beside the data, and its lines do not touch each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    whole, data = figure.bbox, figure.axes[0].get_window_extent()
    legend = figure.legends[0].get_window_extent()
    for box in (legend, figure.axes[0].get_tightbbox()):
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
    assert not legend.overlaps(data)
    lines = [text.get_window_extent() for text in figure.legends[0].get_texts()]
    filled = [box for box in lines if box.width]
    assert not any(a.overlaps(b) for i, a in enumerate(filled) for b in filled[:i])
    assert data.width == pytest.approx(data.height, abs=1)


def colours_at(figure: Figure) -> dict[tuple[float, float], str]:
    """The colour of every point drawn, by its place."""
    found = {}
    for collection in figure.axes[0].collections:
        faces = collection.get_facecolors()
        for number, place in enumerate(np.asarray(collection.get_offsets()).tolist()):
            found[tuple(place)] = to_hex(faces[number % len(faces)]).upper()
    return found


def test_every_row_is_drawn_in_the_colour_of_its_category() -> None:
    xy, names = points(40), ["sad", "angry", None, "happy"] * 10
    figure = by_category(xy, names, "emotion", AXES)
    assert legend_of(figure) == ["angry", "happy", "sad", "(none)"]
    assert figure.legends[0].get_title().get_text() == "emotion"
    wanted = dict(zip(("angry", "happy", "sad", None), (*PALETTE[:3], PALE), strict=True))
    found = colours_at(figure)
    assert found == {
        tuple(place): wanted[name].upper() for place, name in zip(xy.tolist(), names, strict=True)
    }
    assert figure.get_figwidth() == 3.5
    low, high = figure.axes[0].get_xlim()
    bottom, top = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(top - bottom)
    check_places(figure)


def test_what_is_beyond_the_looks_there_are_is_one_grey_category() -> None:
    # The larger numbers are more frequent, so the smallest are left over.
    names = [f"c{i:02d}" for i in range(MOST + 4) for _ in range(i + 1)]
    xy = points(len(names))
    figure = by_category(xy, names, "word", AXES)
    assert legend_of(figure) == [*(f"c{i:02d}" for i in range(4, MOST + 4)), "4 others"]
    grey = [colour == OTHER for colour in colours_at(figure).values()]
    assert sum(grey) == 1 + 2 + 3 + 4
    handles = figure.legends[0].legend_handles
    looks = {(to_hex(h.get_color()), h.get_marker()) for h in handles}  # type: ignore[union-attr]
    assert len(looks) == MOST + 1
    check_places(figure)


@pytest.mark.parametrize("length", [3, 12, 29, 80])
@pytest.mark.parametrize("count", [2, 9, 30])
def test_names_of_any_number_and_length_have_their_place(count: int, length: int) -> None:
    names = [f"{i:02d}".ljust(length, "m") for i in range(count)] * 4
    figure = by_category(points(len(names)), names, "a heading that is longer than the names", AXES)
    assert figure.get_figwidth() <= 7
    assert figure.axes[0].get_window_extent().width >= 2 * figure.dpi
    check_places(figure)


def test_odd_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = [*ODD, "中文", "line\nbreak", "\u202eright to left"]
    figure = by_category(points(22), names * 2, "$label_", AXES)
    assert set(legend_of(figure)) == {*ODD, "中文", "line\ufffdbreak", "\ufffdright to left"}
    save(figure, tmp_path / "odd")  # a formula would fail here, a missing letter would warn
    assert "<script" not in (tmp_path / "odd.svg").read_text()


def test_a_class_looks_the_same_in_two_pictures() -> None:
    label = ["angry", "happy", "neutral", "sad"] * 3
    predicted = ["angry", "neutral", "neutral", "sad"] * 3
    classes = foremost([*label, *predicted])
    assert classes == ["angry", "happy", "neutral", "sad"]
    xy = points(12)
    truth, guess = (by_category(xy, names, "x", AXES, classes) for names in (label, predicted))
    assert legend_of(guess) == ["angry", "neutral", "sad"]
    same = [place for place, a, b in zip(xy.tolist(), label, predicted, strict=True) if a == b]
    assert len(same) == 9
    for place in same:
        assert colours_at(truth)[tuple(place)] == colours_at(guess)[tuple(place)]
    assert legend_of(by_category(xy, label, "x", AXES, ["sad"])) == ["sad", "3 others"]


def test_classes_are_in_natural_order_and_the_eighth_has_a_marker_of_its_own() -> None:
    figure = by_category(points(24), [f"class {i}" for i in range(12)] * 2, "x", AXES)
    assert legend_of(figure) == [f"class {i}" for i in range(12)]
    handles = figure.legends[0].legend_handles
    looks = [(to_hex(h.get_color()).upper(), h.get_marker()) for h in handles]  # type: ignore[union-attr]
    assert looks[:7] == [(colour, MARKERS[0]) for colour in PALETTE]
    assert looks[7] == (PALETTE[0], MARKERS[1])


def test_others_and_none_are_told_apart() -> None:
    names = [*(f"c{i:02d}" for i in range(MOST)), "(none)", None] * 2 + [f"c{i:02d}" for i in range(MOST)]
    figure = by_category(points(len(names)), names, "x", AXES)
    assert legend_of(figure)[-2:] == ["1 others", "(none)"]
    other, none = figure.legends[0].legend_handles[-2:]
    assert to_hex(other.get_color()) != to_hex(none.get_color())  # type: ignore[union-attr]
    assert other.get_marker() != none.get_marker()  # type: ignore[union-attr]
    both = by_category(points(4), ["(none)", None] * 2, "x", AXES)
    assert legend_of(both) == ["(none)", "(none) (2)"]


def test_long_names_of_a_legend_are_told_apart() -> None:
    names = [f"Corpus2024_recording_{i:02d}_microphone_left" for i in range(28)]
    assert len(set(legend_of(by_category(points(28), names, "speaker", AXES)))) == 28


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed font by the name of a fallback, whose only letter, 中, is a square."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "middle"])
    font.setupCharacterMap({ord("中"): "middle"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "middle": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "middle": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    names = {"familyName": fonts.FALLBACKS[0], "styleName": "Regular", "psName": "Squares"}
    font.setupNameTable(names)
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(tmp_path / "squares.ttf")
    fonts.fonts.cache_clear()
    yield
    fonts.fonts.cache_clear()


@pytest.mark.usefixtures("one_font")
def test_letters_that_no_font_has_are_named(tmp_path: Path) -> None:
    figure = by_category(points(4), ["中文", "a b"] * 2, "情 é", AXES)
    assert save(figure, tmp_path / "a") == set("中文情")


@pytest.mark.usefixtures("squares")
def test_letters_are_taken_from_an_installed_font_that_has_them(tmp_path: Path) -> None:
    figure = by_category(points(4), ["中文", "a b"] * 2, "label", AXES)
    assert save(figure, tmp_path / "a") == {"文"}
    assert 'id="Squares-' in (tmp_path / "a.svg").read_text()  # the outline of its letter


def test_values_go_from_dark_to_light_and_missing_ones_are_grey() -> None:
    xy, values = points(5), np.array([0.0, 0.25, 1.0, np.nan, 0.5])
    figure = by_value(xy, values, "uncertainty", AXES)
    found = colours_at_after_drawing(figure)
    light = [sum(int(found[tuple(xy[i])][k : k + 2], 16) for k in (1, 3, 5)) for i in (0, 1, 4, 2)]
    assert light == sorted(light)
    assert found[tuple(xy[3])] == PALE
    assert figure.axes[1].get_ylabel() == "uncertainty"
    assert not figure.axes[1].get_tightbbox().overlaps(figure.axes[0].get_window_extent())


def colours_at_after_drawing(figure: Figure) -> dict[tuple[float, float], str]:
    FigureCanvasAgg(figure).draw()  # colours of values are looked up only then
    return colours_at(figure)


def test_the_same_data_give_the_same_bytes_and_many_points_are_pixels(tmp_path: Path) -> None:
    sizes = {}
    for rows in (300, 6000):
        digests = set()
        for turn in "ab":
            names = ["one", "two", "three"] * (rows // 3)
            save(by_category(points(rows), names, "label", AXES), tmp_path / turn)
            files = [tmp_path / f"{turn}{suffix}" for suffix in (".png", ".svg")]
            digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
        assert len(digests) == 1
        text = (tmp_path / "a.svg").read_text()
        sizes[rows] = len(text)
        assert ("<image" in text) == (rows > 5000)
    assert sizes[6000] < 10 * sizes[300]


def test_layers_are_drawn_with_their_deviation_and_chance() -> None:
    lines = [{"layer": i, "uar": 0.3 + 0.1 * i, "uar_std": 0.05, "chance": 0.25} for i in range(4)]
    figure = layers_figure({"emotion": lines, "speaker": [line | {"chance": 0.1} for line in lines]})
    axes = figure.axes[0]
    curve = axes.containers[0].lines[0]
    np.testing.assert_allclose(curve.get_xydata().T, [[0, 1, 2, 3], [0.3, 0.4, 0.5, 0.6]])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars[:2]], [[0.25, 0.35], [0.35, 0.45]])
    flat = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert flat == [0.25, 0.1]
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["emotion", "speaker", "chance"]
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("name", ["emotion", "a very long label column name", "W" * 40])
def test_the_legend_of_layers_is_whole(name: str) -> None:
    lines = [{"layer": i, "uar": 0.5, "uar_std": 0.05, "chance": 0.25} for i in range(4)]
    figure = layers_figure({name: lines, "speaker": lines})
    FigureCanvasAgg(figure).draw()
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert len(figure.legends) == 1
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1
    assert legend.y1 <= whole.y1


def test_dimensions_are_sorted_and_the_odd_ones_marked() -> None:
    table = pd.DataFrame({"std": [1.0, 0.0, 90.0, 2.0], "flag": ["", "dead", "exploding", ""]})
    axes = dimensions_figure(table).axes[0]
    curve, dead, exploding = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), [90, 2, 1, 0.5])  # zero is at the foot: half the smallest
    np.testing.assert_allclose(dead.get_xydata().T, [[3], [0.5]])
    np.testing.assert_allclose(exploding.get_xydata().T, [[0], [90]])
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == [
        "4 dimensions", "1 dead", "1 exploding",
    ]  # fmt: skip
