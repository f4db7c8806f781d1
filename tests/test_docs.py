"""The documentation: links resolve, the README's figures are the study's, its example runs, its size is bounded."""

import re
from pathlib import Path

import pytest

import methods
from main import main
from utils.report import tables
from utils.report.find import find
from utils.report.groups import groups
from utils.store.metrics import plus_minus

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


FOLDERS = "bench|datasets|files|flows|methods|models|study|tests|utils"
NAMES_OTHERS = {"CHANGELOG.md", "CONTRIBUTING.md"}
"""Pages that name removed files, or files to be written."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NAMES_OTHERS], ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = set(re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/]+\.\w+", page.read_text())) - {"methods/l2.py"}
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_commands_of_reliability_select_tests():
    text = (ROOT / "RELIABILITY.md").read_text()
    commands = re.findall(r"python -m pytest ([\w/. ]+?)(?: -m \S+)? -k \"?([\w ]+)", text)
    assert len(commands) > 5
    for files, words in commands:
        names = " ".join(re.findall(r"def (test_\w+)", "".join((ROOT / file).read_text() for file in files.split())))
        assert not [word for word in words.split(" or ") if word.strip() not in names], (files, words)


def test_the_readme_is_a_page_and_links_to_every_other():
    assert len(README.encode()) <= 9500
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\((?!http)([^)\s]+)\)", README)}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_the_readme_s_results_are_those_of_the_study():
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in table(README, "| method | mnist_task")
    ]
    for first, *cells in rows[2:]:
        method = first.split("`")[0]
        for column, cell in zip(rows[0][1:], cells, strict=True):
            if cell:
                (run,) = find([ROOT / "study" / f"{column}.jsonl" / method])
                assert cell == plus_minus(run.score.final), (method, column)


def test_the_tables_of_the_study_are_those_of_compare():
    text = (ROOT / "REPRODUCIBILITY.md").read_text()
    sections = [
        (re.search(r"\(`study/(\w+)\.jsonl`", section), section) for section in re.split(r"^#+ ", text, flags=re.M)
    ]
    of_study = {named[1]: section for named, section in sections if named}
    assert of_study.keys() == {kept.stem for kept in ROOT.glob("study/*.jsonl")}
    for name, section in of_study.items():
        (group,) = groups(find([ROOT / "study" / f"{name}.jsonl"]))
        lines = table(section, "| run |")
        columns = ",".join(lines[0].strip("| ").split(" | ")[1:])
        assert lines == tables.as_markdown(tables.table(tables.choose(columns), group.rows)).splitlines(), name
        assert "Best: " not in section or group.verdict in section


def table(text: str, start: str) -> list[str]:
    lines = text[text.index(start) :].splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]


def test_the_readme_s_method_runs_as_it_stands(tmp_path, monkeypatch):
    """One file, and a line that names it."""
    code, command = re.search(r"```python\n(\"\"\".*?)```.*?```\npython main.py (.*?)\n```", README, re.S).groups()
    (tmp_path / "l2.py").write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    config, *options = command.split()
    folder = tmp_path / "example"
    assert main([config, *options, f"train.save_path={folder}", "train.epochs=1", "train.experiments=1"]) == 0
    assert (folder / "final_score.log").exists()
