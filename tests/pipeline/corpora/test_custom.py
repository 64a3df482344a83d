"""A corpus that the user's own code imports, from a folder that is not the project's."""

import subprocess
import sys
from pathlib import Path

import pytest

from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.base import Imported
from stillwave.pipeline.corpora.custom import Custom

CODE = """
from stillwave.pipeline.corpora.base import Imported

def read(root, suffix, label="happy"):
    paths = sorted(root.glob(f"*{suffix}"))
    return Imported([{"id": path.stem, "path": path.as_posix(), "emotion": label} for path in paths])

class Corpus(Imported):
    def __init__(self, root):
        super().__init__(rows=[{"id": "a", "path": f"{root}/a.wav", "emotion": None}])

def rows(root):
    return [{"id": "a", "path": "a.wav"}]

def uneven(root):
    return Imported([{"id": "a", "path": "a.wav", "word": "x"}, {"id": "b", "path": "b.wav"}])

def number(root):
    return Imported([{"id": "a", "path": "a.wav", "word": 1}])

WORD = "word"
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package of the user's own."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_corpora.py").write_text(CODE)
    (tmp_path / "code" / "my_broken.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "my_corpora", raising=False)
    return "my_corpora"


def config(path: object, **fields: object) -> Custom:
    parsed: Custom = parse_config({"kind": "custom", "class": path, **fields}, CorpusConfig, "mine.yaml")
    return parsed


def test_the_code_gets_the_root_and_the_further_fields(tmp_path: Path, code: str) -> None:
    for name in ("b.wav", "a.wav", "c.flac"):
        (tmp_path / name).touch()
    mine = config("my_corpora:read", suffix=".wav", label="word", classes=["x"])
    assert "my_corpora" not in sys.modules  # a config alone runs nothing
    with pytest.raises(ValueError, match="suffix"):
        config("my_corpora:read").read(tmp_path)
    imported = mine.read(tmp_path)
    assert [row["id"] for row in imported.rows] == ["a", "b"]
    assert {row["emotion"] for row in imported.rows} == {"happy"}  # `label` is the corpus's own field


def test_a_class_may_be_an_imported_itself(tmp_path: Path, code: str) -> None:
    imported = config("my_corpora:Corpus").read(tmp_path)
    assert isinstance(imported, Imported)
    assert imported.rows == [{"id": "a", "path": f"{tmp_path}/a.wav", "emotion": None}]


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("my_corpora.read", {}, "my_corpora.read: write package.module:Name"),
        ("no_such:read", {}, r"no_such:read: cannot be imported: No module named .*PYTHONPATH"),
        ("my_broken:read", {}, r"my_broken:read: .*: No module named 'no_such_package'"),
        ("my_corpora:reed", {}, r"my_corpora:reed: the module my_corpora has no reed"),
        ("my_corpora:WORD", {}, r"my_corpora:WORD: cannot be called with the root and \{\}: 'word' is not"),
        ("my_corpora:read", {"sufix": 1}, r"cannot be called with the root and \{'sufix': 1\}: .*'suffix'"),
        ("builtins:dict", {}, "builtins:dict: cannot be called with .*no signature found"),
        ("my_corpora:rows", {}, "my_corpora:rows: returned list; it should return an Imported"),
        ("my_corpora:uneven", {}, r"my_corpora:uneven: row 2 is \{'id': 'b'.*`id`, `path` and the columns"),
        ("my_corpora:number", {}, r"my_corpora:number: row 1 is \{.*'word': 1\}; .* as text or None"),
    ],
)
def test_code_that_cannot_be_used_is_refused(
    tmp_path: Path, code: str, path: str, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match="`class` .*" + message):
        config(path, **fields).read(tmp_path)


def test_a_config_loads_the_module_of_its_own_kind_alone() -> None:
    code = (
        "import sys; from stillwave.pipeline.config.base import load_config; "
        "from stillwave.pipeline.corpora import CorpusConfig; "
        "load_config('configs/corpora/emodb.yaml', CorpusConfig); "
        "print(*sorted(name for name in sys.modules if name.startswith('stillwave.pipeline.corpora.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = [name.rpartition(".")[2] for name in done.stdout.split()]
    assert loaded == ["base", "named", "spelling"]


def test_a_config_without_its_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="`class`: Field required"):
        parse_config({"kind": "custom"}, CorpusConfig, "mine.yaml")
