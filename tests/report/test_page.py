"""The page in headless Chromium: silent, self-contained, readable on a laptop and a phone."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_study, methods

from optiscope.records import Status, StoreError, StudyFolder
from optiscope.report import write_report

LAPTOP, PHONE = (1366, 768), (375, 812)

FIGURES = """() => [...document.querySelectorAll("figure")].map(figure => {
  const fold = figure.closest("details");
  if (fold) { fold.open = true; }
  const top = figure.querySelector("figcaption").getBoundingClientRect();
  const drawings = [...figure.querySelectorAll(".panel > svg")];
  return {
    heading: figure.querySelector("h3").textContent,
    note: figure.querySelector(".note").textContent,
    headingEnd: top.bottom,
    drawingsStart: Math.min(...drawings.map(d => d.getBoundingClientRect().top)),
    named: drawings.every(d => d.getAttribute("aria-label")),
    texts: drawings.map(d => d.querySelectorAll("text").length),
    smallest: Math.min(...[...figure.querySelectorAll(".panel text")].map(
      t => parseFloat(getComputedStyle(t).fontSize)
        * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b))),
  };
})"""

WIDTHS = """() => ({
  page: document.documentElement.scrollWidth,
  boxes: Math.max(...[...document.querySelectorAll(".table-box")].map(
    b => b.getBoundingClientRect().right)),
})"""


@dataclass
class Opened:
    """A page, and what it said and asked for while it loaded."""

    page: Any
    said: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    pages = []

    def opened(path: Path, size: tuple[int, int]) -> Opened:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        pages.append(page)
        found = Opened(page)
        page.on("console", lambda message: found.said.append(message.text))
        page.on("pageerror", lambda error: found.said.append(str(error)))
        page.on("dialog", lambda dialog: (found.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: found.requested.append(request.url))
        page.goto(path.as_uri())
        return found

    yield opened
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def reports(
    study: StudyFolder,
    crowded: StudyFolder,
    alone: StudyFolder,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Pages of studies of 4, 12 and 1 algorithms, moved to where no test writes over them."""
    folder = tmp_path_factory.mktemp("reports")
    studies = {"study": study, "crowded": crowded, "alone": alone}
    return {
        name: write_report(study).rename(folder / f"{name}.html") for name, study in studies.items()
    }


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("name", ["study", "crowded", "alone"])
def test_page(open_page: Any, reports: dict[str, Path], name: str, size: tuple[int, int]) -> None:
    path = reports[name]
    opened = open_page(path, size)
    assert opened.said == []
    assert opened.requested == [path.as_uri()]
    widths = opened.page.evaluate(WIDTHS)
    assert widths["page"] <= size[0]
    assert widths["boxes"] <= size[0]
    figures = opened.page.evaluate(FIGURES)
    kinds = {figure["heading"] for figure in figures}
    assert {"Learning curves", "Final values", "Sensitivity", "Time"} <= kinds
    assert ("Ranks" in kinds) == (name != "alone")
    for figure in figures:
        assert figure["note"], figure
        assert figure["headingEnd"] <= figure["drawingsStart"], figure
        assert figure["named"], figure
        assert min(figure["texts"]) > 4, figure
        assert figure["smallest"] > 9, figure


def test_every_algorithm_can_be_hidden_and_shown(open_page: Any, reports: dict[str, Path]) -> None:
    page = open_page(reports["crowded"], LAPTOP).page

    def shown(number: int) -> list[int]:
        return page.evaluate(
            """number => [...document.querySelectorAll(`[data-alg="${number}"]`)].map(
                 e => getComputedStyle(e).display === "none" ? 0 : 1)""",
            number,
        )

    assert len(shown(3)) > 20
    assert all(shown(3))
    page.locator('nav button[data-toggle="3"]').click()
    assert not any(shown(3))
    assert all(shown(4))
    pressed = page.evaluate(
        """() => [...document.querySelectorAll('[data-toggle="3"]')].map(
             b => b.getAttribute("aria-pressed"))"""
    )
    assert set(pressed) == {"false"}
    page.locator("#show-all").click()
    assert all(shown(3))
    page.locator('nav button[data-toggle="4"]').hover()
    dimmed = "e => parseFloat(getComputedStyle(document.querySelector(e)).opacity)"
    assert page.evaluate(dimmed, 'svg [data-alg="3"][data-part="mean"]') < 0.5
    assert page.evaluate(dimmed, 'svg [data-alg="4"][data-part="mean"]') == 1
    band = '#problem-1 svg [data-alg="4"][data-part="band"]'
    assert page.evaluate(dimmed, band) == 1
    page.locator("h1").hover()
    assert page.evaluate(dimmed, band) == 0  # of many algorithms only the one pointed at


def test_the_first_screen_answers_and_failures_are_told(
    open_page: Any, reports: dict[str, Path], study: StudyFolder
) -> None:
    page = open_page(reports["study"], LAPTOP).page
    answer = page.locator("#answer")
    assert answer.bounding_box()["y"] < LAPTOP[1]
    text = answer.text_content()
    assert re.search(r"digits_mlp\s*\w+ (has the best mean|wins)", text)
    assert answer.locator(".answers svg").count() == 2  # differences to the baseline
    failures = page.locator("#failures").text_content()
    assert "training loss became 1e+06 at step 150" in failures
    assert "<script>alert(1)</script>" in failures  # shown, not run
    assert page.locator("#failures script").count() == 0
    repeat = page.locator("#reproducibility").text_content()
    assert "invented processor" in repeat
    assert study.declaration()["source"].strip() in repeat
    assert "100, 101, 102, 103, 104" in page.locator("#tuning").text_content()
    assert "1 of 104 planned runs have no record yet" in text


def test_final_values_and_the_study_file_can_be_taken_along(
    reports: dict[str, Path], study: StudyFolder
) -> None:
    text = reports["study"].read_text(encoding="utf-8")
    links = re.findall(r'href="data:([^;]+);charset=utf-8;base64,([^"]+)" download="([^"]+)"', text)
    files = {name: base64.b64decode(content).decode() for _, content, name in links}
    assert files["invented.toml"] == study.declaration()["source"]
    header, *lines = files["invented.csv"].splitlines()
    assert header == "problem,algorithm,seed,metric,value"
    assert any(line.startswith("digits_mlp,SGD,100,test_accuracy,0.") for line in lines)
    assert not any(line.startswith("digits_mlp,momentum,101") for line in lines)  # it diverged


@pytest.mark.parametrize("kind", ["markdown", "latex"])
def test_the_overview_can_be_copied(open_page: Any, reports: dict[str, Path], kind: str) -> None:
    page = open_page(reports["study"], LAPTOP).page
    page.evaluate("document.execCommand = () => {}; window.isSecureContext = false")
    page.evaluate(
        """() => { const append = document.body.appendChild.bind(document.body);
        document.body.appendChild = e => { window.copied = e.value; return append(e); }; }"""
    )
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator(f'button[data-copy="{kind}"]').click()
    copied = page.evaluate("window.copied").splitlines()
    if kind == "markdown":
        assert copied[0] == "| algorithm | digits_mlp, test accuracy | digits_conv, test loss |"
        assert copied[1] == "| --- | ---: | ---: |"
        assert len(copied) == 6
    else:
        assert copied[0] == r"\begin{tabular}{lrr}"
        assert r"digits\_mlp" in copied[2]
        assert r"$\pm$" in copied[4]


def test_a_figure_can_be_saved_by_itself(open_page: Any, reports: dict[str, Path]) -> None:
    page = open_page(reports["study"], LAPTOP).page
    page.locator(".answers .panel").first.hover()
    with page.expect_download() as saved:
        page.locator(".answers .panel .save").first.click()
    assert saved.value.suggested_filename == "digits-mlp-differences.svg"
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "var(--" not in text


def test_the_page_has_a_dark_side(browser: Any, reports: dict[str, Path]) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(reports["study"].as_uri())
    color = page.evaluate(
        """() => [["body", "backgroundColor"], [".answers svg text", "fill"]].map(
        ([e, what]) => getComputedStyle(document.querySelector(e))[what])"""
    )
    page.close()
    assert color == ["rgb(22, 24, 27)", "rgb(232, 232, 230)"]


def test_ids_are_unique_and_references_hold(
    reports: dict[str, Path],
) -> None:
    text = reports["crowded"].read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (one or other) in ids
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert len(text) < 1_500_000


def test_labels_are_escaped(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=2, seeds=(100, 101))
    name = '<img src=x onerror="alert(1)">'
    text = write_report(folder, labels={"SGD": name}).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "&lt;img src=x" in text


def test_another_label_still_says_default_hyperparameters(tmp_path: Path) -> None:
    first, *others = methods(2)
    folder = make_study(
        tmp_path, algorithms=[replace(first, tuned=False), *others], budget=2, seeds=(100, 101)
    )
    declared = folder.declaration()
    declared["algorithms"][0]["tune"] = "none"
    folder.write_declaration(declared)
    text = write_report(folder, labels={first.label: "zed"}).read_text(encoding="utf-8")
    words = re.findall(r"\bzed\b(.{9})", text)
    assert words
    assert set(words) == {" (default"}


def test_subset_order_labels_and_colours_are_the_callers(tmp_path: Path) -> None:
    untuned = [replace(method, tuned=False) for method in methods(4)]
    folder = make_study(tmp_path, algorithms=untuned, seeds=(100, 101), epochs=2)
    everything = write_report(folder).read_text(encoding="utf-8")
    path = write_report(
        folder,
        algorithms=("SGD", "Adam"),
        order=("Adam",),
        labels={"SGD": "plain"},
        colors={"Adam": "#123456"},
    )
    text = path.read_text(encoding="utf-8")
    pattern = r'<tr data-alg="(\d+)">\s*<th scope="row">.*?</svg>([^<]*)</th>'
    rows = re.findall(pattern, text.split('id="problem-1"')[1])
    assert list(dict.fromkeys(label for _, label in rows)) == ["Adam", "plain"]
    assert "#123456" in text
    assert "Nesterov" not in text.split('id="reproducibility"')[0]
    assert "#0072b2" in text  # SGD keeps the colour it has beside all others
    family = r"Holm over (\d+) comparisons"
    assert set(re.findall(family, text)) == set(re.findall(family, everything))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithms": ("sgd",)}, "no algorithm is labelled 'sgd': choose from SGD, momentum"),
        ({"order": ("x",)}, "no algorithm is labelled 'x'"),
        ({"colors": {"SGD": "red"}}, "color of 'SGD' must look like #0072b2, got 'red'"),
        ({"figures": ("svg",)}, "figures are written as pdf or png, got 'svg'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    study: StudyFolder, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(study, **arguments)


def test_a_folder_without_a_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no study"):
        write_report(StudyFolder(tmp_path))


def test_a_study_of_which_nothing_ran_has_a_page(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=1, seeds=(5, 6))
    for stored in folder.store.root.iterdir():
        folder.store.set_aside(stored.name, even_good=True)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "No run has reached its end." in text
    folder.write_ledger([])
    assert "No run has reached its end." in write_report(folder).read_text(encoding="utf-8")


def test_a_command_to_give_is_set_as_code(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=1, seeds=(5, 6))
    missing = next(entry for entry in folder.ledger() if entry.role == "reporting")
    folder.store.set_aside(missing.trial_hash, even_good=True)
    text = write_report(folder, labels={"SGD": "<i>`x`</i>"}).read_text(encoding="utf-8")
    assert "run <code>optiscope bench</code> again" in text
    assert "<i>" not in text


def test_where_every_run_diverged_that_is_the_result(tmp_path: Path) -> None:
    seeds = (100, 101)
    failing = {(m.label, "digits_mlp", s): Status.DIVERGED for m in methods(2) for s in seeds}
    folder = make_study(tmp_path, algorithms=methods(2), budget=2, seeds=seeds, failing=failing)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "No run has reached its end." in text
    assert "2 diverged" in text


def test_the_written_page_replaces_the_old_one_whole(alone: StudyFolder) -> None:
    path = write_report(alone)
    before = path.read_text(encoding="utf-8")
    assert write_report(alone).read_text(encoding="utf-8") == before
    assert not list(alone.path.glob(".report*"))
    assert json.loads((alone.path / "study.json").read_text())["name"] in before
