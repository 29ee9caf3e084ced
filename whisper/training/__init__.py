"""Training and fine-tuning."""

from .fit import fit as fit
from .options import FitOptions as FitOptions
