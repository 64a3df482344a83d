"""One folder per class: `root/<label>/**/<file>`, with the speaker from a regular expression on the path."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from stillwave.pipeline.corpora.base import CorpusBase, Imported, Rejected, Row, audio_files, compiled


class Folder(CorpusBase):
    """One folder per class: `root/<label>/**/<file>`.

    speaker: a regular expression searched in the path relative to `root`; its group named `speaker`
        (or else its first group) is the speaker. Files that do not match are quarantined.
    constants: as for a table.
    """

    kind: Literal["folder"]
    speaker: str | None = None
    constants: dict[str, str] = Field(default_factory=dict)

    def read(self, root: Path) -> Imported:
        """All audio files below `root`; the first folder of a file's path is its label.

        The id is the path relative to `root` without its extension. A file directly in `root`, or one that
        the speaker's expression does not match, is rejected as `unrecognised_name`. Raises ValueError for an
        expression that cannot be used.
        """
        expression = compiled(self.speaker, "speaker") if self.speaker is not None else None
        if expression and not expression.groups:
            raise ValueError(f"speaker: {self.speaker!r} has no group; put the speaker's part in parentheses")
        imported = Imported()
        for path in audio_files(root, imported.ignored):
            relative = path.relative_to(root)
            name = relative.with_suffix("").as_posix()
            match = expression.search(relative.as_posix()) if expression else None
            if len(relative.parts) < 2:
                problem = f"{path.name} lies in no class folder"
            elif expression and match is None:
                problem = f"{relative.as_posix()} does not match speaker: {expression.pattern}"
            else:
                row: Row = {"id": name, "path": path.as_posix(), self.label: relative.parts[0]}
                if match is not None:
                    row["speaker"] = match["speaker"] if "speaker" in match.re.groupindex else match[1]
                imported.rows.append({**row, **self.constants})
                continue
            imported.rejected.append(Rejected(name, path.as_posix(), "unrecognised_name", problem))
        return imported
