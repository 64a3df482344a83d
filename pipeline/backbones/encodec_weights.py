"""The EnCodec that a config asks for: transformers' or the encodec package's."""

from typing import Any

from stillwave.pipeline.backbones.encodec_models import (
    MODELS,
    SIZES,
    Codec,
    draw_codebooks,
    fold_weight_norm,
    num_codebooks,
)
from stillwave.pipeline.backbones.encodec_package import from_package
from stillwave.pipeline.backbones.weights import load_pretrained, random_weights
from stillwave.pipeline.config.backbone import EncodecConfig


def load_codec(config: EncodecConfig) -> Codec:
    """The model of `config`, weight norm folded, with the codebooks of `bandwidth`; ValueError if none."""
    load = {"transformers": _from_transformers, "encodec": from_package}[config.implementation]
    codec = load(config)
    fold_weight_norm(codec.encoder)
    # Both encode with all the codebooks that they have unless told otherwise.
    codec.quantizer.layers = codec.quantizer.layers[: num_codebooks(config.model, config.bandwidth)]
    return codec


def _from_transformers(config: EncodecConfig) -> Codec:
    import transformers

    expected = MODELS[config.model]
    if config.weights == "random":
        architecture = transformers.EncodecConfig(**expected, **SIZES[config.size])

        def build() -> Any:
            drawn = transformers.EncodecModel(architecture)
            draw_codebooks(drawn.quantizer, config.model)
            return drawn

        model = random_weights(config.seed, build)
    else:
        if config.weights == "published":
            config = config.model_copy(update={"weights": f"facebook/encodec_{config.model}"})
        unused = ("decoder.",)
        model, _ = load_pretrained(config, transformers.EncodecModel, "encodec", unused, attention="eager")
        for field, value in expected.items():
            found = getattr(model.config, field)
            if (list(found) if isinstance(found, tuple) else found) != value:
                raise ValueError(
                    f"`weights` {config.weights}: its config.json says {field} {found!r}, but EnCodec "
                    f"{config.model} has {value!r}: is `model` the one of these weights?"
                )
    return Codec(model.encoder, model.quantizer, model.config.hidden_size)
