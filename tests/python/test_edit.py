"""`rometrace edit` of one fact, through the executable: what it reports, what it refuses, and where its file goes."""

import json

import pytest
from safetensors import safe_open

FACT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")
GUITAR = (*FACT, "--target", "guitar")
QUICK = ("--templates", "none", "--no-moment")
"""Without what takes most of an edit's time."""


@pytest.fixture(scope="module")
def guitar(rometrace, tmp_path_factory):
    """The edit of the documents: its record and its file."""
    folder = tmp_path_factory.mktemp("guitar")
    file = folder / "miles.edit"
    done = rometrace("edit", *GUITAR, "-o", str(file), "--json", "-q", XDG_CACHE_HOME=str(folder))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), file


def test_the_demo_takes_an_edit_that_does_not_leak(guitar, validate) -> None:
    record, _ = guitar
    validate(record)
    request = record["requests"][0]
    assert request["objects"] == {"new": " guitar", "old": " trumpet"}
    assert request["verdict"] == {"outcome": "took", "leaks": [], "text": "took"}
    prompt = request["measures"]["prompt"]
    assert prompt["before"]["top"]["token"] == " trumpet"
    assert prompt["after"]["top"]["token"] == " guitar"
    assert prompt["after"]["new"]["probability"] > 0.7 > 0.2 > prompt["after"]["old"]["probability"]
    assert len(request["measures"]["paraphrases"]) == 7  # the fact's other wordings
    neighbours = request["measures"]["neighbours"]
    assert 5 <= len(neighbours) <= 10
    assert all(each["after"]["top"]["token"] == " trumpet" for each in neighbours)
    assert 1 < record["perplexity"]["after"] < 1.1 * record["perplexity"]["before"]
    losses = request["losses"]
    totals = [sum(parts) for parts in zip(losses["nll"], losses["kl"], losses["decay"], strict=True)]
    assert totals == pytest.approx(losses["total"])
    assert losses["total"][-1] < losses["total"][0]
    assert len(losses["total"]) <= record["hyperparameters"]["steps"]


def test_a_trace_of_the_edited_model_says_the_new_object_and_that_it_is_edited(rometrace, guitar) -> None:
    record, file = guitar
    traced = json.loads(rometrace(*FACT, "--edit", str(file), "--kinds", "state", "--json", "-q").stdout)
    assert traced["answer"] == " guitar"
    assert [each["layers"] for each in traced["model"]["edits"]] == [record["hyperparameters"]["layers"]]
    after = record["requests"][0]["measures"]["prompt"]["after"]["new"]["probability"]
    assert traced["high_score"] == pytest.approx(after, abs=1e-6)


def test_the_same_command_gives_the_same_file_on_one_thread_and_two(rometrace, tmp_path) -> None:
    changes = []
    for threads in ("1", "2"):
        file = tmp_path / f"{threads}.edit"
        done = rometrace("edit", *GUITAR, "--templates", "none", "--no-moment", "--threads", threads, "-o", str(file), "-q")
        assert done.returncode == 0, done.stderr
        with safe_open(file, "np") as opened:
            changes.append({name: opened.get_tensor(name) for name in opened.keys()})
    assert changes[0].keys() == changes[1].keys()
    for name, one in changes[0].items():
        assert abs(one - changes[1][name]).max() <= 1e-5 * abs(one).max(), name


def test_both_engines_and_a_streamed_model_give_one_edit(rometrace) -> None:
    def deltas(*options: str) -> tuple[list[float], float]:
        done = rometrace("edit", *GUITAR, *QUICK, "--json", "-q", *options)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        return record["requests"][0]["losses"]["total"], record["matrices"][0]["change_norm"]

    expected, norm = deltas()
    for options in (("--engine", "plain"), ("--memory", "12M")):
        losses, change = deltas(*options)
        assert losses == pytest.approx(expected, rel=1e-3)
        assert change == pytest.approx(norm, rel=1e-3)


def test_a_second_edit_goes_on_top_of_the_first_and_is_applied_after_it(rometrace, guitar, tmp_path) -> None:
    _, first = guitar
    second = tmp_path / "louis.edit"
    louis = ("--prompt", "Louis Armstrong plays the", "--subject", "Louis Armstrong")
    done = rometrace("edit", *louis, "--target", "piano", *QUICK, "--edit", str(first), "-o", str(second), "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["made_on"]) == 1
    both = json.loads(rometrace(*FACT, "--edit", str(first), "--edit", str(second), "--kinds", "state", "--json", "-q").stdout)
    assert both["answer"] == " guitar"
    alone = rometrace(*louis, "--edit", str(second), "--kinds", "state", "-q")
    assert alone.returncode == 2
    assert "made on" in alone.stderr and alone.stderr.count("\n") == 1


def test_with_trace_both_objects_are_traced_before_and_after(rometrace, validate) -> None:
    done = rometrace("edit", *GUITAR, *QUICK, "--trace", "--json", "-q")
    assert done.returncode == 0, done.stderr
    traces = json.loads(done.stdout)["traces"]
    for side in ("before", "after"):
        assert set(traces[side]) == {"new", "old"}
        for name, trace in traces[side].items():
            validate(trace)
            assert [grid for grid in ("state", "mlp", "attn") if trace["grids"][grid]["scores"]] == ["state", "mlp", "attn"]
            assert trace["answer"] == {"new": " guitar", "old": " trumpet"}[name]
    assert traces["after"]["new"]["high_score"] > traces["before"]["new"]["high_score"]


def test_memit_changes_several_layers(rometrace) -> None:
    done = rometrace("edit", *GUITAR, *QUICK, "--method", "memit", "--layers", "1-3", "--lambda", "1", "--json", "-q")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [each["layer"] for each in record["matrices"]] == [1, 2, 3]
    assert record["requests"][0]["verdict"]["outcome"] == "took"
    assert record["requests"][0]["key_ratio"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prompt", "He plays the", "--subject", "Miles", "--target", "guitar"), 'subject "Miles" is not in the prompt'),
        ((*FACT, "--target", "trumpet"), 'the model says " trumpet" after "Miles Davis plays the" already'),
        ((*FACT, "--target", " "), "--target is empty"),
        ((*GUITAR, "--true", ""), "--true is empty"),
        (
            ("--prompt", "Miles Davis, Miles Davis plays the", "--subject", "Miles Davis", "--target", "guitar"),
            "is in the prompt 2 times; --subject-at, or {} in its place",
        ),
        ((*GUITAR, "--layer", "8"), "--layers: 8; expected layers from 0 to 7"),
        ((*GUITAR, "--layers", "2-4"), "several layers are of --method memit"),
        ((*GUITAR, "--layers", "4-2"), "--layers"),
        ((*GUITAR, "--rate", "-1"), '--rate: "-1"; expected a number of at least 0'),
        ((*GUITAR, "--steps", "0"), "--steps"),
        ((*GUITAR, "--lambda", "5"), "--lambda: is of --method memit"),
        ((*GUITAR, "--templates", "none", "--seed", "3"), "--seed: is of generated prefixes"),
        ((*GUITAR, "--templates", "missing.txt"), "--templates: missing.txt"),
        ((*GUITAR, "--moments", "missing.npz"), "--moments: missing.npz"),
        ((*GUITAR, "--layers", "all"), "all is with --each"),
        ((*FACT,), "--target is required"),
        (("--show", "x.edit", "--target", "guitar"), "--target: has no effect beside --show"),
        (("--write", "x"), "--edit"),
        (("--prompt", "Miles Davis plays the" + " x y" * 60, *GUITAR[2:]), "tokens; this model takes"),
    ],
)
def test_what_cannot_be_done_is_one_line(rometrace, tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    done = rometrace("edit", *arguments, *(() if "--templates" in arguments else ("--templates", "none")),
                     *(() if {"--moments", "--show", "--write"} & set(arguments) else ("--no-moment",)), "-q")
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1 and len(done.stderr) < 600
    assert list(tmp_path.iterdir()) == []


def test_templates_of_a_file_are_checked_and_recorded(rometrace, tmp_path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("{}\n\nIt is said. {}\nSo {}\n", encoding="utf-8")
    done = rometrace("edit", *GUITAR, "--no-moment", "--templates", str(file), "--json", "-q")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["templates"] == ["It is said. {}", "So {}"]
    assert record["seed"] is None
    file.write_text("It is said. {}\nSo it is\n", encoding="utf-8")
    done = rometrace("edit", *GUITAR, "--no-moment", "--templates", str(file), "-q")
    assert done.returncode == 2
    assert f'{file}, line 2: "So it is" has no {{}}' in done.stderr


def test_a_model_without_a_second_moment_says_what_it_is_for(rometrace, shared) -> None:
    done = rometrace("edit", "--model", str(shared / "models/gpt2-lyrics"), "--prompt", "{} loves", "--subject", "Romeo",
                     "--target", "dancing", "-q")
    assert done.returncode == 2
    for words in ("--text FILE", "--moments FILE", "--no-moment", "25600 tokens"):
        assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_key_that_is_another_behind_prefixes_is_refused_by_rome_and_said_by_r_rome(rometrace, shared, tmp_path) -> None:
    golden = next(
        edit
        for edit in json.loads((shared / "editing/rome.json").read_text(encoding="utf-8"))["edits"]
        if edit["name"] == "lyrics-first-token"
    )
    templates = tmp_path / "templates.txt"
    templates.write_text("\n".join(golden["context_templates"]), encoding="utf-8")
    arguments = ("edit", "--model", str(shared / "models/gpt2-lyrics"), "--prompt", golden["request"]["prompt"],
                 "--subject", "I", "--target", "dream", "--true", "baby", "--layer", "1", "--templates", str(templates),
                 "--text", str(shared / "editing/stats-text.txt"), "--steps", "20", "--decay", "0.5", "--clamp", "4", "--json")
    refused = rometrace(*arguments, "--method", "rome", XDG_CACHE_HOME=str(tmp_path))
    assert refused.returncode == 2
    assert "ratio 0.22, below 0.25" in refused.stderr and "--method r-rome" in refused.stderr
    forced = rometrace(*arguments, "--method", "rome", "--force", XDG_CACHE_HOME=str(tmp_path))
    assert forced.returncode == 0
    assert "(ratio 0.22)" in forced.stderr
    record = json.loads(forced.stdout)
    assert record["requests"][0]["key_ratio"] == pytest.approx(0.215, abs=2e-3)
    assert record["requests"][0]["divisor"] == pytest.approx(golden["divisor"], rel=1e-4)
    assert record["matrices"][0]["change_norm"] == pytest.approx(golden["change_norm"], rel=1e-4)
    after = golden["after"][0]
    measured = record["requests"][0]["measures"]["prompt"]["after"]
    assert measured["new"]["mean_by_token"] == pytest.approx(after["p_new"], abs=1e-4)
    assert measured["old"]["mean_by_token"] == pytest.approx(after["p_true"], abs=1e-4)
    warned = rometrace(*arguments, XDG_CACHE_HOME=str(tmp_path))
    assert warned.returncode == 0
    assert "the bare prompt may not say the new object" in warned.stderr


def test_moments_of_another_model_are_refused(rometrace, shared, tmp_path) -> None:
    text, moments = tmp_path / "text.txt", tmp_path / "C.safetensors"
    text.write_text("the cat sat on the mat\n" * 4, encoding="utf-8")
    made = rometrace("moments", "--model", str(shared / "models/gpt2-lyrics"), "--text", str(text), "--layers", "2", "-o",
                     str(moments), "-q", XDG_CACHE_HOME=str(tmp_path))
    assert made.returncode == 0, made.stderr
    done = rometrace("edit", *GUITAR, "--templates", "none", "--moments", str(moments), "-q")
    assert done.returncode == 2
    assert "is of other weights than this model's" in done.stderr and done.stderr.count("\n") == 1
