"""The demo corpus: complete, repeatable, and a task that is neither trivial nor hopeless."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from stillwave.pipeline.audio.decode import decode
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.named import find_config
from stillwave.pipeline.corpora import CorpusConfig, demo
from stillwave.pipeline.corpora.demo import Demo
from stillwave.pipeline.corpora.demo_text import EMOTIONS, LANGUAGES, OPENINGS, TOPICS
from stillwave.pipeline.corpora.espeak import Utterance, synthesize
from stillwave.pipeline.corpora.leaks import Size, leaking_rows, sizes
from stillwave.pipeline.corpora.prepare import split_rows
from stillwave.pipeline.corpora.spelling import same_text


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    demo.make_demo(root)
    return root


def test_every_cell_is_there(root: Path) -> None:
    rows = Demo(kind="demo").read(root).rows
    cells = Counter((row["language"], row["emotion"], row["speaker"]) for row in rows)
    assert len(LANGUAGES) >= 4
    assert len(cells) == len(LANGUAGES) * 4 * 6
    assert set(cells.values()) == {demo.PER_CELL}
    assert 400 <= len(rows) <= 600
    assert len({row["id"] for row in rows}) == len(rows)


def test_clips_are_speech_of_a_few_seconds(root: Path) -> None:
    clips = [decode(path) for path in sorted(root.rglob("*.wav"))]
    durations = [len(samples) / rate for samples, rate in clips]
    assert {rate for _, rate in clips} == {16_000}
    assert soundfile.info(next(root.rglob("*.wav"))).subtype == "PCM_16"
    assert min(durations) > 1
    assert max(durations) < 4.5
    levels = [20 * np.log10(np.sqrt(np.mean(samples**2))) for samples, _ in clips]
    assert -45 < min(levels) < max(levels) < -18
    assert max(np.abs(samples).max() for samples, _ in clips) < 1  # nothing clips


def test_what_was_begun_and_killed_is_completed_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "demo"
    names = sorted(path.relative_to(root) for path in root.rglob("*.wav"))
    for name in names[:100]:
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).write_bytes((root / name).read_bytes())
    (unfinished / names[0]).write_bytes(b"RIFF")  # one that is not what it should be
    (unfinished / names[1]).with_name(f".{names[1].name}.x1y2").write_bytes(b"RI")  # and one half written
    demo.make_demo(unfinished)
    assert contents(unfinished) == contents(root)


def test_a_complete_corpus_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "synthesize", lambda utterances: pytest.fail("made again"))
    demo.make_demo(root)


def test_another_seed_is_made_anew_and_is_not_complete_until_it_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("demo.json", "metadata.csv"):
        (tmp_path / name).write_bytes((root / name).read_bytes())

    def killed(utterances: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(demo, "synthesize", killed)
    with pytest.raises(InterruptedError):
        demo.make_demo(tmp_path, seed=1)
    assert contents(tmp_path) == {"demo.json": b'{"version": 2, "seed": 1}\n'}
    assert [clip.text for clip in demo.plan(0)] != [clip.text for clip in demo.plan(1)]


def test_another_corpus_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("mine")
    with pytest.raises(ValueError, match="holds another corpus; give the demo corpus its own folder"):
        demo.make_demo(tmp_path)
    assert contents(tmp_path) == {"metadata.csv": b"mine"}


def test_words_carry_the_emotion_across_sentences_but_not_always() -> None:
    clips = demo.plan(0)
    for language in LANGUAGES:
        openings = [opening for emotion in EMOTIONS for opening in OPENINGS[language][emotion]]
        assert len(openings) == len(set(openings)) == 24
        assert len(set(TOPICS[language])) == 10
        for emotion in EMOTIONS[1:]:
            texts = [clip.text for clip in clips if (clip.language, clip.emotion) == (language, emotion)]
            borrowed = [text for text in texts if text.startswith(OPENINGS[language]["neutral"])]
            assert len(borrowed) == round(demo.BORROWED * len(texts))
            words = Counter(word for opening in OPENINGS[language][emotion] for word in set(opening.split()))
            neutral = {word for opening in OPENINGS[language]["neutral"] for word in opening.split()}
            assert any(count > 1 and word not in neutral for word, count in words.items())


@pytest.mark.parametrize("seed", [0, 1])
def test_no_sentence_is_said_twice_so_nothing_has_to_be_left_out(seed: int) -> None:
    clips = demo.plan(seed)
    assert len({same_text(clip.text) for clip in clips}) == len(clips) == 480
    rows = pd.DataFrame(
        {
            "id": [clip.id for clip in clips], "path": [clip.id for clip in clips],
            "sha256": [clip.id for clip in clips], "emotion": [clip.emotion for clip in clips],
            "speaker": [clip.speaker.name for clip in clips], "text": [clip.text for clip in clips],
        }
    )  # fmt: skip
    config = load_config(find_config("corpora", "demo"), CorpusConfig)
    assert config.split.disjoint == ["speaker", "text"]
    done = split_rows(rows, config)
    assert "withheld" not in done
    assert leaking_rows(done, "emotion") == {}
    assert sizes(done) == {fold: Size(160, 320, 0) for fold in range(3)}
    assert set(Counter(zip(done["fold"], done["emotion"], strict=True)).values()) == {40}


def test_words_of_a_test_sentence_recur_in_training() -> None:
    """What a text model can learn, though it has not read the sentences."""
    clips = demo.plan(0)
    for speaker in {clip.speaker.name for clip in clips}:
        train = {word for clip in clips if clip.speaker.name != speaker for word in clip.text.split()}
        test = {word for clip in clips if clip.speaker.name == speaker for word in clip.text.split()}
        assert len(test & train) > 0.95 * len(test)


def test_emotions_differ_in_sound_on_average_but_overlap(root: Path) -> None:
    def level(path: Path) -> float:
        return float(np.sqrt(np.mean(decode(path)[0] ** 2)))

    angry, sad = ([level(path) for path in root.rglob(f"*_{emotion}_*.wav")] for emotion in ("angry", "sad"))
    assert np.mean(angry) > 1.5 * np.mean(sad)
    assert min(angry) < max(sad)


def test_espeak_gives_the_same_bytes_and_obeys() -> None:
    def say(**changes: int) -> bytes:
        settings = {"rate": 160, "pitch": 50, "range": 50} | changes
        return synthesize([Utterance("Hello there, my friend.", "en+m1", **settings)])[0][0]

    plain = say()
    assert plain == say()
    assert len(say(rate=240)) < 0.8 * len(plain)
    assert say(pitch=80) != plain
    assert say(range=5) != plain


def test_espeak_says_when_there_is_no_such_voice() -> None:
    with pytest.raises(RuntimeError, match="no voice 'zz-nowhere'"):
        synthesize([Utterance("Hello.", "zz-nowhere", 160, 50, 50)])
