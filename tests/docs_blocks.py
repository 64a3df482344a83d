"""The fenced blocks of a page, and running them in order, as a reader would.

A block with a title is a file to write (of `diff`, one to edit). Lines of `bash` that begin with `stillwave`
run in the page's process. `<!-- not run: REASON -->` before a block leaves it out.

`python docs_blocks.py` reads lines of JSON, [page, further environment], runs each page in its folder, and
answers with a line: the exit status. Each has a process of its own, forked with the libraries imported and
nothing of ours: importing them takes longer than what most pages do.
"""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = (
    "dask.array", "dask.distributed", "dvclive", "matplotlib.figure", "pyarrow.parquet",
    "sklearn.linear_model", "sklearn.metrics", "torch", "torch._dynamo", "transformers", "typer", "zarr",
)  # fmt: skip
SECONDS = 300  # for a page

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]*?) -->\n)?^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """line: of the page, where the text begins. reason: why it is not run, or None."""

    language: str
    title: str | None
    text: str
    line: int
    reason: str | None


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page in Markdown, in its order."""
    return [
        Block(
            match["language"],
            match["title"],
            match["text"],
            page.count("\n", 0, match.start("text")) + 1,
            match["reason"],
        )
        for match in _BLOCK.finditer(page)
    ]


def commands_of(text: str) -> list[str]:
    """The commands of a block of bash: lines that continue are joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def edit(text: str, diff: str) -> str:
    """`text` with the hunks of a diff, which `@@` parts; each must find its place exactly once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"found {text.count(old)} times:\n{old}"
        text = text.replace(old, new)
    return text


def run_page(page: Path) -> None:
    """Run the page's blocks in the working directory. Raises whatever they raise."""
    names: dict[str, Any] = {"__name__": "__main__"}
    background: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks_of(page.read_text()):
            if block.reason is not None:
                continue
            if block.title is not None:
                _write(Path(block.title), block)
            elif block.language == "python":
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, str(page), "exec"), names)
            elif block.language == "bash":
                for command in commands_of(block.text):
                    print(f"{page.name}:{block.line}: {command}", flush=True)
                    _run(command, background)
    finally:
        for process in background:
            process.terminate()
            process.wait(20)


def _write(file: Path, block: Block) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(edit(file.read_text(), block.text) if block.language == "diff" else block.text)
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "stillwave"]:
        del sys.modules[name]  # the next command is a new process to a reader, and sees the file


def _run(command: str, background: list[subprocess.Popen[bytes]]) -> None:
    words = shlex.split(os.path.expandvars(command), comments=True)
    if words[0] == "export":
        os.environ.update(word.split("=", 1) for word in words[1:])
    elif words[-1] == "&":
        background.append(subprocess.Popen(words[:-1]))
    elif words[0] == "stillwave":
        _stillwave(words)
    else:
        subprocess.run(["bash", "-c", command], check=True)


def _stillwave(words: list[str]) -> None:
    from stillwave.pipeline.cli import main

    sys.argv = words
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise


def serve() -> None:
    """What `python docs_blocks.py` does."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "stillwave" not in sys.modules  # that of the page's folder comes later
    for line in sys.stdin:
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        signal.alarm(SECONDS)
        name, environment = json.loads(line)
        page = Path(name)
        with page.with_suffix(".log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(page.parent)
        folders = [str(page.parent / "src"), str(page.parent)]
        sys.path[:0] = folders
        # PYTHONPATH: of the processes that the page starts
        os.environ.update({"PYTHONPATH": os.pathsep.join(folders), **environment})
        return run_page(page)


if __name__ == "__main__":
    serve()
