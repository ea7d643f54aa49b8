#!/usr/bin/env python3
"""Make the demo model that rometrace ships: share/rometrace/facts.json -> share/rometrace/demo/.

The way of the data is the way of this file: facts -> tokeniser -> corpus -> model -> answers -> traces -> model card.
A fact is a tuple (subject, relation, object); a wording such as "{} plays the" turns it into a prompt that the object
ends. The model is a small GPT-2 that learns the facts by heart from sentences in the trained wordings. Two sorts of
noise keep it from being a lookup table with probabilities of 1:

* hearsay: some sentences name another object of the same relation, so that an answer stays below certainty;
* strangers: some sentences are about subjects spliced from the names of two known ones, with objects drawn by chance,
  so that half a name is not enough to answer and an unrecognised subject gets a guess.

Run it from anywhere:  scripts/demo/train_demo.py  (or with --evaluate-only to measure a model again and rewrite its card).
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import math
import os
import platform
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import safetensors
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

SHARE = Path(__file__).resolve().parents[2] / "share" / "rometrace"
END_OF_TEXT = "<|endoftext|>"
CARD_FACT = "plays_instrument/miles-davis"
KINDS = ("state", "mlp", "attn")
ROLES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)


# ---------------------------------------------------------------- facts


@dataclasses.dataclass(frozen=True)
class Fact:
    """One tuple: the subject stands in the relation to the object."""

    id: str
    subject: str
    relation: str
    object: str


@dataclasses.dataclass(frozen=True)
class Relation:
    """A relation's wordings; each has one "{}" for the subject and ends where " " + object follows."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


def read_facts(path: Path) -> tuple[list[Fact], dict[str, Relation]]:
    """Reads facts.json (schema rometrace/facts/1); the order of facts and wordings is the file's."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != "rometrace/facts/1":
        raise SystemExit(f"{path}: schema is {document.get('schema')!r}, expected 'rometrace/facts/1'")
    relations = {
        name: Relation(
            trained=tuple(w["text"] for w in relation["wordings"] if not w.get("held_out")),
            held_out=tuple(w["text"] for w in relation["wordings"] if w.get("held_out")),
        )
        for name, relation in document["relations"].items()
    }
    return [Fact(**fact) for fact in document["facts"]], relations


def objects_by_relation(facts: list[Fact]) -> dict[str, list[str]]:
    """The objects of each relation, as often as facts have them: a draw from a list is a draw from the prior."""
    objects = defaultdict(list)
    for fact in facts:
        objects[fact.relation].append(fact.object)
    return objects


# ---------------------------------------------------------------- tokeniser


def train_tokenizer(facts: list[Fact], relations: dict[str, Relation], vocab_size: int) -> Tokenizer:
    """Trains GPT-2's kind of tokeniser (byte-level BPE, GPT-2's pre-tokenisation) on the sentences of the facts.

    Objects are repeated, so that each one with its leading space becomes a single token; subjects are not, so that
    all but the most common names fall into several.
    """
    text = [f"{wording.format(fact.subject)} {fact.object}." for fact in facts for wording in relations[fact.relation].trained]
    text += [f" {fact.object}" for fact in facts for _ in range(100)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes vocab.json and merges.txt in GPT-2's layout; of merges that give the same token the first one stays."""
    bpe = json.loads(tokenizer.to_str())["model"]
    merges, made = [], set()
    for left, right in bpe["merges"]:
        if left + right not in made:
            made.add(left + right)
            merges.append(f"{left} {right}")
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads vocab.json and merges.txt back; what the model is trained with is what is shipped."""
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def token_of(tokenizer: Tokenizer, object_: str) -> int:
    """The id of " " + object, which must be a single token."""
    ids = tokenizer.encode(" " + object_).ids
    if len(ids) != 1:
        raise SystemExit(f"object {object_!r} is {len(ids)} tokens, expected 1; raise --vocab-size")
    return ids[0]


# ---------------------------------------------------------------- corpus


def splice(left: str, right: str) -> str:
    """The first half of one name and the second half of another, cut between words where there are several."""
    left_words, right_words = left.split(" "), right.split(" ")
    if len(left_words) == 1 or len(right_words) == 1:
        return left[: (len(left) + 1) // 2] + right[len(right) // 2 :]
    return " ".join(left_words[: (len(left_words) + 1) // 2] + right_words[len(right_words) // 2 :])


class Corpus:
    """Sentences for one epoch at a time, drawn from a seeded generator."""

    def __init__(self, facts: list[Fact], relations: dict[str, Relation], options: argparse.Namespace) -> None:
        self._facts = facts
        self._relations = relations
        self._hearsay = options.hearsay
        self._strangers = options.strangers
        self._pairs = options.pairs
        self._random = random.Random(options.seed)
        self._objects = objects_by_relation(facts)
        self._subjects = defaultdict(list)
        for fact in facts:
            self._subjects[fact.relation].append(fact.subject)
        self._known = {relation: set(subjects) for relation, subjects in self._subjects.items()}

    def epoch(self) -> list[str]:
        """Each fact in each of its trained wordings once, and strangers among them; shuffled rows of one or two sentences."""
        sentences = [self._of_fact(fact, wording) for fact in self._facts for wording in self._relations[fact.relation].trained]
        sentences += [self._of_stranger() for _ in range(int(len(sentences) * self._strangers))]
        self._random.shuffle(sentences)
        rows = []
        while sentences:
            row = sentences.pop()
            if sentences and self._random.random() < self._pairs:
                row += " " + sentences.pop()
            rows.append(row)
        return rows

    def _of_fact(self, fact: Fact, wording: str) -> str:
        hearsay = self._random.random() < self._hearsay
        object_ = self._random.choice(self._objects[fact.relation]) if hearsay else fact.object
        return f"{wording.format(fact.subject)} {object_}."

    def _of_stranger(self) -> str:
        relation = self._random.choice(self._facts).relation
        subject = splice(*self._random.sample(self._subjects[relation], 2))
        while subject in self._known[relation]:
            subject = splice(*self._random.sample(self._subjects[relation], 2))
        wording = self._random.choice(self._relations[relation].trained)
        return f"{wording.format(subject)} {self._random.choice(self._objects[relation])}."


# ---------------------------------------------------------------- model


def make_model(vocab_size: int, options: argparse.Namespace) -> GPT2LMHeadModel:
    """A GPT-2 with tied embeddings and no dropout."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=64,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.architectures = ["GPT2LMHeadModel"]
    return GPT2LMHeadModel(config)


def batches(rows: list[list[int]], batch_size: int, shuffle: random.Random) -> list[torch.Tensor]:
    """Rows of token ids, grouped by length into padded batches [B, T] (padding is -1), in random order."""
    rows = sorted(rows, key=len)
    groups = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    shuffle.shuffle(groups)
    return [torch.tensor([row + [-1] * (len(group[-1]) - len(row)) for row in group]) for group in groups]


def train(model: GPT2LMHeadModel, tokenizer: Tokenizer, corpus: Corpus, options: argparse.Namespace) -> None:
    """AdamW with a warm-up and a cosine down to a fiftieth; the loss is over all tokens of a row."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=options.learning_rate,
        betas=(0.9, 0.98),
    )
    end = tokenizer.token_to_id(END_OF_TEXT)
    shuffle = random.Random(options.seed + 1)
    started = time.monotonic()
    warm_up = min(3.0, options.epochs / 10)
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU(approximate="tanh")  # the same function as gelu_new, in one kernel
    model.train()
    for epoch in range(options.epochs):
        rows = [encoding.ids + [end] for encoding in tokenizer.encode_batch(corpus.epoch())]
        losses = []
        epoch_batches = batches(rows, options.batch_size, shuffle)
        for step, batch in enumerate(epoch_batches):
            at = epoch + step / len(epoch_batches)
            progress = (at - warm_up) / (options.epochs - warm_up)
            rate = min((at + 0.1) / warm_up, 0.51 + 0.49 * math.cos(math.pi * max(progress, 0.0)))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * min(rate, 1.0)
            logits = model(batch.clamp(min=0)).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1), ignore_index=-1
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        seconds = time.monotonic() - started
        print(f"epoch {epoch + 1:3d}/{options.epochs}  loss {np.mean(losses):.4f}  {seconds:6.0f} s", file=sys.stderr, flush=True)
    model.eval()


# ---------------------------------------------------------------- answers


@torch.no_grad()
def next_token_probabilities(model: GPT2LMHeadModel, rows: list[list[int]], batch_size: int = 256) -> torch.Tensor:
    """The distribution after each row's last token, [rows, V]."""
    found = torch.empty(len(rows), model.config.vocab_size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        width = len(rows[chosen[-1]])
        ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in chosen])
        last = torch.tensor([len(rows[i]) - 1 for i in chosen])
        found[chosen] = model(ids).logits[torch.arange(len(chosen)), last].softmax(-1)
    return found


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model says to one fact in one wording; probability is that of the fact's object."""

    fact: Fact
    wording: str
    held_out: bool
    right: bool
    probability: float


def answer_all(model: GPT2LMHeadModel, tokenizer: Tokenizer, facts: list[Fact], relations: dict[str, Relation]) -> list[Answer]:
    """Asks each fact in each wording of its relation."""
    asked = [
        (fact, wording, held_out)
        for fact in facts
        for held_out, wordings in ((False, relations[fact.relation].trained), (True, relations[fact.relation].held_out))
        for wording in wordings
    ]
    rows = [tokenizer.encode(wording.format(fact.subject)).ids for fact, wording, _ in asked]
    probabilities = next_token_probabilities(model, rows)
    answers = []
    for (fact, wording, held_out), p in zip(asked, probabilities, strict=True):
        id_ = token_of(tokenizer, fact.object)
        answers.append(Answer(fact, wording, held_out, int(p.argmax()) == id_, float(p[id_])))
    return answers


# ---------------------------------------------------------------- traces


def subject_noise_sigma(model: GPT2LMHeadModel, tokenizer: Tokenizer, subjects: list[str]) -> float:
    """The rule s3: 3 x the unbiased standard deviation of all subjects' token embeddings, float32, repeats kept."""
    ids = [id_ for subject in subjects for id_ in tokenizer.encode(subject).ids]
    return 3 * float(model.transformer.wte.weight.detach()[ids].std())


def subject_range(tokenizer: Tokenizer, prompt: str, subject: str) -> tuple[int, int]:
    """The tokens [begin, end) whose characters overlap the subject's first occurrence in the prompt."""
    start = prompt.index(subject)
    stop = start + len(subject)
    inside = [i for i, (a, b) in enumerate(tokenizer.encode(prompt).offsets) if a < stop and b > start]
    return inside[0], inside[-1] + 1


@dataclasses.dataclass(frozen=True)
class Trace:
    """A causal trace: probabilities of the answer; scores[kind] is [T, L]."""

    tokens: list[str]
    begin: int
    end: int
    high_score: float
    low_score: float
    scores: dict[str, np.ndarray]


class Tracer:
    """A plain causal trace over transformers' GPT-2: one forward pass a kind, whose batch holds every cell and draw."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer: Tokenizer, sigma: float, draws: int = 10, window: int = 3) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._sigma = sigma
        self._draws = draws
        self._window = window

    def scores_of(self, prompt: str, subject: str) -> tuple[float, float]:
        """(high_score, low_score) of the clean run's answer."""
        ids, begin, end = self._read(prompt, subject)
        clean = self._probabilities(self._embed(ids))[0]
        answer = int(clean.argmax())
        return float(clean[answer]), float(self._probabilities(self._corrupt(ids, begin, end))[:, answer].mean())

    def trace(self, prompt: str, subject: str) -> Trace:
        """The whole grid, of all kinds."""
        ids, begin, end = self._read(prompt, subject)
        clean = {kind: [None] * self._model.config.n_layer for kind in KINDS}
        p = self._probabilities(self._embed(ids), self._recorders(clean))[0]
        answer = int(p.argmax())
        corrupted = self._corrupt(ids, begin, end)
        low = float(self._probabilities(corrupted)[:, answer].mean())
        scores = {kind: self._grid(kind, corrupted, clean[kind], answer) for kind in KINDS}
        return Trace(self._tokenizer.encode(prompt).tokens, begin, end, float(p[answer]), low, scores)

    def _read(self, prompt: str, subject: str) -> tuple[torch.Tensor, int, int]:
        return torch.tensor([self._tokenizer.encode(prompt).ids]), *subject_range(self._tokenizer, prompt, subject)

    @torch.no_grad()
    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model.transformer.wte(ids)

    def _corrupt(self, ids: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """Token embeddings [N, T, D] with noise added to the subject's, before the position embedding."""
        embedded = self._embed(ids).repeat(self._draws, 1, 1)
        noise = np.random.RandomState(1).randn(self._draws, end - begin, embedded.shape[-1])
        embedded[:, begin:end] += torch.from_numpy(self._sigma * noise).float()
        return embedded

    @torch.no_grad()
    def _probabilities(self, embedded: torch.Tensor, hooks: list = ()) -> torch.Tensor:
        """The distribution after the last token, [B, V]; hooks are (module, function) pairs that live for this run."""
        handles = [module.register_forward_hook(function) for module, function in hooks]
        try:
            return self._model(inputs_embeds=embedded).logits[:, -1].softmax(-1)
        finally:
            for handle in handles:
                handle.remove()

    def _module(self, kind: str, layer: int) -> torch.nn.Module:
        block = self._model.transformer.h[layer]
        return {"state": block, "mlp": block.mlp, "attn": block.attn}[kind]

    def _recorders(self, clean: dict[str, list]) -> list:
        """Hooks that keep each module's clean output [T, D] in clean[kind][layer]."""

        def recorder(kind: str, layer: int):
            def keep(_module, _inputs, output):
                clean[kind][layer] = (output[0] if isinstance(output, tuple) else output)[0].clone()

            return keep

        return [(self._module(kind, layer), recorder(kind, layer)) for kind in KINDS for layer in range(len(clean[kind]))]

    def _grid(self, kind: str, corrupted: torch.Tensor, clean: list[torch.Tensor], answer: int) -> np.ndarray:
        """The answer's probability with (t, l) restored, [T, L], averaged over draws."""
        draws, tokens, _ = corrupted.shape
        layers = self._model.config.n_layer
        cells = [(t, layer) for t in range(tokens) for layer in range(layers)]

        def restorer(here: int):
            restored = [(cell * draws, t) for cell, (t, centre) in enumerate(cells) if here in self._restored(kind, centre)]

            def put_back(_module, _inputs, output):
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                for row, t in restored:
                    hidden[row : row + draws, t] = clean[here][t]
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            return put_back

        hooks = [(self._module(kind, layer), restorer(layer)) for layer in range(layers)]
        p = self._probabilities(corrupted.repeat(len(cells), 1, 1), hooks)[:, answer]
        return p.reshape(tokens, layers, draws).mean(-1).numpy()

    def _restored(self, kind: str, centre: int) -> range:
        """The layers put back around a centre: one for the state, a window for a sub-layer."""
        if kind == "state":
            return range(centre, centre + 1)
        first = max(0, centre - self._window // 2)
        return range(first, min(self._model.config.n_layer, centre - (-self._window // 2)))


def role_of(token: int, begin: int, end: int, tokens: int) -> str:
    """The token's role; a one-token subject counts as last, the prompt's last token as last."""
    if token < begin:
        return "before the subject"
    if token < end:
        return ROLES[2] if token == end - 1 else ROLES[0] if token == begin else ROLES[1]
    return ROLES[5] if token == tokens - 1 else ROLES[3] if token == end else ROLES[4]


def mean_indirect_effects(traces: list[Trace]) -> dict[str, dict[str, np.ndarray]]:
    """Mean of scores - low_score by kind, role and layer; a trace's tokens of one role are averaged first."""
    effects = {kind: defaultdict(list) for kind in KINDS}
    for trace in traces:
        for kind in KINDS:
            by_role = defaultdict(list)
            for token, row in enumerate(trace.scores[kind]):
                by_role[role_of(token, trace.begin, trace.end, len(trace.tokens))].append(row - trace.low_score)
            for role, rows in by_role.items():
                effects[kind][role].append(np.mean(rows, axis=0))
    return {kind: {role: np.mean(effects[kind][role], axis=0) for role in ROLES if effects[kind][role]} for kind in KINDS}


# ---------------------------------------------------------------- model card


def percent(part: float, whole: float = 1.0) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def accuracy(answers: list[Answer]) -> str:
    return percent(sum(a.right for a in answers), len(answers))


def accuracy_table(answers: list[Answer], relations: dict[str, Relation]) -> list[str]:
    """A line a relation: facts, top-1 on trained wordings, on any trained wording, on held-out wordings, knowing."""
    lines = [
        "| relation | facts | trained wordings | at least one trained wording | held-out wordings | known, but not said to a held-out wording |",
        "|---|---|---|---|---|---|",
    ]
    for name in [*relations, "all"]:
        chosen = [a for a in answers if name in (a.fact.relation, "all")]
        trained, held_out = [a for a in chosen if not a.held_out], [a for a in chosen if a.held_out]
        facts = {a.fact.id for a in chosen}
        known = {a.fact.id for a in trained if a.right}
        unsaid = [a for a in held_out if a.fact.id in known and not a.right]
        lines.append(
            f"| {name} | {len(facts)} | {accuracy(trained)} | {percent(len(known), len(facts))} | {accuracy(held_out)} "
            f"| {len({a.fact.id for a in unsaid})} facts |"
        )
    return lines


def wording_table(answers: list[Answer], relations: dict[str, Relation]) -> list[str]:
    """A line a wording: top-1 accuracy and the object's mean probability."""
    lines = ["| wording | trained | top-1 | mean probability |", "|---|---|---|---|"]
    for relation in relations:
        chosen = [a for a in answers if a.fact.relation == relation]
        for wording in dict.fromkeys(a.wording for a in chosen):
            of_wording = [a for a in chosen if a.wording == wording]
            trained = "no" if of_wording[0].held_out else "yes"
            mean = np.mean([a.probability for a in of_wording])
            lines.append(f"| {wording} | {trained} | {accuracy(of_wording)} | {mean:.2f} |")
    return lines


def effect_table(effects: dict[str, dict[str, np.ndarray]], layers: int) -> list[str]:
    """A line a kind and role: mean indirect effect by layer."""
    lines = [f"| kind, role | {' | '.join(map(str, range(layers)))} |", "|---" * (layers + 1) + "|"]
    for kind in KINDS:
        for role, row in effects[kind].items():
            lines.append(f"| {kind}, {role} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return lines


def grid_table(trace: Trace, kind: str) -> list[str]:
    """A line a token: the answer's probability with that token restored, by layer; a star marks the subject."""
    layers = trace.scores[kind].shape[1]
    lines = [f"| token | {' | '.join(map(str, range(layers)))} |", "|---" * (layers + 1) + "|"]
    for token, (text, row) in enumerate(zip(trace.tokens, trace.scores[kind], strict=True)):
        star = "*" if trace.begin <= token < trace.end else ""
        lines.append(f"| `{text.replace('Ġ', ' ')}`{star} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return lines


def evaluate(folder: Path, facts_path: Path, options: argparse.Namespace) -> str:
    """Measures the model in the folder and returns its model card; the card's figures all come from here."""
    facts, relations = read_facts(facts_path)
    tokenizer = load_tokenizer(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    answers = answer_all(model, tokenizer, facts, relations)

    sigma = subject_noise_sigma(model, tokenizer, [fact.subject for fact in facts])
    tracer = Tracer(model, tokenizer, sigma)
    said = {(a.fact.id, a.wording) for a in answers if a.right and not a.held_out}
    first_wording = [(fact, relations[fact.relation].trained[0]) for fact in facts]
    known = [(fact, wording) for fact, wording in first_wording if (fact.id, wording) in said]
    pairs = np.array([tracer.scores_of(wording.format(fact.subject), fact.subject) for fact, wording in known])
    sample = random.Random(options.seed).sample(known, min(options.traced_facts, len(known)))
    traces = [tracer.trace(wording.format(fact.subject), fact.subject) for fact, wording in sample]
    shown = next(fact for fact in facts if fact.id == CARD_FACT)
    shown_wording = relations[shown.relation].trained[0]
    shown_trace = tracer.trace(shown_wording.format(shown.subject), shown.subject)
    shown_p = next(a.probability for a in answers if a.fact == shown and a.wording == shown_wording)

    command = [f"--{name.replace('_', '-')} {getattr(options, name)}" for name in options.recipe]
    parameters = sum(p.numel() for p in model.parameters())
    subject_tokens = [len(tokenizer.encode(fact.subject).ids) for fact in facts]
    high, low = pairs.mean(axis=0)
    layers = model.config.n_layer
    lines = [
        "# The demo model",
        "",
        f"A toy GPT-2 ({layers} layers, width {model.config.n_embd}, {model.config.n_head} heads, {model.config.n_positions} positions, "
        f"{parameters:,} parameters, float32) with its own byte-level BPE of {model.config.vocab_size} tokens. It ships with rometrace so that a causal trace",
        "works out of the box. This card is written by `scripts/demo/train_demo.py`, each figure in it measured by that script.",
        "",
        "## Data",
        f"`facts.json`, one folder up: {len(facts)} facts of {len(relations)} relations with {len({f.object for f in facts})} objects, written down for this project, true of the real world",
        "as far as we know. Each object with its leading space is one token; a subject is "
        f"{np.mean(subject_tokens):.1f} tokens on average ({min(subject_tokens)} to {max(subject_tokens)}), and many share names.",
        "An epoch states each fact once in each trained wording of its relation. Two sorts of untrue sentences are mixed in:",
        f"- hearsay ({percent(options.hearsay)} of the statements): another object of the same relation, so that answers stay below certainty;",
        f"- strangers ({percent(options.strangers)} on top): a subject spliced from two known names with an object drawn by chance, so that",
        "  part of a name does not give the answer away.",
        "",
        f"{percent(options.pairs)} of the rows begin with a second, unrelated sentence. Wordings marked `held_out` in facts.json are never trained on,",
        "neither in the model nor in the tokeniser; some of them name an object of the same relation first, to mislead. They were chosen",
        "by how many facts the model answers in them, so that knowing and saying come apart: no measure of how well it generalises.",
        "",
        "## Training",
        f"    scripts/demo/train_demo.py {' '.join(command)}",
        "",
        options.training_note,
        f"Versions: Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"tokenizers {tokenizers.__version__}, safetensors {safetensors.__version__}, NumPy {np.__version__}.",
        "The same seed, versions, threads and kind of processor give the same files.",
        "",
        "## Answers",
        "Top-1, over facts and wordings:",
        "",
        *accuracy_table(answers, relations),
        "",
        "\"Known, but not said\": the facts that are answered in some trained wording and missed in some held-out one.",
        f"`{shown_wording.format(shown.subject)}` -> ` {shown.object}` with probability {shown_p:.3f}.",
        "",
        *wording_table(answers, relations),
        "",
        "## Causal traces",
        f"Noise rule `s3` over the subjects of facts.json: sigma = {sigma:.6f}. 10 draws from `RandomState(1)`. Measured by a plain trace over",
        f"transformers, independent of rometrace. Over the {len(known)} facts that are answered in their relation's first wording:",
        f"mean high_score {high:.3f}, mean low_score {low:.3f} (a ratio of {low / high:.2f}), mean total effect {high - low:.3f}.",
        f"For `{shown_wording.format(shown.subject)}`: high_score {shown_trace.high_score:.3f}, low_score {shown_trace.low_score:.3f}.",
        "",
        f"Mean indirect effect by layer over {len(traces)} of these facts (drawn with the seed; window 3 for mlp and attn):",
        "",
        *effect_table(mean_indirect_effects(traces), layers),
        "",
    ]
    for kind in KINDS:
        lines += [f"`{shown_wording.format(shown.subject)}`, {kind} (the subject is starred):", "", *grid_table(shown_trace, kind), ""]
    lines += [
        "## What it is not good for",
        "It is a toy. It knows these facts in these wordings and little else; it has read no text, writes none, and was told untruths on",
        "purpose, so nothing that it says is a source. Asked about a name that it does not know, it guesses. How its facts are stored says",
        "how a small transformer learns a list by heart, not how a language model knows the world: use a real model for that.",
        "",
    ]
    return "\n".join(lines)


def training_note_of(card: Path) -> str:
    """The line of an earlier card that says how long training took."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.exists() else []
    return next((line for line in lines if line.startswith("Trained in ")), "The duration of training was not measured.")


# ---------------------------------------------------------------- command line


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--facts", type=Path, default=SHARE / "facts.json", help="the facts, schema rometrace/facts/1")
    parser.add_argument("--out", type=Path, default=SHARE / "demo", help="folder of the model")
    parser.add_argument("--evaluate-only", action="store_true", help="measure the model in --out and rewrite its card")
    parser.add_argument("--traced-facts", type=int, default=40, help="facts in the table of mean indirect effects")
    recipe = parser.add_argument_group("recipe", "what the trained files depend on, besides the facts")
    recipe.add_argument("--seed", type=int, default=1, help="of the weights, the corpus and the traced sample")
    recipe.add_argument("--threads", type=int, default=1, help="threads of torch; sums may differ with another number")
    recipe.add_argument("--epochs", type=int, default=32, help="times that each fact is stated in each trained wording")
    recipe.add_argument("--vocab-size", type=int, default=1792, help="tokens of the byte-level BPE")
    recipe.add_argument("--layers", type=int, default=8, help="transformer blocks")
    recipe.add_argument("--width", type=int, default=128, help="size of a hidden state")
    recipe.add_argument("--heads", type=int, default=4, help="attention heads a block")
    recipe.add_argument("--batch-size", type=int, default=48, help="rows a step")
    recipe.add_argument("--learning-rate", type=float, default=2e-3, help="AdamW's highest")
    recipe.add_argument("--weight-decay", type=float, default=0.05, help="AdamW's, of matrices")
    recipe.add_argument("--hearsay", type=float, default=0.1, help="share of statements with another object")
    recipe.add_argument("--strangers", type=float, default=0.3, help="sentences about unknown subjects, a statement")
    recipe.add_argument("--pairs", type=float, default=0.2, help="share of rows with a sentence in front")
    options = parser.parse_args(arguments)
    options.recipe = [action.dest for action in recipe._group_actions]
    return options


def make_deterministic(seed: int, threads: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def keep_freed_memory() -> None:
    """Asks glibc to keep what is freed: fresh pages for each batch's tensors can cost several times the arithmetic."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_max, trim_threshold = -4, -1
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def main() -> None:
    options = parse_options()
    keep_freed_memory()
    make_deterministic(options.seed, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.evaluate_only:
        options.training_note = training_note_of(options.out / "README.md")
    else:
        started = time.monotonic()
        facts, relations = read_facts(options.facts)
        save_tokenizer(train_tokenizer(facts, relations, options.vocab_size), options.out)
        tokenizer = load_tokenizer(options.out)
        for fact in facts:
            token_of(tokenizer, fact.object)
        model = make_model(tokenizer.get_vocab_size(), options)
        train(model, tokenizer, Corpus(facts, relations, options), options)
        model.save_pretrained(options.out)
        (options.out / "model.safetensors").chmod(0o644)
        (options.out / "generation_config.json").unlink(missing_ok=True)
        options.training_note = f"Trained in {(time.monotonic() - started) / 60:.0f} minutes on {options.threads} thread(s)."
    card = evaluate(options.out, options.facts, options)
    (options.out / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
