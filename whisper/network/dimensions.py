"""The ten numbers that shape a Whisper, and the shapes of its tensors that follow from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ModelDimensions:
    """The ten numbers that shape a Whisper; stored as ``dims`` in a checkpoint."""

    n_mels: int  # mel bands of the input: 80, or 128 since large-v3
    n_audio_ctx: int  # encoder positions of a 30 s window: 1500
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int  # 51864 English only, 51865 with 99 languages, 51866 with 100
    n_text_ctx: int  # decoder positions: 448
    n_text_state: int
    n_text_head: int
    n_text_layer: int


def is_multilingual(dims: ModelDimensions) -> bool:
    """Whether the vocabulary has language tokens."""
    return dims.n_vocab >= 51865


def n_languages(dims: ModelDimensions) -> int:
    """Return how many language tokens the vocabulary has: 99, or 100 since large-v3."""
    return dims.n_vocab - 51765 - int(is_multilingual(dims))


ModelDimensions.__module__ = "whisper.model"  # where openai-whisper has it, and so what pickles name


def expected_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a state dict of these dimensions, 100 times as fast as from the network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, n_in: int, n_out: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (n_out, n_in)
        if bias:
            shapes[f"{name}.bias"] = (n_out,)

    def norm(name: str, n_state: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (n_state,)

    def blocks(part: str, n_layer: int, n_state: int, attentions: tuple[str, ...]) -> None:
        for block in (f"{part}.blocks.{i}" for i in range(n_layer)):
            for name in attentions:
                for projection in ("query", "key", "value", "out"):
                    linear(f"{block}.{name}.{projection}", n_state, n_state, bias=projection != "key")
                norm(f"{block}.{name}_ln", n_state)
            linear(f"{block}.mlp.0", n_state, n_state * 4)
            linear(f"{block}.mlp.2", n_state * 4, n_state)
            norm(f"{block}.mlp_ln", n_state)

    n_audio, n_text = dims.n_audio_state, dims.n_text_state
    for name, n_in in (("conv1", dims.n_mels), ("conv2", n_audio)):
        shapes[f"encoder.{name}.weight"], shapes[f"encoder.{name}.bias"] = (n_audio, n_in, 3), (n_audio,)
    shapes["encoder.positional_embedding"] = (dims.n_audio_ctx, n_audio)
    blocks("encoder", dims.n_audio_layer, n_audio, ("attn",))
    norm("encoder.ln_post", n_audio)
    shapes["decoder.token_embedding.weight"] = (dims.n_vocab, n_text)
    shapes["decoder.positional_embedding"] = (dims.n_text_ctx, n_text)
    blocks("decoder", dims.n_text_layer, n_text, ("attn", "cross_attn"))
    norm("decoder.ln", n_text)
    return shapes
