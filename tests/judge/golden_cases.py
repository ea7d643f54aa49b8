"""What a golden model is: the words in which make_goldens.py and golden_families.py describe theirs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Callable

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Prompt:
    """A random prompt of `tokens` tokens with its subject at [b, e)."""

    tokens: int
    subject: tuple[int, int]


FIRST = Prompt(6, (0, 2))
MIDDLE = Prompt(7, (2, 5))
LAST = Prompt(6, (4, 6))
ONE = Prompt(5, (1, 2))
ONLY = Prompt(1, (0, 1))
WHOLE = Prompt(4, (0, 4))


@dataclass(frozen=True)
class Spec:
    """One trace of a case; `noise` is sigma in standard deviations of the embeddings, rounded to three decimals."""

    kind: str
    prompt: Prompt
    window: int = 10
    samples: int = 10
    seed: int = 1
    distribution: str = "gaussian"
    noise: float = 3
    replace: bool = False
    target: bool = False
    """Follow the third most probable token of the clean run instead of the first."""


NULL = object()
"""In a config: a field that is there with null for its value."""


@dataclass(frozen=True)
class Case:
    """One model folder. `config` holds what differs from the base; a field set to None there is left out."""

    name: str
    about: str
    config: dict[str, Any] = field(default_factory=dict)
    family: str = "gpt2"
    """Whose base the config is laid over."""
    stored: torch.dtype = torch.float32
    layout: Callable[[Tensors], Tensors] = lambda tensors: tensors
    shards: int = 1
    gain: float = 1
    """Factor on the weights that write into the residual stream."""
    embedding_std: float = 0.5
    prompts: tuple[Prompt, ...] = (Prompt(5, (1, 3)),)
    traces: tuple[Spec, ...] = ()
    counts: tuple[dict[str, Any], ...] = ()
    """Changes of the config that must change the logits: what the case is about is seen in its numbers."""


def config_json(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the base with the changes: NULL is null there, None leaves a field out.

    Nothing in it is shared with the case: transformers writes into the rope_scaling that it is given.
    """
    config = {name: value for name, value in (base | changes).items() if value is not None or name not in changes}
    return {name: None if value is NULL else deepcopy(value) for name, value in config.items()}
