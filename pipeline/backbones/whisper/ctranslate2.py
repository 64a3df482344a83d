"""Whisper's weights from a CTranslate2 file, the format of faster-whisper, into transformers' names."""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

VERSIONS = (5, 6)  # of the file format
SPECIFICATION = "WhisperSpec"
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

# Of an attention, by the number of its products: which of transformers' projections stand in it, in order.
SELF_ATTENTION = {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}
CROSS_ATTENTION = {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}
# The logits' matrix is the embeddings'; the heads that word times are read from are not in use here.
NOT_WEIGHTS = ("_scale", "/alignment_heads", "decoder/projection/weight", "decoder/projection/bias")
NORMS = {"gamma": "weight", "beta": "bias"}
PLAIN = (  # names that change as a whole
    (r"layer_(\d+)/", r"layers.\1."),
    (r"self_attention/layer_norm/", "self_attn_layer_norm."),
    (r"attention/layer_norm/", "encoder_attn_layer_norm."),
    (r"ffn/layer_norm/", "final_layer_norm."),
    (r"ffn/linear_0/", "fc1."),
    (r"ffn/linear_1/", "fc2."),
    (r"position_encodings/encodings", "embed_positions.weight"),
    (r"embeddings/weight", "embed_tokens.weight"),
)


def read_whisper(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields for a WhisperConfig, and the fp32 weights in the names of transformers' WhisperModel.

    Raises ValueError, naming the file, for one that is cut off or holds another model.
    """
    found = read_variables(file)
    state: dict[str, Tensor] = {}
    for name, value in found.items():
        if value.ndim and not name.endswith(NOT_WEIGHTS):
            scale = found.get(f"{name}_scale")
            tensor = torch.from_numpy(value.astype(np.float32))
            if scale is not None:  # 8-bit integers, a scale per row
                tensor = tensor / torch.from_numpy(scale.astype(np.float32)).reshape(-1, 1)
            state |= _renamed(name, tensor)
    for name in [name for name in state if name.endswith("k_proj.bias")]:
        del state[name]  # all zeros: Whisper's keys have no bias
    try:
        return _sizes(found, state), state
    except KeyError as error:
        raise ValueError(f"{file}: not a whole Whisper model: it has no {error}") from error


def read_variables(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The named arrays of a file of CTranslate2. Raises ValueError for another file, or a part of one.

    Layout: version, name of the specification, its revision, number of variables; of each variable its
    name, rank, shape, type and bytes; then aliases, pairs of names. Little-endian throughout.
    """
    data = file.read_bytes()
    place = 0

    def number(code: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{code}", data, place)
        place += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal place
        size = number("H")
        place += size
        return data[place - size : place].rstrip(b"\0").decode()

    try:
        version = number("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version} of the format; {VERSIONS[0]} to {VERSIONS[-1]} are read")
        if (specification := text()) != SPECIFICATION:
            raise ValueError(f"it holds a {specification}, not a {SPECIFICATION}")
        number("I")  # revision
        found = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype, size = DTYPES[number("B")], number("I")
            found[name] = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, place).reshape(shape)
            place += size
        for _ in range(number("I")):
            alias = text()
            found[alias] = found[text()]
    except (struct.error, KeyError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"{file}: not a Whisper model of CTranslate2, or only a part of one: {error}. Fetch it again, or "
            "convert it again with ct2-transformers-converter"
        ) from error
    return found


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One variable as transformers has it: fused projections become several tensors."""
    path, _, kind = name.rpartition("/")
    if (attention := re.fullmatch(r"(.*/)(self_attention|attention)/(linear_\d)", path)) is not None:
        own = attention[2] == "self_attention"
        projections = (SELF_ATTENTION if own else CROSS_ATTENTION)[attention[3]]
        names = [f"{attention[1]}{'self_attn' if own else 'encoder_attn'}.{part}" for part in projections]
        pieces = tensor.chunk(len(names))
    else:
        names, pieces = [path], (tensor,)
        if path.endswith("layer_norm"):
            kind = NORMS[kind]
    renamed = {}
    for part, piece in zip(names, pieces, strict=True):
        key = f"{part}/{kind}"
        for pattern, replacement in PLAIN:
            key = re.sub(pattern, replacement, key)
        renamed[key.replace("/", ".")] = piece
    return renamed


def _sizes(found: dict[str, np.ndarray[Any, Any]], state: dict[str, Tensor]) -> dict[str, Any]:
    dim, num_mels, _ = state["encoder.conv1.weight"].shape
    sizes: dict[str, Any] = {
        "d_model": dim,
        "num_mel_bins": num_mels,
        "max_source_positions": len(state["encoder.embed_positions.weight"]),
        "max_target_positions": len(state["decoder.embed_positions.weight"]),
        "vocab_size": len(state["decoder.embed_tokens.weight"]),
    }
    for side in ("encoder", "decoder"):
        sizes[f"{side}_ffn_dim"] = len(state[f"{side}.layers.0.fc1.weight"])
        sizes[f"{side}_attention_heads"] = int(found[f"{side}/num_heads"])
        sizes[f"{side}_layers"] = len(
            {key.split(".")[2] for key in state if key.startswith(f"{side}.layers.")}
        )
    return sizes
