"""A plain editor of facts over Hugging Face transformers: the judge of what `rometrace edit` computes.

ROME (arXiv 2202.05262, section 3), r-ROME (2403.07175) and MEMIT (2210.07229) for every family of decoders in MATRICES.
It shares no code with rometrace: of the judge of tracing it takes how a model, a tokeniser and a float64 run are had.
Every step of the optimisation runs the whole model on all rows, forwards and backwards.

Letters: R rows (the templates), n facts, D width, F inputs of the MLP's last matrix W, K tokens of the object.

A key k [F] is what W takes at a token, a value v [D] is what W gives there, its bias included. W is [D, F] everywhere
here, also in GPT-2, which stores it as [F, D].
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import tokenizers
import torch
from transformers import PreTrainedModel

from reference_tracer import config_of, layout_of, load_tokenizer, precision_of, prefix_ids, room_of

MATRICES = {
    "gpt2": "mlp.c_proj",
    "gptj": "mlp.fc_out",
    "gpt_neo": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
    **{family: "mlp.down_proj" for family in ("llama", "mistral", "qwen2", "qwen3")},
    **{family: "mlp.down_proj" for family in ("gemma", "gemma2", "gemma3", "gemma3_text")},
    **{family: "mlp.down_proj" for family in ("phi3", "olmo", "olmo2", "olmo3", "stablelm", "smollm3", "granite")},
    **{family: "mlp.down_proj" for family in ("cohere", "cohere2", "glm4", "nemotron")},
    **{family: "mlp.c_proj" for family in ("gpt_bigcode", "starcoder2")},
    **{family: "mlp.dense_4h_to_h" for family in ("bloom", "falcon")},
    "mpt": "ffn.down_proj",
    "phi": "mlp.fc2",
}
"""Where a block has the last matrix of its MLP. In Gemma 2 and 3, OLMo 2 and 3 and GLM-4 a norm follows it."""

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class EditOptions:
    """How delta is found; the defaults are those of ROME for GPT-2 XL."""

    steps: int = 20
    """Evaluations at most: one more than steps of Adam."""
    learning_rate: float = 0.5
    decay: float = 0.5
    """Factor on |delta| / |v0|^2."""
    clamp: float = 4
    """|delta| at most, in |v0|."""
    kl: float = 0.0625
    enough: float = 0.05
    """A loss below which no further step is taken."""


@dataclass(frozen=True)
class Row:
    """One text: its ids (special tokens included, the object not) and the position of the fact's token."""

    ids: tuple[int, ...]
    lookup: int


@dataclass(frozen=True)
class Fact:
    """One fact to be edited, in token ids."""

    rows: tuple[Row, ...]
    """A row of each template; the first is the bare prompt."""
    weights: tuple[float, ...]
    """[R]: of each row in the mean of the keys."""
    subject: Row
    """The subject alone, for the KL divergence."""
    target_ids: tuple[int, ...]
    """The new object."""


@dataclass(frozen=True)
class Evaluation:
    """The loss at one delta."""

    nll: float
    kl: float
    decay: float
    total: float
    delta_norm: float


@dataclass(frozen=True)
class Optimum:
    """What the optimisation gave."""

    start: torch.Tensor
    """v0 or z0 [D], at the bare prompt."""
    delta: torch.Tensor
    """[D]"""
    first_gradient: torch.Tensor
    """[D]: of the loss by delta, at delta = 0."""
    evaluations: list[Evaluation]


@dataclass(frozen=True)
class RomeEdit:
    """One fact in one matrix; tensors are float64."""

    layer: int
    lookups: list[int]
    """Of each row, then of the subject alone."""
    key_mean: torch.Tensor
    """kbar [F]"""
    bare_key: torch.Tensor
    """[F]: of the bare prompt."""
    key: torch.Tensor
    """k1 [F]: ROME's is the bare one, r-ROME's the mean."""
    u: torch.Tensor
    """[F], of length 1."""
    value: torch.Tensor
    """v1 [D]: what W gives for k1 before the edit; r-ROME: the mean."""
    optimum: Optimum
    right_vector: torch.Tensor
    """r [D]"""
    divisor: float
    """k1 . u"""
    key_ratio: float
    """The bare prompt's key . u over kbar . u: small where ROME's r explodes."""
    change: torch.Tensor
    """r u^T [D, F]"""
    change_norm: float
    original_norm: float

    @property
    def changes(self) -> list[tuple[int, torch.Tensor]]:
        """As `edited` takes them."""
        return [(self.layer, self.change)]


@dataclass(frozen=True)
class LayerChange:
    """What MEMIT did to one layer; n facts."""

    layer: int
    keys: torch.Tensor
    """[n, F], on the model edited so far."""
    residuals: torch.Tensor
    """[n, D]: this layer's share of what is still missing."""
    adjusted_keys: torch.Tensor
    """[n, F]: the columns of (lambda C + K K^T)^-1 K."""
    missing_norms: list[float]
    """[n]: |z - z now| before this layer's change."""
    change: torch.Tensor
    """[D, F]"""
    change_norm: float
    original_norm: float


@dataclass(frozen=True)
class MemitEdit:
    """Many facts in several layers."""

    optima: list[Optimum]
    targets: torch.Tensor
    """z = z0 + delta [n, D]."""
    layers: list[LayerChange]

    @property
    def changes(self) -> list[tuple[int, torch.Tensor]]:
        """As `edited` takes them."""
        return [(one.layer, one.change) for one in self.layers]


# --- Texts into ids ---------------------------------------------------------------------------------------------


class Texts:
    """How a model's folder turns texts into ids."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._prefix = prefix_ids(folder, self._tokenizer)
        self._with_specials = self._tokenizer
        if isinstance(self._tokenizer, tokenizers.ByteLevelBPETokenizer):
            self._with_specials = load_tokenizer(folder)
            if self._with_specials.token_to_id(END_OF_TEXT) is not None:
                self._with_specials.add_special_tokens([END_OF_TEXT])

    def ids(self, text: str) -> tuple[int, ...]:
        """Of a text, after the token of its beginning where the model has one."""
        return (*self._prefix, *self._tokenizer.encode(text, add_special_tokens=False).ids)

    def line_ids(self, text: str) -> tuple[int, ...]:
        """Likewise, with GPT-2's end of text read as the token that it spells, as the authors' tokeniser does."""
        return (*self._prefix, *self._with_specials.encode(text, add_special_tokens=False).ids)

    def continuation(self, text: str, more: str) -> tuple[int, ...]:
        """The ids that continue those of `text` when `more` follows it, after one space unless it starts with one."""
        before, whole = self.ids(text), self.ids(text + (more if more.startswith(" ") else " " + more))
        if whole[: len(before)] != before or len(whole) == len(before):
            raise ValueError(f"{more!r} does not continue the tokens of {text!r}")
        return whole[len(before) :]

    def row(self, template: str, prompt: str, subject: str) -> Row:
        """The row of a prompt (with {} for its subject) in a template (with {} for the prompt)."""
        before, after = halves(template)
        first, last = halves(prompt)
        return Row(self.ids(before + first + subject + last + after), len(self.ids(before + first + subject)) - 1)

    def fact(self, prompt: str, subject: str, target: str, templates: Sequence[str] = ("{}",)) -> Fact:
        """ROME's fact: every template weighs the same."""
        return self.memit_fact(prompt, subject, target, [list(templates)])

    def memit_fact(self, prompt: str, subject: str, target: str, kinds: Sequence[Sequence[str]]) -> Fact:
        """MEMIT's fact: the kinds of templates weigh the same, and so do the templates of one kind."""
        templates = [template for kind in kinds for template in kind]
        if not templates or templates[0] != "{}":
            raise ValueError(f'templates are {templates}, expected "{{}}" for the first')
        if not subject or not target.strip():
            raise ValueError(f"subject {subject!r} or object {target!r} is empty")
        first, last = halves(prompt)
        return Fact(
            rows=tuple(self.row(template, prompt, subject) for template in templates),
            weights=tuple(1 / len(kinds) / len(kind) for kind in kinds for _ in kind),
            subject=self.row("{}", "{}", subject),
            target_ids=self.continuation(first + subject + last, target),
        )


def halves(template: str) -> tuple[str, str]:
    """What is before and after the one {} of a template."""
    parts = template.split("{}")
    if len(parts) != 2:
        raise ValueError(f'template is {template!r}, expected one "{{}}" in it')
    return parts[0], parts[1]


# --- The model --------------------------------------------------------------------------------------------------

Install = Callable[[], Any]
"""Puts one hook in place and gives its handle."""


def block_of(model: PreTrainedModel, layer: int) -> torch.nn.Module:
    """One layer of the decoder."""
    return model.get_submodule(layout_of(model).blocks)[layer]


def matrix_of(model: PreTrainedModel, layer: int) -> torch.nn.Module:
    """The module that holds W."""
    return block_of(model, layer).get_submodule(MATRICES[model.config.model_type])


def weight_of(model: PreTrainedModel, layer: int) -> torch.Tensor:
    """W as [D, F]: a view into the model. GPT-2's Conv1D has it the other way round, a square one too."""
    module = matrix_of(model, layer)
    return module.weight.detach() if isinstance(module, torch.nn.Linear) else module.weight.detach().T


def output_scale_of(model: PreTrainedModel) -> float:
    """What W's output is multiplied by on its way into the stream: Granite's."""
    name = layout_of(model).scale
    return getattr(config_of(model), name) if name else 1.0


@contextmanager
def edited(model: PreTrainedModel, changes: Sequence[tuple[int, torch.Tensor]]) -> Iterator[None]:
    """The model with changes [D, F] of layers added to its weights; afterwards they are exactly the old ones."""
    originals = [(layer, weight_of(model, layer).clone()) for layer, _ in changes]
    try:
        for layer, change in changes:
            add_change(model, layer, change)
        yield
    finally:
        for layer, original in reversed(originals):
            weight_of(model, layer).copy_(original)


def add_change(model: PreTrainedModel, layer: int, change: torch.Tensor) -> None:
    """Adds a change [D, F], rounded to the model's dtype."""
    weight_of(model, layer).add_(change.to(model.dtype))


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids [R, T] with zeros behind the shorter rows: what is behind a token has no influence on it."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def run(model: PreTrainedModel, rows: Sequence[Sequence[int]], hooks: Sequence[Install] = ()) -> torch.Tensor:
    """Logits [R, T, V] with the hooks in place."""
    longest, room = max(len(row) for row in rows), room_of(model)
    if longest > room:
        raise ValueError(f"a row has {longest} tokens, and the model has {room} positions")
    with precision_of(model), ExitStack() as installed:
        for install in hooks:
            installed.enter_context(install())
        return model(padded(rows), use_cache=False).logits


def on_keys(model: PreTrainedModel, layer: int, rows: int, see: Callable[[torch.Tensor], None]) -> Install:
    """Hook that shows W's inputs [R, T, F]; OPT's come without the first dimension."""

    def before(module: torch.nn.Module, inputs: Any) -> None:
        see(inputs[0].reshape(rows, -1, inputs[0].shape[-1]))

    return partial(matrix_of(model, layer).register_forward_pre_hook, before)


def on_output(
    model: PreTrainedModel, site: str, layer: int, rows: int, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> Install:
    """Hook that shows outputs [R, T, D] of W (site "mlp") or of the block ("block") and goes on with what it gives."""

    def after(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        changed = change(value.reshape(rows, -1, value.shape[-1]))
        if changed is None:
            return None
        changed = changed.reshape(value.shape)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    module = {"mlp": matrix_of, "block": block_of}[site](model, layer)
    return partial(module.register_forward_hook, after)


def at_lookups(values: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """[R, ..]: of values [R, T, ..], those at each row's fact token."""
    return values[torch.arange(len(rows)), torch.tensor([row.lookup for row in rows])]


@torch.no_grad()
def keys_and_values(
    model: PreTrainedModel, layer: int, rows: Sequence[Row], site: str = "mlp"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 keys [R, F] and outputs [R, D] of W or of the block at the facts' tokens."""
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> None:
        values.append(value.clone())  # Falcon adds to it in place

    hooks = [on_keys(model, layer, len(rows), keys.append), on_output(model, site, layer, len(rows), keep)]
    run(model, [row.ids for row in rows], hooks)
    return at_lookups(keys[0], rows).double(), at_lookups(values[0], rows).double()


def log_probabilities(logits: torch.Tensor, before: int, target_ids: Sequence[int]) -> torch.Tensor:
    """[K]: of each token of the object, of logits [T, V] of a row with `before` tokens before the object."""
    said = torch.log_softmax(logits[before - 1 : before - 1 + len(target_ids)], dim=-1)
    return said[torch.arange(len(target_ids)), torch.tensor(list(target_ids))]


@torch.no_grad()
def nll(model: PreTrainedModel, prompt_ids: Sequence[int], target_ids: Sequence[int]) -> float:
    """The mean over the object's tokens of -log p(token | what is before it)."""
    logits = run(model, [[*prompt_ids, *target_ids[:-1]]])[0].double()
    return -log_probabilities(logits, len(prompt_ids), target_ids).mean().item()


@dataclass(frozen=True)
class Answer:
    """What the model makes of an object behind a prompt, as its NLL by token, before and after an edit."""

    before: float
    after: float


def before_and_after(
    model: PreTrainedModel,
    changes: Sequence[tuple[int, torch.Tensor]],
    questions: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> list[Answer]:
    """Of each question: ids of a prompt and of an object."""
    before = [nll(model, *question) for question in questions]
    with edited(model, changes):
        after = [nll(model, *question) for question in questions]
    return [Answer(*pair) for pair in zip(before, after)]


# --- The second moment of the keys ------------------------------------------------------------------------------


@torch.no_grad()
def second_moments(
    model: PreTrainedModel, layers: Sequence[int], texts: Sequence[Sequence[int]], batch: int = 64
) -> tuple[dict[int, torch.Tensor], int]:
    """C = mean k k^T [F, F] of each layer, float64 and not centred, over all tokens of texts of ids; and their number.

    Each text is cut to the positions of the model. Texts of one length run together, so that nothing is padded.
    """
    room = room_of(model)
    by_length: dict[int, list[Sequence[int]]] = {}
    for text in texts:
        if text:
            by_length.setdefault(min(len(text), room), []).append(text[:room])
    sizes = {layer: weight_of(model, layer).shape[1] for layer in layers}
    sums = {layer: torch.zeros(size, size, dtype=torch.float64) for layer, size in sizes.items()}

    class Seen(Exception):
        """Ends a run behind the last of the layers."""

    def see(layer: int, keys: torch.Tensor) -> None:
        flat = keys.flatten(0, 1).double()
        sums[layer].addmm_(flat.T, flat)
        if layer == max(layers):
            raise Seen

    for same in by_length.values():
        for first in range(0, len(same), batch):
            rows = same[first : first + batch]
            hooks = [on_keys(model, layer, len(rows), partial(see, layer)) for layer in layers]
            with suppress(Seen):
                run(model, rows, hooks)
    tokens = sum(length * len(same) for length, same in by_length.items())
    return {layer: total / tokens for layer, total in sums.items()}, tokens


# --- The optimisation of delta ----------------------------------------------------------------------------------


def optimise(model: PreTrainedModel, site: str, layer: int, fact: Fact, options: EditOptions) -> Optimum:
    """The delta [D] that, added at the fact's token at one site of one layer, makes the model say the object.

    It is added in every row, that of the subject alone too; the loss is read from the final logits.
    """
    rows = [*fact.rows, fact.subject]
    spoken = fact.target_ids[:-1]
    ids = [[*row.ids, *spoken] for row in fact.rows] + [list(fact.subject.ids)]
    which, where = torch.arange(len(rows)), torch.tensor([row.lookup for row in rows])
    delta = torch.zeros(config_of(model).hidden_size, dtype=model.dtype, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=options.learning_rate)
    start = said_at_start = None

    def add(value: torch.Tensor) -> torch.Tensor:
        nonlocal start
        if start is None:
            start = value[0, rows[0].lookup].detach().clone()
        return value.index_put((which, where), delta.expand(len(rows), -1), accumulate=True)

    evaluations: list[Evaluation] = []
    first_gradient = None
    while True:
        logits = run(model, ids, [on_output(model, site, layer, len(rows), add)])
        said = [log_probabilities(logits[i], len(row.ids), fact.target_ids) for i, row in enumerate(fact.rows)]
        loss_of_object = -torch.stack([values.mean() for values in said]).mean()
        now = torch.log_softmax(logits[-1, fact.subject.lookup], dim=-1)
        if said_at_start is None:
            said_at_start = now.detach()
        divergence = options.kl * (now.exp() * (now - said_at_start)).sum()
        # torch gives the norm the gradient 0 at 0.
        decay = options.decay * torch.linalg.vector_norm(delta) / torch.linalg.vector_norm(start) ** 2
        loss = loss_of_object + divergence + decay
        norm = torch.linalg.vector_norm(delta).item()
        parts = (loss_of_object.item(), divergence.item(), decay.item(), loss.item())
        evaluations.append(Evaluation(*parts, delta_norm=norm))
        ends = loss.item() < options.enough or len(evaluations) >= options.steps
        if first_gradient is None or not ends:
            (delta.grad,) = torch.autograd.grad(loss, [delta])
            first_gradient = delta.grad.clone() if first_gradient is None else first_gradient
        if ends:
            break
        adam.step()
        with torch.no_grad():
            length, most = torch.linalg.vector_norm(delta), options.clamp * torch.linalg.vector_norm(start)
            if length > most:
                delta.mul_(most / length)
    return Optimum(start.double(), delta.detach().double(), first_gradient.double(), evaluations)


# --- ROME and r-ROME --------------------------------------------------------------------------------------------


def rome(
    model: PreTrainedModel,
    layer: int,
    fact: Fact,
    options: EditOptions = EditOptions(),
    moment: torch.Tensor | None = None,
    *,
    mean_key: bool = False,
) -> RomeEdit:
    """The change of one layer's W that ROME makes for one fact; the model stays as it is.

    `moment` is C [F, F]; without one, u is kbar's direction. With `mean_key` it is r-ROME: k1 and v1 are means over the
    rows instead of the bare prompt's.
    """
    keys, values = keys_and_values(model, layer, fact.rows)
    weights = torch.tensor(fact.weights, dtype=torch.float64)
    key_mean = weights @ keys
    whitened = key_mean if moment is None else solve(moment.double(), key_mean[:, None])[:, 0]
    u = whitened / whitened.norm()
    optimum = optimise(model, "mlp", layer, fact, options)
    key, value = (key_mean, weights @ values) if mean_key else (keys[0], values[0])
    divisor = key @ u
    right_vector = (optimum.start + optimum.delta - value) / divisor
    change = torch.outer(right_vector, u)
    return RomeEdit(
        layer=layer,
        lookups=[row.lookup for row in (*fact.rows, fact.subject)],
        key_mean=key_mean,
        bare_key=keys[0],
        key=key,
        u=u,
        value=value,
        optimum=optimum,
        right_vector=right_vector,
        divisor=divisor.item(),
        key_ratio=(keys[0] @ u / (key_mean @ u)).item(),
        change=change,
        change_norm=change.norm().item(),
        original_norm=weight_of(model, layer).double().norm().item(),
    )


def solve(symmetric: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The solution X of `symmetric` X = `right`, by Cholesky; refuses a matrix that is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(symmetric)
    if failed.item():
        raise ValueError("the second moment is singular: give it more tokens or a ridge")
    return torch.cholesky_solve(right, factor)


def with_ridge(moment: torch.Tensor, ridge: float) -> torch.Tensor:
    """C + ridge * (mean of its diagonal) * identity."""
    return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


# --- MEMIT ------------------------------------------------------------------------------------------------------


def memit(
    model: PreTrainedModel,
    layers: Sequence[int],
    facts: Sequence[Fact],
    moments: dict[int, torch.Tensor],
    weight: float,
    options: EditOptions = EditOptions(clamp=0.75),
) -> MemitEdit:
    """The changes that MEMIT makes in `layers` for all facts together; the model is as before afterwards.

    `moments` are C [F, F] of each layer of the original model, `weight` is lambda.
    """
    last = layers[-1]
    optima = [optimise(model, "block", last, fact, options) for fact in facts]
    targets = torch.stack([optimum.start + optimum.delta for optimum in optima])
    done: list[LayerChange] = []
    with ExitStack() as changed:
        for number, layer in enumerate(layers):
            keys = torch.stack([mean_key_of(model, layer, fact) for fact in facts])
            now = torch.cat([keys_and_values(model, last, fact.rows[:1], "block")[1] for fact in facts])
            missing = targets - now
            residuals = missing / (len(layers) - number) / output_scale_of(model)
            adjusted = solve(weight * moments[layer].double() + keys.T @ keys, keys.T).T
            change = residuals.T @ adjusted
            done.append(
                LayerChange(
                    layer=layer,
                    keys=keys,
                    residuals=residuals,
                    adjusted_keys=adjusted,
                    missing_norms=missing.norm(dim=1).tolist(),
                    change=change,
                    change_norm=change.norm().item(),
                    original_norm=weight_of(model, layer).double().norm().item(),
                )
            )
            changed.enter_context(edited(model, [(layer, change)]))
    return MemitEdit(optima, targets, done)


def mean_key_of(model: PreTrainedModel, layer: int, fact: Fact) -> torch.Tensor:
    """[F]: the weighted mean of the rows' keys."""
    return torch.tensor(fact.weights, dtype=torch.float64) @ keys_and_values(model, layer, fact.rows)[0]


# --- CounterFact's evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One fact with the prompts that tell how its edit went; the subject is in the prompts."""

    prompt: str
    target_new: str
    target_true: str
    paraphrases: list[str] = field(default_factory=list)
    neighbours: list[str] = field(default_factory=list)


def object_nlls(model: PreTrainedModel, texts: Texts, prompt: str, objects: Sequence[str]) -> list[float]:
    """The NLL by token of each object after the prompt."""
    return [nll(model, texts.ids(prompt), texts.continuation(prompt, text)) for text in objects]


def success_and_magnitude(wanted: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Means over prompts of [p(wanted) > p(other)] and of p(wanted) - p(other), from NLLs; a tie is no success.

    p is exp(-NLL): the geometric mean by token.
    """
    p, q = np.exp(-np.array(wanted)), np.exp(-np.array(other))
    return float((p > q).mean()), float((p - q).mean())


def evaluate(model: PreTrainedModel, texts: Texts, case: Case) -> dict[str, float]:
    """ES, EM, PS, PM, NS and NM of one case on the model as it is; without prompts of a kind, NaN."""
    measures: dict[str, float] = {}
    for letter, prompts in (("E", [case.prompt]), ("P", case.paraphrases), ("N", case.neighbours)):
        nlls = [object_nlls(model, texts, prompt, (case.target_new, case.target_true)) for prompt in prompts]
        new, true = [pair[0] for pair in nlls], [pair[1] for pair in nlls]
        wanted, other = (true, new) if letter == "N" else (new, true)
        measured = success_and_magnitude(wanted, other) if prompts else (float("nan"), float("nan"))
        measures |= dict(zip((f"{letter}S", f"{letter}M"), measured))
    return measures


def summarise(cases: Sequence[dict[str, float]]) -> dict[str, tuple[float, float] | float]:
    """Mean and population standard deviation over cases of each measure, times 100; and S, of the mean ES, PS, NS."""
    columns = {name: 100 * np.array([case[name] for case in cases]) for name in cases[0]}
    summary: dict[str, Any] = {name: (float(np.mean(some)), float(np.std(some))) for name, some in columns.items()}
    return summary | {"S": harmonic_mean([summary[name][0] for name in ("ES", "PS", "NS")])}


def harmonic_mean(values: Sequence[float]) -> float:
    """0 if one of them is."""
    return 0.0 if min(values) == 0 else len(values) / sum(1 / value for value in values)
