"""Submodules that are made when somebody reaches for them.

The fast path needs no modules, and whoever has packed weights should not hold them in float32 a second time. So a
model that was loaded begins without parts: in the place of its ``_modules`` lies a dictionary that knows their names,
and makes them all the first time that anybody looks inside (``model.encoder``, ``parameters()``, ``state_dict()``,
``to("cuda")``, ``deepcopy``, a hook, ...). Every way into a module leads through that dictionary, so this is the only
place; from then on the model is like any other. This file knows neither Whisper nor files.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .device import processes

Children = dict[str, nn.Module]


class DeferredModules(dict[str, Any]):
    """The ``_modules`` of a module whose children do not exist yet.

    Parameters
    ----------
    owner
        The module; put the dictionary into it with `install`.
    names
        What its children will be called, in their order.
    make
        Makes them. Where it raises, the next who looks tries again.
    device
        Where they will be.
    source
        What they will be made from, for those who want that instead; see `packed`.
    """

    def __init__(
        self,
        owner: nn.Module,
        names: tuple[str, ...],
        make: Callable[[], Children],
        device: torch.device,
        source: object,
    ) -> None:
        super().__init__()
        self._owner = weakref.ref(owner)  # no circle: a model that is dropped goes at once
        self._names = names
        self._make: Callable[[], Children] | None = make
        self._mark: Callable[[Children], Any] | None = None
        self._made: Children = {}
        self._lock = processes.rlock()
        self.mark: Any = None
        self.device = device
        self.source: object | None = source

    def install(self) -> None:
        """Become the owner's ``_modules``."""
        owner = self._owner()
        assert owner is not None
        owner.__dict__["_modules"] = self

    def packed(self, mark: Callable[[Children], Any]) -> object | None:
        """Return the source, for somebody who packs it; None where the children exist.

        Once they do, `mark` of them stands in the attribute of that name: taken before anybody could change them, it
        tells by what they can be known as those that were packed.
        """
        with self._lock:
            if self.source is not None:
                self._mark = mark
            return self.source

    def made(self) -> Children:
        """Return the children, after making them and putting them into the owner where that was not done."""
        with self._lock:
            if self._make is not None:
                made = self._make()
                if self._mark is not None:
                    self.mark = self._mark(made)
                owner = self._owner()
                for module in made.values():
                    module.train(owner is None or owner.training)
                self._made, self._make, self._mark, self.source = made, None, None, None
                if owner is not None and owner.__dict__.get("_modules") is self:
                    owner.__dict__["_modules"] = made
            return self._made

    # -- what a dictionary can be asked; only names are answered without making anything -------------------

    def __contains__(self, name: object) -> bool:
        return name in (self._names if self._make is not None else self._made)

    def __len__(self) -> int:
        return len(self._names if self._make is not None else self._made)

    def __getitem__(self, name: str) -> Any:
        return self.made()[name]

    def __setitem__(self, name: str, module: Any) -> None:
        self.made()[name] = module

    def __delitem__(self, name: str) -> None:
        del self.made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.made())

    def __eq__(self, other: object) -> bool:
        return self.made() == other

    def __ne__(self, other: object) -> bool:
        return self.made() != other

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return self.made() | other

    def __repr__(self) -> str:
        return repr(self.made())

    def __copy__(self) -> Children:
        return self.made().copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Children:
        return copy.deepcopy(self.made(), memo)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return dict, (self.made(),)

    def copy(self) -> Children:
        return self.made().copy()

    def get(self, name: str, default: Any = None) -> Any:
        return self.made().get(name, default)

    def keys(self) -> Any:
        return self.made().keys()

    def values(self) -> Any:
        return self.made().values()

    def items(self) -> Any:
        return self.made().items()

    def pop(self, name: str, *default: Any) -> Any:
        return self.made().pop(name, *default)

    def popitem(self) -> Any:
        return self.made().popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        return self.made().setdefault(name, default)

    def update(self, *others: Any, **named: Any) -> None:
        self.made().update(*others, **named)

    def clear(self) -> None:
        self.made().clear()


def deferred(module: nn.Module) -> DeferredModules | None:
    """Return the dictionary that will make the children of `module`; None where they exist."""
    modules = module.__dict__["_modules"]
    return modules if isinstance(modules, DeferredModules) and modules.source is not None else None
