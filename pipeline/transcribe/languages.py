"""The languages of rows: codes, and what a model refuses."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any


def language_code(name: Any) -> str | None:
    """The code of a language given as a code, a locale or an English name: en of `EN`, `en-GB`, `English`.

    None for a language that Whisper has no code for, and for no language.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    if not isinstance(name, str):
        return None
    name = name.strip().lower()
    short = name.replace("_", "-").partition("-")[0]
    found: str | None = short if short in LANGUAGES else TO_LANGUAGE_CODE.get(name)
    return found


def languages_of(
    rows: Sequence[Mapping[Any, Any]], known: Set[str] | None, default: str | None, weights: str
) -> list[str | None]:
    """The code of each row's language, or `default`; None if the model takes any (no `known`).

    Raises ValueError, naming the languages, if rows are in another one than those `known`.
    """
    if known is None:
        return [None] * len(rows)
    named = [row.get("language") for row in rows]
    given = [name if isinstance(name, str) and name.strip() else None for name in named]
    codes = [language_code(name) for name in given]
    unknown = [
        (name, row["id"])
        for name, code, row in zip(given, codes, rows, strict=True)
        if name is not None and code not in known
    ]
    if unknown:
        counts = ", ".join(f"{name} ({n} rows)" for name, n in Counter(name for name, _ in unknown).items())
        takes = ", ".join(sorted(known)) if len(known) < 5 else f"{len(known)} languages"
        raise ValueError(
            f"the manifest's column `language`: rows without text are in {counts}, the first is "
            f"{unknown[0][1]!r}; the model {weights} takes only {takes}. Use a model of that language, such "
            "as a multilingual Whisper (--model whisper_base), leave these rows out of the manifest, or give "
            "them a text; a language is an ISO 639-1 code, such as en, or its English name"
        )
    return [default if name is None else code for name, code in zip(given, codes, strict=True)]
