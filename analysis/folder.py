"""The folder of an analysis: whether it may be written, and replacing an old one."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"  # in the folder itself, so on the same file system: finished files can be moved up
NAMED = 5  # the most files that an error names


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A folder to write an analysis in; on leaving, its files replace those of the analysis in `out`.

    After an error in the block, `out` is unchanged. Raises ValueError like `made_before`, before the block.
    """
    made_before(out)
    out.mkdir(parents=True, exist_ok=True)
    part = out / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
    except BaseException:
        shutil.rmtree(part)
        raise
    # Without analysis.json it is no analysis: delete it first, write it last.
    for name in sorted(made_before(out), key=lambda name: name != "analysis.json"):
        (out / name).unlink()
    for path in sorted(part.iterdir(), key=lambda path: path.name == "analysis.json"):
        path.rename(out / path.name)
    part.rmdir()


def made_before(out: Path) -> list[str]:
    """The files of the analysis in `out`, according to its analysis.json.

    Raises ValueError if `out` has others, which must not be deleted; hidden files are ignored.
    """
    if not out.exists():
        return []
    if not out.is_dir():
        raise ValueError(f"{out}: a file; give a folder")
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    try:
        made = set(json.loads((out / "analysis.json").read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        made = set()
    if others := sorted(there - made):
        shown = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        raise ValueError(
            f"{out}: holds {len(others)} files that are not from an analysis ({shown}); move them "
            "away, or give another folder"
        )
    return sorted(there)
