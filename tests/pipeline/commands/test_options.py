import pytest

from stillwave.pipeline.cli import app
from stillwave.pipeline.config.named import config_names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stillwave run --corpus emodb7", ["emodb7"]),
        ("stillwave extract --backbone ", config_names("backbones")),
        ("stillwave analyze a.zarr --config de", ["default"]),
        ("stillwave train --recipe ./fb", []),  # a shell then completes files
    ],
)
def test_a_shell_completes_names(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_STILLWAVE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    with pytest.raises(SystemExit):
        app([], prog_name="stillwave")
    assert capfd.readouterr().out.split() == expected
