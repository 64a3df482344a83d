"""What has been transcribed, kept next to a manifest: a killed run resumes, and nothing is done twice."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stillwave.pipeline.audio.files import read_file, write_if_changed


class Transcripts:
    """Texts by content, of every model that was used for one manifest: `<out>.transcripts.json`.

    name: the model's kind and the beginning of its fingerprint's sha256; what it was is in the file.
    """

    def __init__(self, out: str | Path, fingerprint: dict[str, Any]) -> None:
        self.path = f"{out}.transcripts.json"
        made_by = json.loads(json.dumps(fingerprint))
        sha256 = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        self.name = f"{made_by['kind']}:{sha256[:12]}"
        self._models: dict[str, Any] = {}
        try:
            self._models = json.loads(read_file(self.path))
            own = self._models.setdefault(self.name, {"fingerprint": made_by, "texts": {}})
            self._texts: dict[str, str] = own["texts"]
        except FileNotFoundError:
            self._texts = {}
            self._models[self.name] = {"fingerprint": made_by, "texts": self._texts}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.path}: not a file of transcripts: {error}; delete it") from error

    def __contains__(self, key: tuple[str, str | None]) -> bool:
        return _name(key) in self._texts

    def __getitem__(self, key: tuple[str, str | None]) -> str:
        return self._texts[_name(key)]

    def __setitem__(self, key: tuple[str, str | None], text: str) -> None:
        """key: sha256 of the audio's bytes, and the language that the model was told."""
        self._texts[_name(key)] = text

    def save(self) -> None:
        """Write the whole file, in one step."""
        text = json.dumps(self._models, indent=1, ensure_ascii=False, sort_keys=True)
        write_if_changed(self.path, f"{text}\n".encode())


def _name(key: tuple[str, str | None]) -> str:
    return " ".join(filter(None, key))
