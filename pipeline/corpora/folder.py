"""One folder per class: `root/<label>/**/<file>`, with the speaker from a regular expression on the path."""

from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Text
from stillwave.pipeline.corpora.base import (
    CorpusBase,
    Imported,
    Rejected,
    Row,
    audio_files,
    check_no_span,
    compiled,
    keep_suffixes,
)
from stillwave.pipeline.corpora.spelling import nfc
from stillwave.pipeline.corpora.splits import side_of


class Folder(CorpusBase):
    """One folder per class: `root/<label>/**/<file>`, or `root/train/<label>/**/<file>` and `root/test/...`.

    speaker: a regular expression searched in the path relative to `root`; its group named `speaker`
        (or else its first group) is the speaker. Files that do not match are quarantined.
    constants: as for a table.
    """

    kind: Literal["folder"]
    speaker: str | None = None
    constants: dict[str, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _gives_no_span(self) -> "Folder":
        check_no_span(self.constants)
        return self

    def read(self, root: Path) -> Imported:
        """All audio files below `root`; the first folder of a file's path is its label.

        If the first folders are train, test and their like, they are the column `split`, and the second one
        is the label. The id is the path relative to `root` without its extension. A file that lies in no
        class folder, or one that the speaker's expression does not match, is rejected as `unrecognised_name`.
        Raises ValueError for an expression that cannot be used.
        """
        expression = compiled(self.speaker, "speaker") if self.speaker is not None else None
        if expression and not expression.groups:
            raise ValueError(f"speaker: {self.speaker!r} has no group; put the speaker's part in parentheses")
        imported = Imported()
        files = list(audio_files(root, imported.ignored))
        names = [PurePosixPath(nfc(file.relative_to(root).as_posix())) for file in files]
        split = 1 if are_sides(names) else 0  # folders before the label
        for path, relative in zip(files, names, strict=True):
            name = relative.with_suffix("").as_posix()
            match = expression.search(relative.as_posix()) if expression else None
            if len(relative.parts) < 2 + split:
                problem = f"{path.name} lies in no class folder"
            elif expression and match is None:
                problem = f"{relative.as_posix()} does not match speaker: {expression.pattern}"
            else:
                row: Row = {"id": name, "path": path.as_posix(), self.label: relative.parts[split]}
                if match is not None:
                    row["speaker"] = match["speaker"] if "speaker" in match.re.groupindex else match[1]
                if split:
                    row["split"] = side_of(relative.parts[0])
                imported.rows.append({**row, **self.constants})
                continue
            imported.rejected.append(Rejected(name, path.as_posix(), "unrecognised_name", problem))
        keep_suffixes(imported.rows)
        return imported


def are_sides(names: Sequence[PurePath]) -> bool:
    """Whether the first folders of these paths are the sides of a split, and class folders are in them."""
    sides = {name.parts[0]: side_of(name.parts[0]) for name in names if len(name.parts) > 1}
    return {"train"} < set(sides.values()) and all(sides.values()) and any(len(n.parts) > 2 for n in names)
