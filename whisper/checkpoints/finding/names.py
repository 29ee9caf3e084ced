"""The published models: their sizes, and what files, folders and repositories with them are called.

Repositories are those that the named programs download from by default (openai-whisper, transformers, faster-whisper,
mlx-whisper, whisper.cpp). Knows no folder of this machine, and opens nothing.
"""

from __future__ import annotations

import math

from ...network.dimensions import ModelDimensions, expected_shapes
from ..published import _MODELS

ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}

# width, heads, layers of the encoder, layers of the decoder
_SIZES = {
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large-v1": (1280, 20, 32, 32),
    "large-v2": (1280, 20, 32, 32),
    "large-v3": (1280, 20, 32, 32),
    "large-v3-turbo": (1280, 20, 32, 4),
    "distil-small": (768, 12, 12, 4),
    "distil-medium": (1024, 16, 24, 2),
    "distil-large-v2": (1280, 20, 32, 2),
    "distil-large-v3": (1280, 20, 32, 2),
    "distil-large-v3.5": (1280, 20, 32, 2),
}

# Where several models can be had, which to advise: by the word errors that their authors publish, the best first.
BEST_FIRST = (
    "large-v3", "large-v2", "large-v3-turbo", "large-v1", "distil-large-v3.5", "distil-large-v3", "distil-large-v2",
    "medium", "medium.en", "distil-medium.en", "small", "small.en", "distil-small.en", "base", "base.en",
    "tiny", "tiny.en",
)  # fmt: skip

DISTILLED = {  # names that openai-whisper does not know, and where they come from
    name: f"distil-whisper/{name}" for name in BEST_FIRST if name.startswith("distil-")
}

QUANTIZED_GGML = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def canonical(name: str) -> str:
    """Return the one name of a model that has two."""
    return ALIASES.get(name, name)


def known() -> list[str]:
    """Return the canonical names, openai-whisper's in its order, then the distilled ones."""
    return [*dict.fromkeys(map(canonical, _MODELS)), *DISTILLED]


def is_english_only(name: str) -> bool:
    """Whether a model knows English alone."""
    return name.endswith(".en")


def n_languages(name: str) -> int:
    """Return how many languages a model was trained on; the distilled ones heard English alone."""
    if is_english_only(name) or name in DISTILLED:
        return 1
    return 100 if canonical(name).startswith("large-v3") else 99


def dimensions(name: str) -> ModelDimensions:
    """Return the dimensions of a model by its name."""
    name = canonical(name)
    state, head, audio_layers, text_layers = _SIZES[name.removesuffix(".en")]
    third = "large-v3" in name
    n_vocab = 51864 if is_english_only(name) else 51866 if third else 51865
    return ModelDimensions(
        128 if third else 80, 1500, state, head, audio_layers, n_vocab, 448, state, head, text_layers
    )


def n_parameters(name: str) -> int:
    """Return how many numbers the checkpoint holds."""
    return sum(math.prod(shape) for shape in expected_shapes(dimensions(name)).values())


def repositories(name: str) -> list[tuple[str, str]]:
    """Return where the hub has exact copies, the most used first: repository, and the file in it or nothing."""
    name = canonical(name)
    if name in DISTILLED:
        size = name.removeprefix("distil-")
        return [
            (DISTILLED[name], ""),
            (f"{DISTILLED[name]}-ct2", ""),
            (f"Systran/faster-distil-whisper-{size}", ""),
            (f"mlx-community/distil-whisper-{size}", ""),
        ]
    found = [(f"openai/whisper-{'large' if name == 'large-v1' else name}", "")]
    if name == "large-v3-turbo":
        found += [
            ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", ""),
            ("deepdml/faster-whisper-large-v3-turbo-ct2", ""),
            ("dropbox-dash/faster-whisper-large-v3-turbo", ""),
            ("mlx-community/whisper-large-v3-turbo", ""),
        ]
    else:
        found += [(f"{owner}/faster-whisper-{name}", "") for owner in ("Systran", "guillaumekln")]
        found += [(f"mlx-community/whisper-{name}-mlx{ending}", "") for ending in ("", "-fp32")]
    return [*found, ("ggerganov/whisper.cpp", f"ggml-{name}.bin")]


def quantized_repositories(name: str) -> list[tuple[str, str]]:
    """Return where the hub has quantised copies, as `repositories` does."""
    name = canonical(name)
    if name in DISTILLED:
        return []
    stem = f"mlx-community/whisper-{name}" + ("" if name == "large-v3-turbo" else "-mlx")
    mlx = [(f"{stem}-{ending}", "") for ending in ("8bit", "q4", "4bit")]
    return [*mlx, *(("ggerganov/whisper.cpp", f"ggml-{name}-{kind}.bin") for kind in QUANTIZED_GGML)]


def file_names(name: str) -> list[str]:
    """Return what a file or folder with the model is called where it lies among others, exact copies first."""
    name = canonical(name)
    names = [f"{name}.pt", name]
    names += [f"{prefix}{name}" for prefix in ("whisper-", "faster-whisper-")]
    names += [f"whisper-{name}-mlx", f"faster-{name}", f"ggml-{name}.bin"]
    names += [f"{name}{ending}" for ending in ("-ct2", "-int8")] + [f"faster-whisper-{name}-int8"]
    return [*names, *(f"ggml-{name}-{kind}.bin" for kind in QUANTIZED_GGML)]
