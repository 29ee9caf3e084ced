#!/usr/bin/env python3
"""Do Whisper's own encoder states tell voices apart? CAM++'s vectors, states of each layer, and both together.

    python benchmarks/voice_vectors.py --data .../shared/data/train --model base

The states cost nothing, as a transcription computes them. Of each speaker some clips are cut to `--seconds`; a vector
of states is their mean over these. Means say more of the words and the room than of the voice, so they are projected by
linear discriminant analysis, fitted on a third of the speakers; another third is judged: the equal error rate, at which
as many pairs of one voice are missed as pairs of two are taken for one, within one kind of recording. "CAM++ and" adds
the similarities, the states' with the weight that is best on the rest. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whisper
from whisper.manifests.read import read_manifest
from whisper.speakers.clustering import normalized
from whisper.speakers.networks import choice
from whisper.speakers.networks.voice_encoder import pieces_of

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("speechocean762", "commonvoice_en")
RATE, PER_SPEAKER, DIMENSIONS = 16_000, 4, 64
WEIGHTS = np.linspace(0, 2, 21)


def clips(data: Path, n_speakers: int, seconds: float, seed: int) -> list[tuple[str, str, Any]]:
    """Return kind, speaker and samples of some clips of speakers who have several."""
    by_speaker: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for entry in read_manifest(data / "manifest.tsv").recordings:
        if entry.group in KINDS and entry.speaker and (entry.seconds or 0) >= seconds + 0.5:
            by_speaker[entry.group, entry.speaker].append(data / entry.path)
    drawn = random.Random(seed)
    found = []
    for kind in KINDS:
        several = sorted(key for key, paths in by_speaker.items() if key[0] == kind and len(paths) > 1)
        for key in drawn.sample(several, min(n_speakers, len(several))):
            for path in sorted(by_speaker[key])[:PER_SPEAKER]:
                samples = whisper.load_audio(str(path))
                start = (len(samples) - round(seconds * RATE)) // 2
                found.append((*key, samples[start : start + round(seconds * RATE)]))
    return found


def states(model: Any, samples: Any) -> list[Any]:
    """Return the mean of each layer's states over the sound, the input of the first layer first."""
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples), model.dims.n_mels)
    encoder, n = model.encoder, len(samples) // 320
    with torch.inference_mode():
        x = torch.nn.functional.gelu(encoder.conv1(mel[None].to(torch.float32)))
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1) + encoder.positional_embedding
        found = [x[0, :n].mean(0).numpy()]
        for block in encoder.blocks:
            x = block(x)
            found.append(x[0, :n].mean(0).numpy())
    return found


def discriminants(vectors: Any, labels: Any) -> tuple[Any, Any]:
    """Return the mean, and the directions in which speakers differ most beside their own clips, ``(d, DIMENSIONS)``."""
    middle = vectors.mean(0)
    means = np.array([vectors[labels == k].mean(0) for k in np.unique(labels)])
    rest = vectors - means[np.searchsorted(np.unique(labels), labels)]
    within = rest.T @ rest / len(rest)
    within += np.eye(len(within)) * 0.1 * np.trace(within) / len(within)
    values, basis = np.linalg.eigh(within)
    white = basis / np.sqrt(values)
    _, _, directions = np.linalg.svd((means - middle) @ white, full_matrices=False)
    return middle, white @ directions[:DIMENSIONS].T


def similarity(vectors: Any) -> Any:
    """Return the cosines of all pairs."""
    unit = normalized(vectors)
    return unit @ unit.T


def equal_error(alike: Any, same: Any, compared: Any) -> float:
    """Return the equal error rate in percent, of the pairs that are compared."""
    pairs = np.triu(compared, 1)
    ones, others = np.sort(alike[pairs & same]), np.sort(alike[pairs & ~same])
    missed = np.searchsorted(ones, others) / len(ones)
    passed = 1 - np.arange(len(others)) / len(others)
    at = int(np.argmin(np.abs(missed - passed)))
    return float(100 * (missed[at] + passed[at]) / 2)


def main() -> None:
    """Compute vectors, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "train")
    parser.add_argument("--model", default="base")
    parser.add_argument("--speakers", type=int, default=130, help="of each kind of recording, at most")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    model, network = whisper.load_model(given.model, device="cpu"), choice.voices()
    heard = clips(given.data, given.speakers, given.seconds, given.seed)
    voices = np.array([network.embed(pieces_of(network.mel(samples))).mean(0) for *_, samples in heard])
    layers = np.array([states(model, samples) for *_, samples in heard]).transpose(1, 0, 2)
    kinds, names = np.array([kind for kind, *_ in heard]), np.array([kind + name for kind, name, _ in heard])
    labels = np.unique(names, return_inverse=True)[1]
    same, compared = labels[:, None] == labels, kinds[:, None] == kinds
    fitted, *others = (labels % 3 == part for part in range(3))
    tuned, judged = (compared & part & part[:, None] for part in others)
    own = similarity(voices)
    figures = {"CAM++": equal_error(own, same, judged)}
    for i, vectors in enumerate(layers):
        middle, directions = discriminants(vectors[fitted], labels[fitted])
        of_states = similarity((vectors - middle) @ directions)
        weight = min(WEIGHTS, key=lambda w, alike=of_states: equal_error(own + w * alike, same, tuned))
        figures[f"layer {i}"] = equal_error(of_states, same, judged)
        figures[f"CAM++ and layer {i}"] = equal_error(own + weight * of_states, same, judged)
    print(f"{len(heard)} clips of {labels.max() + 1} speakers, {given.seconds:g} s each; equal errors, %")
    for name, error in figures.items():
        print(f"{name:20} {error:5.1f}")
    print(json.dumps({"clips": len(heard), "speakers": int(labels.max()) + 1, "equal_error": figures}))


if __name__ == "__main__":
    main()
