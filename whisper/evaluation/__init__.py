"""How good a model is: error rates, paired comparisons, reports."""

from .run import choose as choose
from .run import compare as compare
from .run import evaluate as evaluate
