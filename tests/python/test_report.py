"""The page shows what the results say, in a real browser, asks no network, and runs no foreign text."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from rometrace import report
from results_made import LAYERS, make_header, make_neuron_summary, make_summary, make_traced, make_untraced, make_whole_summary, write_lines
from conftest import REPOSITORY
from records import HIGH, LOW, make_both_record, make_neurons, make_record, make_whole_record, with_counter
from waiting import PATIENCE

SCRIPT = REPOSITORY / "scripts/report.py"
HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script><!--<script>"

BATCH = [
    make_header(),
    make_traced(1, "plays/miles-davis"),
    make_untraced(2, "skipped", "other_answer"),
    make_traced(3, 16, relation="<b>", prompt="Ünïcode 東京 plays the"),
    make_untraced(4, "failed", "record"),
    make_traced(5, "last", subject_range=[2, 4]),
]


def write_page(folder: Path, lines: list[dict[str, Any]], *arguments: Any) -> Path:
    """The page of a results file and, unless there are other arguments, of make_summary()."""
    results = write_lines(folder / "results.jsonl", lines)
    (folder / "summary.json").write_text(json.dumps(make_summary()))
    done = run_script(results, "-o", folder / "report.html", *(arguments or ("--summary", folder / "summary.json")))
    assert done.returncode == 0, done.stderr
    return folder / "report.html"


def run_script(*arguments: Any, data: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it, by a Python without any package."""
    command = [sys.executable, "-E", "-s", "-S", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, input=data, capture_output=True, encoding="utf-8", env=os.environ | environment, timeout=120
    )


def index_of(page: Path) -> dict[str, Any]:
    """What the page holds besides the grids."""
    packed = re.search(r'<script type="text/plain" id="index">([^<]*)</script>', page.read_text("utf-8"))
    return json.loads(zlib.decompress(base64.b64decode(packed[1])))


def assert_refused(done: subprocess.CompletedProcess[str], phrase: str) -> None:
    """Exit status 2, and one line on stderr that says `phrase`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("report.py: "), done.stderr
    assert phrase in done.stderr


# --- Without a browser ------------------------------------------------------------------------------------------


def test_the_page_is_one_file_and_repeatable(tmp_path: Path) -> None:
    first = write_page(tmp_path, BATCH).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.jsonl", "summary.json"]
    assert write_page(tmp_path, BATCH).read_bytes() == first
    assert not re.search(rb"""(src|href)\s*=\s*["'](?!data:,)""", first)


def test_packed_numbers_are_as_near_as_the_page_says() -> None:
    record = make_record(layers=LAYERS)
    values = [[math.sin(7 * t + 3 * layer) * 0.3 for layer in range(LAYERS)] for t in range(4)]
    values[0] = [0.0] * LAYERS
    record["grids"]["mlp"] |= {
        "indirect_effect": values,
        "standard_error": [[None] * LAYERS] + [[abs(v) / 9 for v in row] for row in values[1:]],
    }
    data = zlib.decompress(report.pack(record, report.read_grids(record)))
    length = int.from_bytes(data[:4], "little")
    head, numbers = json.loads(data[4 : 4 + length]), data[4 + length :]
    cells = 4 * LAYERS
    assert len(numbers) == 3 * 2 * 2 * cells

    def take(place: int, signed: bool) -> list[int]:
        high, low = (numbers[(2 * place + half) * cells : (2 * place + half + 1) * cells] for half in (0, 1))
        return [int.from_bytes(pair, "big", signed=signed) for pair in zip(high, low)]

    grid = head["grids"]["mlp"]
    effects = [step * grid["effect_step"] for step in take(2, signed=True)]
    flat = [value for row in values for value in row]
    assert max(abs(a - b) for a, b in zip(effects, flat)) <= 0.500001 * max(map(abs, flat)) / 32767
    assert effects[:LAYERS] == [0.0] * LAYERS
    errors = take(3, signed=False)
    assert errors[:LAYERS] == [65535] * LAYERS
    wanted = [value for row in record["grids"]["mlp"]["standard_error"][1:] for value in row]
    assert (
        max(abs(e * grid["error_step"] - w) for e, w in zip(errors[LAYERS:], wanted)) <= 0.500001 * max(wanted) / 65534
    )


def test_the_table_has_every_record_and_the_counts_their_causes(tmp_path: Path) -> None:
    index = index_of(write_page(tmp_path, BATCH))
    assert index["facts"]["record"] == [1, 2, 3, 4, 5]
    assert index["counts"] == {"traced": {"": 3}, "skipped": {"other_answer": 1}, "failed": {"record": 1}}
    assert [block is not None for block in index["facts"]["block"]] == [True, False, True, False, True]
    assert index["files"][0]["records"] == 5


def test_largest_effects_are_those_of_the_last_subject_token(tmp_path: Path) -> None:
    record = make_traced(1)
    record["grids"]["mlp"]["indirect_effect"][1][2] = 0.25
    facts = index_of(write_page(tmp_path, [record, make_traced(2, subject_range=[2, 4]), *BATCH[2:5]]))["facts"]
    assert facts["mlp"][0] == 0.25 and facts["mlp"][1] is None


def test_limit_leaves_out_grids_but_no_fact(tmp_path: Path) -> None:
    index = index_of(write_page(tmp_path, BATCH, "--limit", "1", "--no-summary"))
    assert [block is not None for block in index["facts"]["block"]] == [True, False, False, False, False]
    assert len(index["facts"]["record"]) == 5 and index["without_grids"] == 2


def test_shards_of_one_run_make_one_report(tmp_path: Path) -> None:
    for number in (1, 2):
        header = make_header(shard={"index": number, "count": 2})
        write_lines(tmp_path / f"{number}.jsonl", [header, make_traced(number), make_traced(number + 2)])
    done = run_script(tmp_path / "1.jsonl", tmp_path / "2.jsonl", "-o", tmp_path / "report.html", "--no-summary")
    assert done.returncode == 0, done.stderr
    assert index_of(tmp_path / "report.html")["facts"]["record"] == [1, 3, 2, 4]


def test_standard_input_and_lines_without_header_are_read(tmp_path: Path) -> None:
    text = "".join(json.dumps(make_record()) + "\n" for _ in range(2))
    done = run_script("-", "-o", tmp_path / "report.html", "--no-summary", data=text)
    assert done.returncode == 0, done.stderr
    assert index_of(tmp_path / "report.html")["facts"]["record"] == [1, 2]


def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "torn.jsonl", BATCH[:2])
    path.write_text(path.read_text() + json.dumps(BATCH[2])[:300])
    done = run_script(path, "-o", tmp_path / "report.html", "--no-summary")
    assert done.returncode == 0 and "line 3 is not complete and is left out" in done.stderr
    assert index_of(tmp_path / "report.html")["facts"]["record"] == [1]


def test_the_summary_is_made_by_rometrace_with_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(make_summary()))
    program = tmp_path / "rometrace"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/said\nfor last; do :; done\ncp {tmp_path}/summary.json "$last"\n'
    )
    program.chmod(0o755)
    page = write_page(tmp_path, BATCH, "--rometrace", program)
    assert index_of(page)["summary"] == make_summary()
    said = (tmp_path / "said").read_text().split()
    assert said[:2] == ["summary", str(tmp_path / "results.jsonl")] and said[2:5] == ["--by", "relation", "-o"]


def test_a_failing_rometrace_is_told_in_one_line(tmp_path: Path) -> None:
    results = write_lines(tmp_path / "results.jsonl", BATCH)
    program = tmp_path / "rometrace"
    program.write_text("#!/bin/sh\necho first >&2; echo 'rometrace: no such thing' >&2; exit 2\n")
    program.chmod(0o755)
    told = "rometrace summary failed with exit status 2 (rometrace: no such thing)"
    assert_refused(run_script(results, "-o", tmp_path / "r.html", "--rometrace", program), told)
    assert_refused(run_script(results, "-o", tmp_path / "r.html", "--rometrace", tmp_path / "none"), "cannot be run")


@pytest.mark.parametrize(
    ("lines", "phrase"),
    [
        ([], "is empty"),
        ([make_header()], "no record, only a header"),
        ([make_header(command="probe"), make_traced(1)], 'results of "probe"'),
        ([make_traced(1), make_traced(2) | {"status": "odd"}], 'line 2: status is "odd"'),
        ([make_traced(1), make_traced(2) | {"tokens": None}], "line 2 has a field of another type"),
        ([make_traced(1) | {"subject_range": [0, 9]}], "subject_range ends at 9 of 4 tokens"),
        ([make_traced(1) | {"grids": {}}], "line 1: has no grid"),
        ([make_traced(1), make_traced(2) | {"run": make_record()["run"] | {"seed": 2}}], "run.seed is 2, but 1 in"),
        ([make_header(), make_header(window=3), make_traced(1)], "window is 3, but 10 in"),
        (
            [make_header(), make_traced(1)],
            "the summary is of 3 traced, 1 skipped and 1 failed facts, the results have 1, 0 and 0",
        ),
        ([make_traced(1) | {"high_score": float("nan")}], "NaN"),
    ],
)
def test_results_that_cannot_be_shown_are_told_in_one_line(tmp_path: Path, lines: list[Any], phrase: str) -> None:
    results = write_lines(tmp_path / "results.jsonl", lines)
    (tmp_path / "summary.json").write_text(json.dumps(make_summary()))
    no_summary = [] if "the summary" in phrase else ["--no-summary"]
    summary = ["--summary", tmp_path / "summary.json"] if not no_summary else []
    assert_refused(run_script(results, "-o", tmp_path / "report.html", *no_summary, *summary), phrase)
    assert not (tmp_path / "report.html").exists() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("-o", "nowhere/report.html"), "there is no folder"),
        (("-o", "report.html", "--limit", "0"), "not a whole number from 1"),
        (("-o", "report.html", "--summary", "none.json"), "none.json: cannot be read"),
        ((), "required: -o"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], phrase: str) -> None:
    results = write_lines(tmp_path / "results.jsonl", BATCH)
    assert_refused(run_script(results, *(str(tmp_path / a) if a.endswith("html") else a for a in arguments)), phrase)


def test_hostile_text_stays_out_of_the_markup(tmp_path: Path) -> None:
    text = write_page(tmp_path, hostile_batch(), "--title", HOSTILE, "--no-summary").read_text("utf-8")
    assert "<img" not in text and text.count("<script>") == 1 and text.count("&lt;img") == 2


def hostile_batch() -> list[dict[str, Any]]:
    record = make_traced(1, HOSTILE, HOSTILE, prompt=HOSTILE, subject=HOSTILE, answer=HOSTILE, prediction=HOSTILE)
    record["tokens"][1], record["token_bytes"][1], record["answer_bytes"] = (
        HOSTILE,
        HOSTILE.encode().hex(),
        HOSTILE.encode().hex(),
    )
    record["fact"]["object"] = HOSTILE
    record["model"] = record["model"] | {"name": HOSTILE, "architecture": HOSTILE}
    header = make_header(model=record["model"])
    header["facts"]["files"][0]["name"] = HOSTILE
    return [header, record, make_untraced(2, "skipped", HOSTILE) | {"model": record["model"], "reason": HOSTILE}]


# --- In Chromium ------------------------------------------------------------------------------------------------


@dataclass
class Tab:
    """A page in the browser, and all that it did behind our back."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def show(self, address: str, **options: Any) -> Any:
        self.page.goto(address, **options)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def column(self, number: int) -> list[str]:
        return self.page.locator(f"#body tr[data-row] td:nth-child({number})").all_inner_texts()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("ROMETRACE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("chromium is not there")
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except playwright.Error as error:
            pytest.skip(f"chromium does not start here: {error.message.splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A tab that, in the end, must have asked nobody for anything and complained about nothing."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    tab = Tab(context.new_page())
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.on("console", lambda message: tab.messages.append(message.text))
    tab.page.on("pageerror", lambda error: tab.messages.append(str(error)))
    tab.page.on("dialog", lambda dialog: tab.messages.append("dialog"))
    yield tab
    assert tab.messages == []
    assert len(tab.requests) <= 1, tab.requests
    context.close()


@pytest.fixture
def shown(tab: Tab, tmp_path: Path) -> Tab:
    """The page of BATCH, opened from its file."""
    tab.show(write_page(tmp_path, BATCH).as_uri())
    return tab


def open_fact(tab: Tab, record: int) -> Any:
    """Clicks the row of a record."""
    tab.page.locator("#body tr[data-row]", has=tab.page.locator(f"td:first-child:text-is('{record}')")).click()
    tab.page.wait_for_selector(f"#fact[data-record='{record}']")
    return tab.page.locator("#fact")


def test_the_averages_stand_on_top(shown: Tab) -> None:
    page = shown.page
    assert page.inner_text("#lead") == "5 facts: 3 traced, 1 skipped, 1 failed"
    assert page.locator("#causes li").all_inner_texts() == [
        "1 skipped: the model's answer is not the object",
        "1 failed: bad record",
    ]
    assert page.locator("#rollups .map").count() == page.locator("#lines .map").count() == 3
    assert page.locator("#rollups .map").first.locator(".labels span").all_inner_texts()[2] == "Last subject token"
    assert page.locator("#rollups .absent").all_inner_texts() == ["no such token traced"] * 3
    assert "average total effect (ATE)\t0.6000\t0.0100\t0.5700 to 0.6300\t0.5800 to 0.6200\t3" in page.inner_text(
        "#effects"
    )
    assert "First subsequent token (n = 2)" in page.inner_text("#legend")
    assert page.locator("#lines path.area").count() == 15
    assert page.inner_text("#scale-end") == "0.1800"


def test_a_group_an_interval_and_a_scale_are_chosen(shown: Tab) -> None:
    page = shown.page
    assert page.locator("#group option").all_inner_texts() == [
        "all facts (3)",
        "relation = P30 (2)",
        "relation = <b> (1)",
    ]
    page.select_option("#group", label="relation = P30 (2)")
    assert page.inner_text("#scale-end") == "0.0900"
    page.hover("#rollups [data-kind=state] .field canvas", position={"x": 3, "y": 3})
    assert page.inner_text("#tip").split("\n")[2:4] == [
        "average indirect effect 0.00500",
        "95 % interval −0.0250 to 0.0350 (bootstrap)",
    ]
    page.select_option("#band", "normal")
    page.hover("#rollups [data-kind=state] .field canvas", position={"x": 3, "y": 4})
    assert "95 % interval −0.0150 to 0.0250 (normal)" in page.inner_text("#tip")
    page.locator("#scale").fill("50")
    assert page.inner_text("#scale-end") == "0.0450"


def test_the_lines_tell_their_values_at_a_layer(shown: Tab) -> None:
    box = shown.page.locator("#lines [data-kind=mlp] svg").bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 80)
    lines = shown.page.inner_text("#tip").split("\n")
    assert lines[0] == f"layer {LAYERS - 1} (MLP of 0 to {LAYERS - 1} restored)"
    assert lines[-1] == "Last token: 0.1100 (0.0800 to 0.1400)"


def test_a_click_opens_the_grids_of_a_fact(shown: Tab) -> None:
    fact = open_fact(shown, 1)
    assert fact.locator(".map figcaption").all_inner_texts() == [
        "States restored",
        "MLP outputs restored",
        "Attention outputs restored",
    ]
    assert fact.locator(".map").first.locator(".labels span").all_inner_texts() == ["Miles*", "Davis*", "plays", "the"]
    assert fact.locator(".prompt").inner_text() == "“Miles Davis plays the” → “trumpet”"
    assert fact.locator("h2").inner_text() == "Record 1"
    assert shown.page.url.endswith("#1")


def test_hover_tells_token_layer_probability_effect_and_error(shown: Tab) -> None:
    open_fact(shown, 1)
    canvas = shown.page.locator("#fact [data-kind=mlp] .field canvas")
    canvas.hover(position={"x": 2, "y": 2})
    assert shown.page.inner_text("#tip").split("\n") == [
        "“Miles”, token 0, subject",
        "layer 0 (MLP of 0 to 4 restored)",
        "probability 0.7500",
        "indirect effect 0.6250 (625 % of the total effect)",
        "standard error 0.0100",
    ]
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 2, "y": box["height"] - 2})
    assert shown.page.inner_text("#tip").split("\n")[:3] == [
        "“the”, token 3",
        "layer 5 (MLP of 0 to 5 restored)",
        f"probability {LOW:.4f}",
    ]
    shown.page.mouse.move(2, 2)
    assert shown.page.locator("#tip").is_hidden()


def test_the_grid_is_painted_where_the_record_has_its_peak(shown: Tab) -> None:
    open_fact(shown, 1)
    darkest = """kind => {
      const canvas = document.querySelector(`#fact [data-kind=${kind}] canvas`);
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const sums = Array.from({ length: data.length / 4 }, (_, i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
      const best = sums.indexOf(Math.min(...sums));
      return [canvas.width, canvas.height, Math.floor(best / canvas.width), best % canvas.width];
    }"""
    peaks = {kind: shown.page.evaluate(darkest, kind) for kind in ("state", "mlp", "attn")}
    assert peaks == {"state": [6, 4, 3, 5], "mlp": [6, 4, 0, 0], "attn": [6, 4, 3, 0]}


def test_one_scale_for_the_three_maps(tmp_path: Path, tab: Tab) -> None:
    record = make_traced(1)
    record["grids"]["attn"]["indirect_effect"] = [[0.125] * LAYERS] * 4
    tab.show(write_page(tmp_path, [record], "--no-summary").as_uri())
    open_fact(tab, 1)
    ends = "els => els.map(e => [...e.querySelectorAll('span')].at(-1).textContent)"
    assert tab.page.locator("#fact .bar").evaluate_all(ends) == ["0.75", "0.75", "0.25"]
    tab.page.check("#one-scale")
    assert tab.page.locator("#fact .bar").evaluate_all(ends) == ["0.75", "0.75", "0.75"]


def test_a_fact_without_grids_tells_why(shown: Tab) -> None:
    fact = open_fact(shown, 2)
    assert fact.locator(".map").count() == 0
    assert "skipped: the model's answer is not the object" in fact.inner_text() and "told why of 2" in fact.inner_text()
    assert "failed: bad record" in open_fact(shown, 4).inner_text()


def test_facts_are_filtered_by_text_relation_and_status(shown: Tab) -> None:
    page = shown.page
    page.fill("#filter-text", "ÜNÏCODE  東京")
    assert shown.column(1) == ["3"] and page.inner_text("#shown") == "1 of 5 facts"
    page.fill("#filter-text", "nothing like that")
    assert shown.column(1) == [] and "no fact fits" in page.inner_text("#body")
    page.fill("#filter-text", "")
    page.select_option("#filter-relation", label="P31 (1)")
    assert shown.column(1) == ["2"]
    page.select_option("#filter-relation", label="(none) (1)")
    assert shown.column(1) == ["4"]
    page.select_option("#filter-relation", label="all")
    page.select_option("#filter-status", label="traced (3)")
    assert shown.column(1) == ["1", "3", "5"]


def test_a_click_on_a_header_sorts_and_another_turns_it_round(shown: Tab) -> None:
    total = shown.page.locator("th button[data-key=effect]")
    total.click()
    assert shown.column(1) == ["5", "3", "1", "2", "4"]  # without a value: last
    assert shown.page.locator("th[aria-sort=descending]").inner_text().startswith("total")
    total.click()
    assert shown.column(1) == ["1", "3", "5", "2", "4"]
    shown.page.locator("th button[data-key=prompt]").click()
    assert shown.column(4)[-2:] == ["Ünïcode 東京 plays the", "–"]


def test_the_keyboard_does_what_the_mouse_does(shown: Tab) -> None:
    page = shown.page
    page.locator("#body tr[data-place='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.row") == "2"
    page.keyboard.press("Enter")
    page.wait_for_selector("#fact[data-record='3'] .map")
    assert page.locator("#body tr[aria-selected=true]").get_attribute("data-row") == "2"
    page.locator("#fact [data-kind=mlp] .field").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tip").startswith("“Miles”, token 0, subject\nlayer 0 ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip").startswith("“Davis”, token 1, subject\nlayer 1 ")
    assert page.locator("#live").text_content() == page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.locator("#next").press("Enter")
    page.wait_for_selector("#fact[data-record='4']")
    page.locator("th button[data-key=record]").press("Enter")
    page.locator("th button[data-key=record]").press("Enter")
    assert shown.column(1) == ["5", "4", "3", "2", "1"]


def test_the_address_opens_a_fact(tab: Tab, tmp_path: Path) -> None:
    tab.show(f"{write_page(tmp_path, BATCH).as_uri()}#3")
    tab.page.wait_for_selector("#fact[data-record='3'] .map")


def test_settings_and_fingerprints_are_shown(shown: Tab) -> None:
    text = shown.page.inner_text("#settings")
    for part in ("some/tiny-model", "0" * 64, "s3: sigma 0.25", "float32", "facts.json", "f" * 64, "9 chosen of 9"):
        assert part in text
    assert index_of(Path(shown.page.url.removeprefix("file://").split("#")[0]))["files"][0][
        "sha256"
    ] in shown.page.inner_text("#files")


def test_a_page_without_summary_has_no_averages(tab: Tab, tmp_path: Path) -> None:
    tab.show(write_page(tmp_path, BATCH, "--no-summary").as_uri())
    assert tab.page.locator("#averages").is_hidden() and tab.page.locator("#table").is_visible()


def test_grids_that_were_left_out_are_said_to_be(tab: Tab, tmp_path: Path) -> None:
    tab.show(write_page(tmp_path, BATCH, "--no-summary", "--limit", "1").as_uri())
    assert "(grids of 2 left out)" in tab.page.inner_text("#lead")
    assert "left out of this page" in open_fact(tab, 3).inner_text()


def test_hostile_text_is_shown_and_not_run(tab: Tab, tmp_path: Path) -> None:
    page = tab.show(write_page(tmp_path, hostile_batch(), "--title", HOSTILE, "--no-summary").as_uri())
    for record in (1, 2):
        fact = open_fact(tab, record)
        assert HOSTILE in fact.inner_text()
    fact = open_fact(tab, 1)
    page.hover("#fact [data-kind=state] .field canvas", position={"x": 2, "y": 30})
    assert HOSTILE in page.inner_text("#tip")
    assert HOSTILE in page.inner_text("#settings") and HOSTILE in page.inner_text("#causes")
    page.fill("#filter-text", "<img")
    assert page.title() == HOSTILE
    assert page.locator("img").count() == 0 and page.locator("script:not([type])").count() == 1


def test_a_script_that_gets_in_all_the_same_is_not_run(tab: Tab, tmp_path: Path) -> None:
    path = write_page(tmp_path, BATCH)
    path.write_text(path.read_text("utf-8").replace("<main", "<script>document.title='run'</script><main"), "utf-8")
    page = tab.show(path.as_uri())
    assert page.title() == "results.jsonl"
    assert [message for message in tab.messages if "Content Security Policy" in message]
    tab.messages.clear()


def test_a_server_is_asked_for_the_page_alone(tab: Tab, tmp_path: Path) -> None:
    write_page(tmp_path, BATCH)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.show(f"http://127.0.0.1:{server.server_port}/report.html")
        open_fact(tab, 1)
        server.shutdown()
    assert asked == ["/report.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(tab: Tab, tmp_path: Path, scheme: str) -> None:
    tab.page.emulate_media(color_scheme=scheme)
    tab.show(write_page(tmp_path, BATCH).as_uri())
    open_fact(tab, 1)
    colours = tab.page.evaluate(
        """() => ["body", ".note", "#body tr[aria-selected=true] td", "#body tr[data-place='1'] td", "dt", ".map figcaption",
          "button"].map(s => {
          const element = document.querySelector(s);
          let ground = element;
          while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
          return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
        })"""
    )
    for text, ground in colours:
        assert contrast(text, ground) >= 4.5, (text, ground)


def contrast(*colours: str) -> float:
    """Contrast of two colours as WCAG has it, 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    return max(map(light, colours)) / min(map(light, colours))


def test_colours_go_from_light_to_dark_in_even_steps(shown: Tab) -> None:
    for ramp in shown.page.evaluate("Object.values(RAMPS)"):
        light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in ramp]
        assert all(a >= b - 0.75 for a, b in zip(light, light[1:]))  # but for rounding
        assert light[0] > 240 and light[-1] < 75


@pytest.mark.parametrize("width", [500, 1000, 1800])
def test_no_width_makes_the_page_wider_than_the_window(tab: Tab, tmp_path: Path, width: int) -> None:
    tab.page.set_viewport_size({"width": width, "height": 900})
    tab.show(write_page(tmp_path, BATCH).as_uri())
    open_fact(tab, 1)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_twenty_thousand_facts_stay_fluid(tab: Tab, tmp_path: Path) -> None:
    lines = [make_untraced(number, "skipped", "other_answer") for number in range(1, 20_001)]
    page = tab.show(write_page(tmp_path, lines, "--no-summary").as_uri())
    assert page.inner_text("#shown") == "20,000 facts"
    assert page.locator("#body tr[data-row]").count() < 60
    page.locator("#table").evaluate("frame => { frame.scrollTop = frame.scrollHeight; }")
    page.wait_for_selector("#body td:text-is('20000')")
    assert page.locator("#body tr[data-row]").count() < 60
    began = time.monotonic()
    page.locator("th button[data-key=subject]").click()
    page.fill("#filter-text", "of 19999")
    page.wait_for_selector("#body td:text-is('19999')")
    assert time.monotonic() - began < 60  # seconds, on the busiest machine; it takes a fraction of one
    assert tab.column(1) == ["19999"]


def test_a_thousand_facts_of_the_largest_model_fit_in_15_megabytes() -> None:
    tokens, layers, checked = 10, 48, 10
    record = make_record([b" token"] * tokens, layers)
    noise = iter(os.urandom(2 * 3 * 2 * tokens * layers * checked))
    sizes = []
    for _ in range(checked):
        for grid in record["grids"].values():
            for name, scale in (("indirect_effect", 0.3), ("standard_error", 0.02)):
                grid[name] = [
                    [scale * (256 * next(noise) + next(noise)) / 65535 for _ in range(layers)] for _ in range(tokens)
                ]
        sizes.append(len(base64.b64encode(report.pack(record, report.read_grids(record)))))
    assert 1000 * sum(sizes) / checked < 15_000_000  # of noise, which nothing compresses


def test_a_large_page_is_told_how_to_become_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    results = write_lines(tmp_path / "results.jsonl", BATCH)
    monkeypatch.setattr(report, "LARGE", 1000)
    monkeypatch.setattr(sys, "argv", ["report.py", str(results), "-o", str(tmp_path / "report.html"), "--no-summary"])
    assert report.main() == 0
    assert "--limit N makes it smaller" in capsys.readouterr().err


def test_what_rometrace_writes_is_shown(
    rometrace: Callable[..., Any], bin_dir: Path, demo: Path, tab: Tab, tmp_path: Path
) -> None:
    text = rometrace("--help").stdout
    if "summary" not in text or "--facts" not in text:
        pytest.skip("this rometrace traces no facts files")
    facts = demo.parent / "facts.json"
    done = rometrace("--facts", facts, "--limit", "5", "-o", tmp_path / "results.jsonl")
    assert done.returncode in (0, 1), done.stderr
    made = run_script(tmp_path / "results.jsonl", "-o", tmp_path / "report.html", "--rometrace", bin_dir / "rometrace")
    assert made.returncode == 0, made.stderr
    page = tab.show((tmp_path / "report.html").as_uri())
    assert page.inner_text("#lead").startswith("5 facts: ")
    page.locator("#filter-status").select_option(index=1)
    assert page.locator("#rollups .map").count() == 3


# --- The whole method -------------------------------------------------------------------------------------------


def whole_record(number: int, **run: Any) -> dict[str, Any]:
    """A traced record of a batch with every kind."""
    whole = make_whole_record(LAYERS, **run)
    return make_traced(number, **{name: whole[name] for name in ("grids", "run", "knockout", "measures", "answer_ids")})


def write_whole_page(folder: Path, lines: list[dict[str, Any]], summary: dict[str, Any] | None = None) -> Path:
    """The page of records with every kind, and of a summary of them."""
    (folder / "whole.json").write_text(json.dumps(summary or make_whole_summary()))
    return write_page(folder, lines, "--summary", folder / "whole.json")


WHOLE = [
    whole_record(1),
    make_untraced(2, "skipped", "other_answer"),
    whole_record(3),
    make_untraced(4, "failed", "record"),
    whole_record(5),
]


def test_every_kind_of_a_fact_is_shown_with_the_rows_it_lists(tab: Tab, tmp_path: Path) -> None:
    tab.show(write_whole_page(tmp_path, WHOLE).as_uri())
    fact = open_fact(tab, 1)
    assert fact.locator(".map figcaption").all_inner_texts() == [
        "States restored",
        "MLP outputs restored",
        "Attention outputs restored",
        "States restored, MLP severed",
        "States restored, attention severed",
        "Heads restored, the strongest of each cell",
    ]
    for number in range(6):
        assert fact.locator(".map").nth(number).locator(".labels span").all_inner_texts() == ["Davis*", "the"]


def test_a_heads_cell_is_the_strongest_head_and_tells_which(tab: Tab, tmp_path: Path) -> None:
    tab.show(write_whole_page(tmp_path, WHOLE).as_uri())
    open_fact(tab, 1)
    canvas = tab.page.locator("#fact [data-kind=head] .field canvas")
    box = canvas.bounding_box()
    canvas.hover(position={"x": 2.5 * box["width"] / LAYERS, "y": 3})
    assert tab.page.inner_text("#tip").split("\n")[:4] == [
        "“Davis”, token 1, subject",
        "layer 2",
        "head 1, the strongest here",
        f"probability {HIGH:.4f}",
    ]
    darkest = tab.page.evaluate(
        """() => {
          const canvas = document.querySelector("#fact [data-kind=head] .field canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const sums = Array.from({ length: data.length / 4 }, (_, i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
          return [canvas.width, canvas.height, sums.indexOf(Math.min(...sums))];
        }"""
    )
    assert darkest == [LAYERS, 2, 2]


def test_knockout_of_a_fact_is_drawn_in_percent(tab: Tab, tmp_path: Path) -> None:
    tab.show(write_whole_page(tmp_path, WHOLE).as_uri())
    chart = open_fact(tab, 1).locator("[data-kind=knockout]")
    assert chart.locator("li").all_inner_texts() == [
        "to the subject (2 tokens)",
        "to after the subject (1 token)",
        "to the last position (1 token)",
    ]
    box = chart.locator("svg.chart").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 80)
    assert tab.page.inner_text("#tip").split("\n")[:2] == [
        f"layers around {LAYERS - 1} cut, change in %",
        "the subject (2 tokens): −60.0000",
    ]


def test_averages_of_every_kind_stand_on_top(tab: Tab, tmp_path: Path) -> None:
    page = tab.show(write_whole_page(tmp_path, WHOLE).as_uri())
    kinds = page.locator("#rollups .map").evaluate_all("maps => maps.map(map => map.dataset.kind)")
    assert kinds == ["state", "mlp", "attn", "state_mlp_severed", "state_attn_severed", "head"]
    heads = page.locator("#rollups [data-kind=head]")
    assert heads.locator(".labels span").all_inner_texts() == ["head 0", "head 1"]
    assert "last subject token" in heads.locator("figcaption").inner_text()
    lines = page.locator("#lines .map").evaluate_all("maps => maps.map(map => map.dataset.kind)")
    assert lines == [*kinds[:-1], "gap-mlp", "gap-attn", "knockout"]
    assert page.inner_text("#caveat") == "Where tracing peaks is not where editing works best (arXiv 2301.04213)."
    page.locator("#peaks").evaluate("table => { table.closest('details').open = true; }")
    assert "heads, Last subject token\t3\t3\t2, head 1" in page.inner_text("#peaks")
    page.select_option("#group", label="relation = <b> (1)")  # without severed states, heads and knockout
    assert page.locator("#rollups .map").count() == page.locator("#lines .map").count() == 3
    assert page.locator("#caveat").is_hidden()


def test_a_summary_of_heads_alone_is_shown(tab: Tab, tmp_path: Path) -> None:
    summary = make_whole_summary()
    kinds = summary["overall"]["kinds"]
    summary["overall"] |= {"kinds": {"head": kinds["head"]}, "gaps": {}}
    page = tab.show(write_whole_page(tmp_path, WHOLE, summary).as_uri())
    assert page.locator("#rollups .map").count() == 1 and page.locator("#lines [data-kind=knockout]").count() == 1


def test_an_approximation_is_marked(tab: Tab, tmp_path: Path) -> None:
    lines = [line | {"run": whole_record(1, engine="gradient", approximate=True)["run"]} for line in WHOLE]
    page = tab.show(write_whole_page(tmp_path, lines).as_uri())
    assert page.inner_text("#remarks") == "approximation (attribution patching)"
    titles = open_fact(tab, 1).locator(".map figcaption").all_inner_texts()
    assert len(titles) == 6 and all(title.endswith(" (approximation)") for title in titles)


def test_noising_shows_the_probability_lost(tab: Tab, tmp_path: Path) -> None:
    run = whole_record(1, direction="noising")["run"]
    page = tab.show(write_whole_page(tmp_path, [line | {"run": run} for line in WHOLE]).as_uri())
    assert "noising" in page.inner_text("#remarks")
    fact = open_fact(tab, 1)
    assert fact.locator(".map figcaption").first.inner_text() == "States corrupted"
    canvas = page.locator("#fact [data-kind=state] .field canvas")
    box = canvas.bounding_box()
    canvas.hover(position={"x": 2.5 * box["width"] / LAYERS, "y": 3})
    lost = WHOLE[0]["grids"]["state"]["indirect_effect"][0][2]
    lines = page.inner_text("#tip").split("\n")
    assert lines[2] == f"probability {HIGH - lost:.4f}" and lines[3].startswith(f"probability lost {lost:.4f}")


def test_a_direction_of_both_is_chosen(tab: Tab, tmp_path: Path) -> None:
    both = make_both_record(LAYERS)
    record = make_traced(1, **{name: both[name] for name in ("grids", "noising", "run", "knockout", "measures")})
    page = tab.show(write_page(tmp_path, [record], "--no-summary").as_uri())
    fact = open_fact(tab, 1)
    noised = both["noising"]["grids"]["state"]

    def tip(layer: int) -> list[str]:
        canvas = page.locator("#fact [data-kind=state] .field canvas")
        canvas.hover(position={"x": (layer + 0.5) * canvas.bounding_box()["width"] / LAYERS, "y": 3})
        return page.inner_text("#tip").split("\n")

    restored, lost = both["grids"]["state"]["indirect_effect"][0][5], noised["indirect_effect"][0][5]
    def assert_says(line: str, words: str, value: float) -> None:
        said = line.removeprefix(words).split(" (")[0].replace("−", "-")
        assert line.startswith(words) and float(said) == pytest.approx(value, abs=1e-4)  # four digits of a 16-bit step

    assert_says(tip(5)[2], "probability ", LOW + restored)
    page.select_option("#direction", "noising")
    assert fact.locator(".map figcaption").first.inner_text() == "States corrupted"
    assert_says(tip(5)[2], "probability ", HIGH - lost)
    assert_says(tip(5)[3], "probability lost ", lost)
    page.select_option("#direction", "interaction")
    titles = fact.locator(".map figcaption").all_inner_texts()
    assert titles[0] == "States patched, interaction" and len(titles) == 6
    for layer in (0, 5):
        assert_says(tip(layer)[2], "interaction ", noised["interaction"][0][layer])
    pixels = page.evaluate(
        """() => {
          const canvas = document.querySelector("#fact [data-kind=state] .field canvas");
          return [...canvas.getContext("2d").getImageData(0, 0, 6, 1).data];
        }"""
    )
    cells = [pixels[4 * layer : 4 * layer + 3] for layer in range(LAYERS)]
    assert cells[0][2] > cells[0][0] and cells[5][0] > cells[5][2] and min(cells[2]) > 240
    page.select_option("#direction", "denoising")
    assert fact.locator(".map figcaption").first.inner_text() == "States restored"


def test_a_plain_page_has_no_remarks(shown: Tab) -> None:
    assert shown.page.locator("#directions").is_hidden()
    assert shown.page.locator("#remarks").is_hidden() and shown.page.locator("#caveat").is_hidden()


def test_stars_stand_where_the_counter_prompt_differs(tab: Tab, tmp_path: Path) -> None:
    whole = with_counter(make_whole_record(LAYERS, positions=(0, 1, 2, 3)))
    record = make_traced(1, **{name: whole[name] for name in ("grids", "run", "counter")})
    tab.show(write_page(tmp_path, [record], "--no-summary").as_uri())
    fact = open_fact(tab, 1)
    assert fact.locator(".map").first.locator(".labels span").all_inner_texts() == ["Miles", "Davis*", "plays", "the"]
    assert "Miles Smiles plays the" in fact.inner_text()


def test_a_fact_of_knockout_alone_is_shown(tab: Tab, tmp_path: Path) -> None:
    record = make_traced(1, grids={}, knockout=make_whole_record(LAYERS)["knockout"])
    tab.show(write_page(tmp_path, [record], "--no-summary").as_uri())
    assert open_fact(tab, 1).locator(".map").count() == 1


def test_a_column_without_a_row_at_the_last_subject_token_is_empty(tmp_path: Path) -> None:
    whole = make_whole_record(LAYERS, positions=(0, 3))
    facts = index_of(write_page(tmp_path, [make_traced(1, grids=whole["grids"])], "--no-summary"))["facts"]
    assert facts["state"] == facts["mlp"] == facts["attn"] == [None]


def test_facts_may_need_different_numbers_of_draws(tmp_path: Path) -> None:
    lines = []
    for number, reached in ((1, 0.009), (2, 0.008)):
        precision = {"asked": 0.01, "reached": reached, "most_samples": 1000}
        lines.append(whole_record(number, samples=10 * number, precision=precision))
    index = index_of(write_page(tmp_path, lines, "--no-summary"))
    assert index["run"]["precision"] == {"asked": 0.01, "most_samples": 1000} and "samples" not in index["run"]


def test_positions_that_cannot_be_are_told_in_one_line(tmp_path: Path) -> None:
    record = whole_record(1)
    record["grids"]["mlp"]["positions"] = [1, 4]
    results = write_lines(tmp_path / "results.jsonl", [record])
    done = run_script(results, "-o", tmp_path / "report.html", "--no-summary")
    assert_refused(done, "mlp has a row for position 4, expected positions from 0 to 3, each once")


# --- Neurons ----------------------------------------------------------------------------------------------------


def make_neuron_batch(**neurons: Any) -> list[dict[str, Any]]:
    """Two facts with neurons alone."""
    found = make_neurons(LAYERS) | neurons
    return [make_header(kinds=["neuron"]), *(make_traced(number, grids={}, neurons=found) for number in (1, 2))]


def test_neurons_of_a_fact_are_packed_as_they_stand() -> None:
    record = make_traced(1, grids={}, neurons=make_neurons(LAYERS, by_layer=True))
    data = zlib.decompress(report.pack(record, report.read_grids(record)))
    found = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    assert found["grids"] == {} and found["neurons"]["candidates"] == 8 * LAYERS
    first = record["neurons"]["effects"][0]
    assert found["neurons"]["effects"][0] == {
        "layer": first["layer"], "position": 1, "neuron": 3, "estimate": first["estimate"], "effect": first["indirect_effect"],
        "error": 0.01, "norm": 2.0, "clean": 1.5, "corrupted": -0.25, "promotes": ["trumpet"], "suppresses": ["piano"],
    }  # fmt: skip
    (sets,) = found["neurons"]["sets"]
    assert sets["sizes"] == [1, 2, 4, 8, 16, 32, 48] and sets["half"] == 12
    wanted = [each["indirect_effect"] for each in record["neurons"]["sets"]]
    assert sets["best"]["effects"] == pytest.approx(wanted, rel=1e-8)
    assert sets["random"]["effects"][-1] == pytest.approx(0.1 * (HIGH - LOW))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda n: n["controls"].pop(), "the sets of neurons at position 1 are not of the sizes of the others"),
        (lambda n: n.update(positions=[9]), "neurons at positions [9] of 4 tokens"),
        (lambda n: n.pop("effects"), "lacks the field 'effects'"),
    ],
)
def test_neurons_that_do_not_fit_are_told_in_one_line(tmp_path: Path, change: Callable[[Any], Any], phrase: str) -> None:
    lines = make_neuron_batch()
    change(lines[1]["neurons"])
    results = write_lines(tmp_path / "results.jsonl", lines)
    assert_refused(run_script(results, "-o", tmp_path / "report.html", "--no-summary"), phrase)


def test_a_fact_without_grids_shows_its_neurons_their_sets_and_a_table(tmp_path: Path, tab: Tab) -> None:
    tab.show(write_page(tmp_path, make_neuron_batch(), "--no-summary").as_uri())
    fact = open_fact(tab, 1)
    assert fact.locator(".map .title").all_text_contents() == [
        "Single neurons restored at “Davis*”",
        "Sets of neurons restored at “Davis*”",
    ]
    assert fact.locator("[data-kind=neurons] circle").count() == fact.locator("[data-kind=neurons] .error").count() == 2
    rows = fact.locator("table tbody tr")
    assert rows.count() == 2
    assert rows.first.locator("td").all_text_contents() == [
        "5:3", "0.3125", "0.0100", "0.2500", "1.5000", "−0.2500", "2.0000", "“trumpet”", "“piano”",
    ]  # fmt: skip
    assert "12 of 48 neurons at “Davis*” bring back half of what all do." in fact.inner_text()
    assert "half of all: 12" in fact.locator("[data-kind=sets] text").all_text_contents()
    box = fact.locator("[data-kind=sets] svg.chart").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 80)
    lines = tab.page.inner_text("#tip").split("\n")
    assert lines[0] == "48 of 48 neurons, effect ± one standard error"
    assert lines[1] == "the best by estimate: 0.5000 (0.4900 to 0.5100)"
    fact.locator("[data-kind=neurons] circle").first.hover()
    assert tab.page.inner_text("#tip").split("\n")[:2] == ["neuron 5:3", "indirect effect 0.3125"]


def test_given_neurons_have_no_sets_and_facts_may_lack_a_half(tmp_path: Path, tab: Tab) -> None:
    lines = make_neuron_batch(ranked_by="given")
    for name in ("sets", "controls", "half"):
        lines[1]["neurons"] = {key: value for key, value in lines[1]["neurons"].items() if key != name}
    lines[2]["neurons"] = make_neurons(LAYERS)
    lines[2]["neurons"]["half"][0]["neurons"] = None
    tab.show(write_page(tmp_path, lines, "--no-summary").as_uri())
    assert open_fact(tab, 1).locator(".map").count() == 1
    fact = open_fact(tab, 2)
    assert fact.locator(".map").count() == 2 and fact.locator(".level").count() == 0
    assert "All neurons together at “Davis*” bring nothing back." in fact.inner_text()


def test_what_facts_share_of_their_neurons_stands_among_the_averages(tmp_path: Path, tab: Tab) -> None:
    (tmp_path / "shared.json").write_text(json.dumps(make_neuron_summary(facts=2) | {"status": {"traced": 2, "skipped": 0, "failed": 0}}))
    page = tab.show(write_page(tmp_path, make_neuron_batch(), "--summary", tmp_path / "shared.json").as_uri())
    assert page.locator("#lines .title").all_text_contents() == ["Neurons restored, last subject token, 2 facts"]
    assert page.locator("#lines path.area").count() == 3
    page.locator("#neurons summary").click()
    assert page.locator("#neurons td").all_inner_texts() == ["2:5", "2", "100 %", "0.1000", "0.0700 to 0.1300", "“jazz”"]
    assert "of one relation 25.0 % (by chance 6.3 %), of neither 12.5 %" in page.inner_text("#neurons")
    assert page.locator("#peaks").is_hidden()
