"""A corpus whose file names say everything, by the rule in its config."""

from pathlib import Path

from stillwave.pipeline.config.corpus import Named
from stillwave.pipeline.corpora.base import Imported, Rejected, audio_files


def read(config: Named, root: Path) -> Imported:
    """All files below `root` that match `config.pattern`; the others are rejected as `unrecognised_name`.

    Raises ValueError when none matches, and for a text that `config.values` lacks.
    """
    imported = Imported()
    for path in audio_files(root, imported.ignored):
        row = config.row(path.relative_to(root))
        if row is None:
            detail = f"{path.name} does not fit {config.names}, such as {config.example}"
            imported.rejected.append(Rejected(path.stem, path.as_posix(), "unrecognised_name", detail))
        elif left_out := [row[name] for name, values in config.keep.items() if row[name] not in values]:
            imported.excluded[str(left_out[0])] += 1
        else:
            imported.rows.append({"id": row.pop("id"), "path": path.as_posix(), **row})
    if not imported.rows and not imported.excluded:
        raise ValueError(
            f"pattern: none of the {len(imported.rejected)} audio files below {root} matches "
            f"{config.pattern!r}; the first is {imported.rejected[0].path}, and names should be such as "
            f"{config.example}. Correct the pattern, or give the corpus's folder with --root"
        )
    return imported
