"""EnCodec's encoder and quantizer from the encodec package, its file of weights, or a seed."""

import hashlib
import importlib
import importlib.util
import pickle
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stillwave.pipeline.backbones.encodec.models import MODELS, SIZES, Codec, draw_codebooks, num_codebooks
from stillwave.pipeline.backbones.weights import hub_is_offline, no_model, random_weights

# The files that the package downloads; the digits are the first of the file's sha256.
PACKAGE_URL = "https://dl.fbaipublicfiles.com/encodec/v0/"
PACKAGE_FILES = {"24khz": "encodec_24khz-d7cc33bc.th", "48khz": "encodec_48khz-7e698e3e.th"}


def from_package(model: str, weights: str, size: str, seed: int, download: bool) -> Codec:
    """The package's `model`, with all its codebooks; ValueError if there is none. See EncodecConfig."""
    if weights == "random":
        modules = random_weights(seed, lambda: _package_modules(model, **SIZES[size]))
    else:
        modules = _load_package_modules(model, _find_file(model, weights, download))
    encoder: Any = modules["encoder"]
    quantizer: Any = modules["quantizer"]
    return Codec(encoder, quantizer.vq, encoder.dimension)


def _package_modules(model: str, num_filters: int, hidden_size: int) -> nn.ModuleDict:
    """The package's encoder and quantizer with random weights."""
    encodec = import_encodec()
    settings = MODELS[model]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*weight_norm. is deprecated", FutureWarning)
        encoder = encodec.modules.SEANetEncoder(
            channels=settings["audio_channels"],
            dimension=hidden_size,
            n_filters=num_filters,
            norm=settings["norm_type"],
            causal=settings["use_causal_conv"],
        )
    quantizer = encodec.quantization.ResidualVectorQuantizer(
        dimension=hidden_size, n_q=num_codebooks(model, settings["target_bandwidths"][-1])
    )
    return draw_codebooks(nn.ModuleDict({"encoder": encoder, "quantizer": quantizer}), model)


def _load_package_modules(model: str, file: Path) -> nn.ModuleDict:
    """The same with the weights of a file, whose decoder is ignored."""
    state = {k: v for k, v in _read_state(file).items() if k.startswith(("encoder.", "quantizer."))}
    try:
        num_filters = len(state["encoder.model.0.conv.conv.bias"])
        hidden_size = state["quantizer.vq.layers.0._codebook.embed"].shape[1]
        modules = _package_modules(model, num_filters, hidden_size)
        wrong = modules.load_state_dict(state, strict=False)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"`weights` {file}: not a state dict of the encodec package: {error}") from error
    if names := [*wrong.missing_keys, *wrong.unexpected_keys]:
        raise ValueError(
            f"`weights` {file}: {len(names)} parameters belong to a model other than EnCodec {model}, "
            f"such as {names[0]}: check that `model` fits these weights"
        )
    return modules


def import_encodec() -> Any:
    """The package, with or without torchaudio, which it imports only to resample and to save files.

    A stand-in replaces torchaudio during the import only, so that no other code finds it.
    """
    absent = "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is None
    if absent:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    try:
        return importlib.import_module("encodec")
    except (ImportError, OSError) as error:
        raise ValueError(
            f"`implementation` encodec: cannot be imported ({error}); run `pip install --no-deps encodec` "
            "and `pip install einops`, or use implementation transformers"
        ) from error
    finally:
        if absent:
            del sys.modules["torchaudio"]


def _find_file(model: str, weights: str, download: bool) -> Path:
    """The package's file for `weights`: in the folder, in torch's hub cache, or from the network."""
    name = PACKAGE_FILES[model]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    folder = Path(weights).expanduser()
    places = [file] if weights == "published" else [folder / name, folder / "model.safetensors"]
    if found := next((place for place in places if place.is_file()), None):
        return found
    if weights != "published":
        reason = f"{folder} has neither {name} nor model.safetensors"
    elif not download:
        reason = f"{file} does not exist, and `download` is false"
    elif hub_is_offline():
        reason = f"{file} does not exist, and HF_HUB_OFFLINE is set"
    else:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                PACKAGE_URL + name, str(file), _sha256_prefix(file), progress=False
            )
            return file
        except (OSError, RuntimeError) as error:
            reason = f"{PACKAGE_URL}{name} cannot be downloaded: {error}"
    fetch, local = f"download {PACKAGE_URL}{name}", f"a local folder with {name} or model.safetensors"
    raise ValueError(no_model(weights, reason, fetch, local, "model of the encodec package"))


def _read_state(file: Path) -> dict[str, Tensor]:
    """The state dict in a .th, read by torch's `weights_only` unpickler, or a .safetensors file."""
    prefix = _sha256_prefix(file)
    if prefix and (sha256 := hashlib.sha256(file.read_bytes()).hexdigest())[: len(prefix)] != prefix:
        raise ValueError(
            f"`weights` {file}: its sha256 begins with {sha256[: len(prefix)]}, but its name says {prefix}: "
            "it is damaged; download it again"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        return state
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"`weights` {file}: cannot be loaded: {error}") from error


def _sha256_prefix(file: Path) -> str | None:
    """The digits at the end of a published file's name."""
    found = re.fullmatch(r".*-([0-9a-f]{8})", file.stem)
    return found[1] if found else None
