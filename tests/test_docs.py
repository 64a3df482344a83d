"""The documentation is true: its blocks run, its links lead somewhere, and its reference is complete."""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer

from stillwave.pipeline.cli import app
from tests.docs_blocks import blocks_of, edit

ROOT = Path(__file__).parents[1]
PAGES = (
    "docs/index.md", "docs/analysis.md", "docs/explorer.md", "docs/howto/backbone.md",
    "docs/howto/cluster.md", "docs/howto/corpus.md", "docs/howto/head.md", "docs/howto/predict.md",
    "docs/howto/python.md", "docs/howto/s3.md", "docs/howto/transcribe.md", "README.md",
)  # fmt: skip
# Blocks that say in their page why they are not run.
NOT_RUN = {
    "docs/index.md": 2, "docs/analysis.md": 2, "docs/howto/backbone.md": 1, "docs/howto/cluster.md": 1,
    "docs/howto/predict.md": 1, "docs/howto/python.md": 1, "docs/howto/s3.md": 1,
    "docs/howto/transcribe.md": 2,
}  # fmt: skip
# The README's first screen has no room for comments: commands that are not run, and why.
README_NOT_RUN = {
    "make": "sets up an environment",
    "source": "of a shell",
    "stillwave run --corpus emodb": "needs EmoDB, and minutes: benchmarks/speech.py",
    "stillwave extract --backbone wav2vec2_tiny": "docs/howto/cluster.md runs it",
    "  --out data/embeddings/wav2vec2_tiny.zarr --workers 2": "the same command's end",
    "dvc": "tests/test_dvc.py",
}
Run = Callable[..., None]  # (page, **environment)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs the blocks of a page in its folder; fails with all that they printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    command = [sys.executable, str(ROOT / "tests/docs_blocks.py")]
    server = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def run(page: Path, **environment: str) -> None:
        print(json.dumps([str(page), environment]), file=server.stdin, flush=True)
        assert server.stdout is not None
        answer = server.stdout.readline()
        assert answer == "0\n", answer + page.with_suffix(".log").read_text()

    yield run
    server.communicate(timeout=20)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A quick copy of the project: a fifth of the demo corpus, two folds, one epoch; and a first run."""
    folder = tmp_path_factory.mktemp("docs") / "stillwave"
    for name in ("pipeline", "heads", "cache", "analysis", "models", "configs", "src"):
        aside = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=aside)
    replace(folder / "pipeline/corpora/demo.py", r"PER_CELL = 5 ", "PER_CELL = 1 ")
    for recipe in (folder / "configs/recipes").glob("*.yaml"):
        recipe.write_text(re.sub(r"\bepochs: \d+", "epochs: 1", recipe.read_text()))
    replace(folder / "configs/corpora/demo.yaml", "folds: 3", "folds: 2")
    replace(folder / "configs/analysis/default.yaml", r"umap: \{.*\}", "umap: null")  # compiles for 15 s
    page = folder / "first.md"
    page.write_text("```bash\nstillwave run --corpus demo --recipe fbank_demo --out runs/first\n```\n")
    run(page)
    return folder


def replace(file: Path, old: str, new: str) -> None:
    text, count = re.subn(old, new, file.read_text())
    assert count == 1
    file.write_text(text)


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """The project for one page, which may edit it."""
    return shutil.copytree(project, tmp_path / "stillwave", symlinks=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run_in_order(
    name: str, copy: Path, run: Run, request: pytest.FixtureRequest
) -> None:
    text, environment = (ROOT / name).read_text(), {}
    if name == "README.md":
        text = "\n".join(line for line in text.split("\n") if not line.startswith(tuple(README_NOT_RUN)))
        text = text.replace("de_bela_sad_2", "de_bela_sad_0")  # of a smaller corpus
    if name == "docs/index.md":
        some_recordings(copy)
    if name == "docs/howto/s3.md":
        text = text.replace("s3://my-speech", request.getfixturevalue("bucket"))
        environment = request.getfixturevalue("s3_server")
    text = text.replace(":8786", f":{free_port()}").replace("--port 8786", f"--port {free_port()}")
    page = copy / "page.md"
    page.write_text(text)
    run(page, **environment)
    for table in re.findall(r"^\| `([^|]*)` \| .* \|$", text, flags=re.M) if name == "docs/index.md" else ():
        for file in table.split("`, `"):
            assert (copy / "runs/first" / file).exists(), file


def some_recordings(folder: Path) -> None:
    """What the first page calls recordings/: a folder per class, the speaker before the first underscore."""
    names = {"neutral": "calm", "angry": "cross"}
    for file in folder.glob("data/corpora/demo/wav/*/*.wav"):
        language, speaker, emotion, _ = file.stem.split("_")
        if emotion in names:
            target = folder / "recordings" / names[emotion] / f"{speaker}_{language}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


_ports: list[int] = []


def free_port() -> int:
    """A port on loopback that nobody listens on; the same one within a process."""
    if not _ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            _ports.append(one.getsockname()[1])
    return _ports[0]


def test_what_is_not_run_says_why() -> None:
    reasons = {name: [b.reason for b in blocks_of((ROOT / name).read_text())] for name in PAGES}
    found = {name: sum(reason is not None for reason in given) for name, given in reasons.items()}
    assert {name: count for name, count in found.items() if count} == NOT_RUN
    assert all(reason for given in reasons.values() for reason in given if reason is not None)


def test_a_diff_finds_its_place_once_or_fails() -> None:
    assert edit("a\nb\nc\n", " a\n-b\n+B\n@@\n c\n+d\n") == "a\nB\nc\nd\n"
    with pytest.raises(AssertionError, match="found 0 times"):
        edit("a\n", "-b\n+c\n")
    with pytest.raises(AssertionError, match="found 2 times"):
        edit("a\na\n", "-a\n+b\n")


class Page(HTMLParser):
    """ids, links and what a page loads, of a built page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "preload", "icon"):
            self.loads.append(given["href"])
        if tag in ("script", "img", "iframe") and "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The site as `make docs` builds it: its pages, by file."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.relative_to(folder): Page(file) for file in folder.rglob("*.html")}


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_every_link_leads_somewhere(site: dict[Path, Page]) -> None:
    for file, page in site.items():
        if file.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not link or link == ".":
                continue
            target = Path(os.path.normpath(file.parent / unquote(parts.path))) if parts.path else file
            assert target in site, f"{file}: {link}"
            fragment = unquote(parts.fragment)
            assert not fragment or fragment in site[target].ids, f"{file}: {link}"


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    loads = {load for page in site.values() for load in page.loads}
    assert any("search" in load or "bundle" in load for load in loads)
    assert [load for load in loads if urlsplit(load).scheme or load.startswith("//")] == []


@pytest.mark.slow
def test_every_command_and_every_config_class_is_in_the_reference(site: dict[Path, Page]) -> None:
    commands = {f"stillwave-{name}" for name in typer.main.get_command(app).commands}
    assert {"stillwave-prepare", "stillwave-analyze"} <= commands
    assert commands <= site[Path("reference/cli.html")].ids
    names = set()
    rooms = ("config", "backbones", "transcribe")
    for file in (file for room in rooms for file in (ROOT / "pipeline" / room).rglob("*.py")):
        classes = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
        ours = file.parent.name == "config"
        names |= {node.name.lower() for node in classes if ours or node.name.endswith("Config")}
    names = {name for name in names if not name.startswith("_")} - {"config", "configerror", "keywords"}
    assert {"recipe", "fbankconfig", "losses"} <= names
    names |= {"segmenthead", "pooledhead", "fusionopenmaxhead"}
    assert names <= site[Path("reference/configs.html")].ids


@pytest.mark.slow
def test_every_module_of_analysis_is_in_the_reference(site: dict[Path, Page]) -> None:
    modules = {f"stillwave.analysis.{file.stem}" for file in (ROOT / "analysis").glob("[a-z]*.py")}
    assert {"stillwave.analysis.analyze", "stillwave.analysis.explorer"} <= modules
    assert modules <= site[Path("reference/api/analysis.html")].ids


@pytest.mark.slow
def test_every_model_is_in_the_reference(site: dict[Path, Page]) -> None:
    names = {
        f"stillwave.models.{file.stem}.{node.name}"
        for file in (ROOT / "models").glob("[a-z]*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name != "LabelEncoder"  # a protocol: scikit-learn's
    }
    assert len(names) > 6
    assert names <= site[Path("reference/api/models.html")].ids


def test_every_field_of_a_config_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs/hooks"))
    import reference

    silent = [
        f"{kind.__name__}.{name}"
        for kinds in reference.config_classes().values()
        for kind in kinds
        for name in kind.model_fields
        if name != "kind" and not reference.meaning(kind, name)
    ]
    assert silent == []


def test_links_of_the_readme_and_its_like_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
            path, _, fragment = link.partition("#")
            if urlsplit(link).scheme:
                continue
            assert (ROOT / path).exists(), f"{name}: {link}"
            assert not fragment or fragment in anchors(ROOT / path), f"{name}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_errors_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    said = {
        node.value
        for folder in ("analysis", "cache", "pipeline", "heads")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    said.add("`: Extra inputs are not permitted")  # pydantic's
    said = {" ".join(text.split()) for text in said}
    page = (ROOT / "docs/troubleshooting.md").read_text()
    messages = [block.text for block in blocks_of(page) if block.language == "text"]
    assert len(messages) > 15
    for message in messages:
        pieces = [piece for piece in re.split("…", " ".join(message.split())) if len(piece.strip()) > 3]
        assert pieces, message
        for piece in pieces:
            assert any(piece.strip() in text for text in said), piece
