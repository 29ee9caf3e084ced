"""Token selection: suppresses what may not come next, and finds the likeliest tokens that are left.

The twin of the kernels' `token_selection.h`, on tensors of any device. Which tokens are suppressed
is decided elsewhere: see `sampling.token_rules`. Nothing is sampled here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..interface import Ints, TokenMask


def apply_rules(logits: Tensor, rules: TokenMask) -> None:
    """Mask the forbidden tokens in float32 `logits`, ``(n_rows, n_vocab)``, in place."""
    for i, ids in enumerate(rules.suppressed):
        _forbid(logits, rules.suppressed_by == i, ids)
    for text_from in np.unique(rules.text_from):  # rarely more than two distinct values
        if text_from:
            _forbid(logits, rules.text_from == text_from, slice(0, int(text_from)))
    begin, n_vocab = rules.timestamp_begin, logits.shape[1]
    timestamps = logits[:, begin:]
    if (rules.timestamps_from > begin).any() or (rules.timestamps_to < n_vocab).any():
        # steps: (n_timestamps,)
        steps = torch.arange(begin, n_vocab, dtype=torch.int32, device=logits.device)
        limits = torch.from_numpy(np.stack([rules.timestamps_from, rules.timestamps_to])).to(logits.device)
        timestamps.masked_fill_((steps < limits[0, :, None]) | (steps >= limits[1, :, None]), -torch.inf)
    if rules.timestamp_mass.any():
        text = logits[:, :begin]
        forbidden = timestamps.logsumexp(dim=-1) > text.amax(dim=-1)  # (n_rows,)
        forbidden &= torch.from_numpy(rules.timestamp_mass).to(logits.device)
        if logits.device.type != "cpu" or forbidden.any():  # on a GPU, any() would synchronise
            text.masked_fill_(forbidden[:, None], -torch.inf)


def _forbid(logits: Tensor, which: npt.NDArray[np.bool_], columns: Ints | slice) -> None:
    """Mask columns in the rows that `which` selects."""
    if isinstance(columns, slice):
        if which.all():
            logits[:, columns] = -torch.inf
        else:
            logits[torch.from_numpy(which.nonzero()[0]).to(logits.device), columns] = -torch.inf
        return
    index = torch.tensor(columns, dtype=torch.long, device=logits.device)
    if which.all():
        logits.index_fill_(1, index, -torch.inf)
    else:
        logits[torch.from_numpy(which.nonzero()[0]).to(logits.device)[:, None], index] = -torch.inf


def best_tokens(logits: Tensor, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Select the most probable tokens of each row of `logits`, ``(n_rows, n_vocab)``.

    Returns
    -------
    ids, logprobs
        ``(n_rows, n_best)`` each, most probable first, ties by id. The log-probabilities are
        normalised over the whole row.
    """
    logits = logits.float()
    logprobs = logits.log_softmax(dim=-1)
    # max takes the first of equal ones
    ids = logits.max(dim=-1, keepdim=True)[1] if n_best == 1 else _top_ids(logits, n_best)
    chosen = logprobs.gather(1, ids)
    return ids.cpu().numpy().astype(np.int32), chosen.cpu().numpy()


def _top_ids(logits: Tensor, n_best: int) -> Tensor:
    """Return the ids of `torch.topk`, but with ties in the order of ids."""
    n_more = min(n_best + 1, logits.shape[1])
    values, ids = logits.topk(n_more, dim=-1)  # (n_rows, n_more)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order)
    if n_more > n_best:
        # topk may have left out lower ids
        tied = (values[:, n_best - 1] == values[:, n_best]).nonzero()[:, 0]
        if len(tied):
            ids[tied] = logits[tied].sort(dim=-1, descending=True, stable=True)[1][:, :n_more]
    return ids[:, :n_best]
