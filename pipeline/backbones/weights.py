"""Where weights come from: a local folder or the hub's local cache first, then the network; or a seed."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.quiet import quiet

SAFE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# Only if there are no safetensors (some old repositories); read by torch's `weights_only` unpickler.
LEGACY_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
NEMO_WEIGHTS = ("*.nemo",)  # contains its config
CTRANSLATE2_WEIGHTS = ("model.bin",)  # the format of faster-whisper
TRANSFORMERS_WEIGHTS = (SAFE_WEIGHTS, LEGACY_WEIGHTS)
SIDE_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer*", "vocab*",
    "special_tokens_map.json",
)  # fmt: skip

PACKAGE = "package:"  # before the path of a file in an installed package

NOT_CACHED = "it is not in the local Hugging Face cache"

M = TypeVar("M", bound=nn.Module)


class WithWeights(Protocol):
    """The fields of a config that say where its weights are; see PretrainedConfig."""

    @property
    def source(self) -> str: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def download(self) -> bool: ...
    @property
    def local_weights(self) -> str: ...


class NotCached(ValueError):
    """The weights are not on this machine, and may not be downloaded."""


def find_folder(config: WithWeights, wanted: Sequence[tuple[str, ...]] = TRANSFORMERS_WEIGHTS) -> Path:
    """The folder with config.json and weights for `config.source`; the network is tried last.

    wanted: patterns of weight files, weights before their index, best kind first.
    Raises ValueError naming what was looked for and the remedies.
    """
    name = config.source
    local = local_path(name, "weights")
    if local.is_dir():
        if weight_files(local, wanted):
            return _checked(config, local, wanted)
        lacks = "a .nemo file" if NEMO_WEIGHTS in wanted else "config.json or model.safetensors"
        raise ValueError(_missing(config, f"the folder {name} lacks {lacks}"))
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ValueError(_missing(config, f"there is no folder {name}"))
    cached = _snapshot(config, wanted, local_files_only=True)
    if isinstance(cached, Path):
        return _checked(config, cached, wanted)
    if not config.download:
        raise NotCached(_missing(config, f"{NOT_CACHED}, and `download` is false"))
    if hub_is_offline():
        raise NotCached(_missing(config, f"{NOT_CACHED}, and HF_HUB_OFFLINE is set"))
    fetched = _snapshot(config, wanted, local_files_only=False)
    if isinstance(fetched, Path):
        return _checked(config, fetched, wanted)
    raise ValueError(_missing(config, f"{NOT_CACHED}, and the hub said: {fetched}"))


def local_path(name: str, field: str) -> Path:
    """A path, or with `package:name/file` one in an installed package, of which nothing is imported.

    Raises ValueError where the package is not installed, or lacks the file.
    """
    if not name.startswith(PACKAGE):
        return Path(name).expanduser()
    package, _, rest = name.removeprefix(PACKAGE).partition("/")
    found = find_spec(package) if package.isidentifier() else None
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := Path(folder) / rest).exists():
            return path
    lacks = f"the installed {package} has no {rest}" if found else f"no package {package} is installed"
    remedy = "--no-deps Resemblyzer" if package == "resemblyzer" else "'stillwave[pretrained]'"
    raise ValueError(f"`{field}` {name}: {lacks}; shipped configs need pip install {remedy}")


def at_hand(config: PretrainedConfig) -> bool:
    """Whether the weights are available without a download; also True if there are none at all."""
    if config.weights == "random" or config.source.startswith(PACKAGE):
        return True
    if Path(config.source).expanduser().exists():
        return True
    if "://" in config.source:  # torch caches it under the last part of the URL
        return (Path(torch.hub.get_dir()) / "checkpoints" / config.source.rpartition("/")[2]).is_file()
    try:
        offline = config.model_copy(update={"download": False})
        find_folder(offline, (*TRANSFORMERS_WEIGHTS, NEMO_WEIGHTS, CTRANSLATE2_WEIGHTS))
    except NotCached:
        return False
    except ValueError:  # the folder is missing or not a model: building it raises the error
        return True
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object at `path`, or an empty one if there is no such file."""
    loaded: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return loaded


def load_pretrained(
    config: WithWeights, model_class: Any, unused: tuple[str, ...], attention: str = "sdpa"
) -> tuple[Any, Path]:
    """A `transformers` model of `model_class` from `config.source`, in fp32, and the folder it came from.

    unused: prefixes of parameters that may be absent because the backbone never uses them; any other missing
    parameter is an error, because transformers would initialise it at random. attention: transformers' name
    of the kernels; a model without attention takes only `eager`.
    """
    folder = find_folder(config)
    found = read_json(folder / "config.json").get("model_type")
    model_type = model_class.config_class.model_type
    if found != model_type:
        raise ValueError(
            f"`weights` {config.source}: its config.json says model_type {found!r}, "
            f"but this kind loads {model_type!r}"
        )
    try:
        with quiet():  # what matters in the load report is checked below
            model, info = model_class.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"`weights` {config.source}: cannot be loaded from {folder}: {error}") from error
    absent = sorted(key for key in info["missing_keys"] if not key.startswith(unused))
    if absent:
        raise ValueError(
            f"`weights` {config.source}: {len(absent)} parameters are not in the file, such as {absent[0]}: "
            "it is damaged, or was saved from another architecture"
        )
    return model, folder


_DRAWING = threading.RLock()  # the generator is global; reentrant, because one model may build another


def random_weights(seed: int, build: Callable[[], M]) -> M:
    """`build()` under `seed`, the same in every process; the global generator is left as it was."""
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def weights_sha256(module: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of the state dict, in name order: as loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _snapshot(config: WithWeights, wanted: Sequence[tuple[str, ...]], local_files_only: bool) -> Path | str:
    """The hub's folder for this id and revision, or why there is none."""
    from huggingface_hub import snapshot_download

    reason = f"no {' or '.join(kind[0] for kind in wanted)} in the repository"
    for patterns in wanted:
        try:
            folder = snapshot_download(
                config.source,
                revision=config.revision,
                allow_patterns=[*SIDE_FILES, *patterns],
                local_files_only=local_files_only,
            )
        except Exception as error:  # no file, no network, no such id: the remedies are the same
            return f"{type(error).__name__}: {error}"
        if weight_files(Path(folder), wanted):
            return Path(folder)
    return reason


def weight_files(folder: Path, wanted: Sequence[tuple[str, ...]]) -> list[Path]:
    """Files of weights in a folder, the best kind first; none where no model's config says what they are."""
    weights = [file for patterns in wanted for file in sorted(folder.glob(patterns[0]))]
    configured = (folder / "config.json").is_file()
    return [file for file in weights if configured or file.suffix == ".nemo"]


def _checked(config: WithWeights, folder: Path, wanted: Sequence[tuple[str, ...]]) -> Path:
    """`folder`. Raises ValueError if its weights are not those that `sha256` means."""
    if config.sha256 is not None:
        first, *others = weight_files(folder, wanted)
        where = f"`weights` {config.source}"
        if shards := [file.name for file in others if file.suffix == first.suffix == ".safetensors"]:
            raise ValueError(f"{where}: `sha256` is of one file, but there is also {shards[0]}; remove it")
        with first.open("rb") as opened:
            check_sha256(hashlib.file_digest(opened, "sha256").hexdigest(), config.sha256, where, first.name)
    return folder


def check_sha256(found: str, wanted: str | None, where: str, file: str) -> None:
    """Raise ValueError if a file is not the one that the config means."""
    if wanted not in (None, found):
        raise ValueError(
            f"{where}: the sha256 of {file} is {found}, not {wanted}: this is not the file that the "
            "config means. Install the version in constraints.txt, or, if you trust it, put its sha256 there"
        )


def hub_is_offline() -> bool:
    """Whether the environment forbids the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in names)


def no_model(
    name: str, reason: str, fetch: str, folder: str, what: str = "model", random: bool = True
) -> str:
    """The error message for missing weights, with the remedies; `random` weights may be one."""
    untrained = "; (3) set `weights: random` to try the pipeline without a trained model" if random else ""
    return (
        f"`weights` {name}: no {what} found: {reason}. Do one of: "
        f"(1) on a machine with network access, {fetch} and copy it here; (2) set `weights` to {folder}"
        f"{untrained}"
    )


def _missing(config: WithWeights, reason: str) -> str:
    revision = f" --revision {config.revision}" if config.revision else ""
    fetch = f"fill the cache with `hf download {config.source}{revision}` (older: huggingface-cli download)"
    backbone = isinstance(config, PretrainedConfig)
    return no_model(config.source, reason, fetch, config.local_weights, random=backbone)
