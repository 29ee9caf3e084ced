"""Files of weights, of every kind, to a `Whisper` and back."""

from .load import _download as _download
from .load import available_models as available_models
from .load import load_model as load_model
from .published import _ALIGNMENT_HEADS as _ALIGNMENT_HEADS
from .published import _MODELS as _MODELS
from .save import save_checkpoint as save_checkpoint
