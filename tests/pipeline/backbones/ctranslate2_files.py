"""Whisper's weights written in CTranslate2's format, from the names of transformers."""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CODES = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2, np.dtype(np.float16): 4}


def write_variables(
    path: Path, variables: dict[str, NDArray[np.generic]], aliases: dict[str, str] | None = None,
    version: int = 6, specification: str = "WhisperSpec",
) -> None:  # fmt: skip
    def text(value: str) -> bytes:
        raw = value.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        parts += [text(name), shape, struct.pack("<BI", CODES[value.dtype], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases or {})))
    parts += [text(name) for pair in (aliases or {}).items() for name in pair]
    path.write_bytes(b"".join(parts))


def whisper_variables(
    state: dict[str, Tensor], heads: int, dtype: str = "float32"
) -> dict[str, NDArray[np.generic]]:
    """transformers' state dict of a WhisperModel under CTranslate2's names; dtype: float32, float16, int8."""
    found: dict[str, NDArray[np.generic]] = {}

    def put(name: str, tensor: Tensor) -> None:
        value = tensor.numpy()
        if dtype == "int8" and value.ndim == 2 and "encodings" not in name:
            scale = 127 / np.abs(value).max(1)
            found[name] = np.rint(value * scale[:, None]).astype(np.int8)
            found[f"{name}_scale"] = scale.astype(np.float32)
        else:
            found[name] = value.astype(np.float16 if dtype == "float16" else np.float32)

    def layer_norm(name: str, prefix: str) -> None:
        put(f"{name}/gamma", state[f"{prefix}.weight"])
        put(f"{name}/beta", state[f"{prefix}.bias"])

    def linear(name: str, *prefixes: str) -> None:
        put(f"{name}/weight", torch.cat([state[f"{prefix}.weight"] for prefix in prefixes]))
        biases = [
            state.get(f"{prefix}.bias", torch.zeros(len(state[f"{prefix}.weight"]))) for prefix in prefixes
        ]
        put(f"{name}/bias", torch.cat(biases))

    for side in ("encoder", "decoder"):
        found[f"{side}/num_heads"] = np.array(heads, np.int16)
        put(f"{side}/position_encodings/encodings", state[f"{side}.embed_positions.weight"])
        layer_norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for number in range(
            len({name.split(".")[2] for name in state if name.startswith(f"{side}.layers.")})
        ):
            ours, theirs = f"{side}/layer_{number}", f"{side}.layers.{number}"
            own = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
            linear(f"{ours}/self_attention/linear_0", *own)
            linear(f"{ours}/self_attention/linear_1", f"{theirs}.self_attn.out_proj")
            layer_norm(f"{ours}/self_attention/layer_norm", f"{theirs}.self_attn_layer_norm")
            if side == "decoder":
                cross = [f"{theirs}.encoder_attn.{part}_proj" for part in ("q", "k", "v", "out")]
                linear(f"{ours}/attention/linear_0", cross[0])
                linear(f"{ours}/attention/linear_1", cross[1], cross[2])
                linear(f"{ours}/attention/linear_2", cross[3])
                layer_norm(f"{ours}/attention/layer_norm", f"{theirs}.encoder_attn_layer_norm")
            layer_norm(f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm")
            linear(f"{ours}/ffn/linear_0", f"{theirs}.fc1")
            linear(f"{ours}/ffn/linear_1", f"{theirs}.fc2")
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            found[f"encoder/{name}/{kind}"] = state[f"encoder.{name}.{kind}"].numpy()
    put("decoder/embeddings/weight", state["decoder.embed_tokens.weight"])
    return found
