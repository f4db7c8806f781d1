"""`--compare`: what it says of runs, the tables, bad input, the page in a browser."""

import csv
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from matplotlib import rc_context
from scipy import stats

from main import main
from utils.config.load import load
from utils.report import cost, figures, statistics, svg, tables
from utils.report.find import find
from utils.report.groups import groups
from utils.report.kept import keep
from utils.run import figures as plots
from utils.settings import BadInput
from utils.store import files
from utils.store.files import write_pickle
from utils.store.final_score import write_final_score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: the page is not tried in a browser")


# ---- runs as they are left by the program, generated


def make_run(
    folder: Path, method: str | dict, final: list[float], tasks: int = 3, epochs: int = 2, stored: int = 0, **train
) -> Path:
    """A results folder whose seeds 0, 1, ... end with these accuracies."""
    tree = {
        "method": {"name": method} if isinstance(method, str) else method,
        "scenario": {"dataset": "digits"},
        "train": {"epochs": epochs, "save_path": str(folder), **train},
    }
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text(yaml.safe_dump(tree))
    config, generator = load(folder / "config.yml"), np.random.default_rng(0)
    for seed, accuracy in enumerate(final):
        r = np.tril(np.linspace(1.0, accuracy, tasks)[:, None] * np.ones(tasks)) + 0.5 * np.triu(
            np.ones((tasks,) * 2), 1
        )
        split = {
            "initial_accuracy": [0.5] * tasks,
            "accuracy_matrix": r.tolist(),
            "confusion": np.eye(10, dtype=int).tolist(),
        }
        losses = generator.random((tasks, epochs))
        results = {
            "seed": seed,
            "config": config.dump(),
            "tasks": [[2 * t, 2 * t + 1] for t in range(tasks)],
            "epochs": [[{"loss": float(v), "accuracy": 1 - float(v) / 2} for v in row] for row in losses],
            "diagnostics": [
                {f"agreement/class {c}": 0.9 - 0.01 * c * t for c in range(3)} if config.method.name == "prer" else {}
                for t in range(tasks)
            ],
            "test": split,
            "train": split,
            "time": {"train_s": 1.0, "method_s": 1.0, "eval_s": 1.0, "total_s": 3.0 + seed, "steps_per_s": 9.0},
            "memory": {
                "learner_parameters": 100,
                "method_floats": 1000 * len(folder.name),
                "method_bytes": 4000 * len(folder.name),
                "stored_real_samples": stored,
            },
        }
        (folder / f"exp_{seed}").mkdir()
        write_pickle(folder / f"exp_{seed}" / "final_results.pkl", results)
    write_final_score(config)
    return folder


ACCURACIES = {
    "naive": [0.60, 0.62, 0.58, 0.61, 0.59],
    "joint": [0.99, 0.98, 0.99, 0.97, 0.98],
    "lwf": [0.90, 0.93, 0.89, 0.92, 0.91],
    "ewc": [0.80, 0.84, 0.81, 0.82, 0.79],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Four methods, five seeds; prer is not among them."""
    root = tmp_path_factory.mktemp("study")
    for method, final in ACCURACIES.items():
        make_run(root / method, method, final)
    return root


def test_a_group_knows_its_best_its_tests_and_its_references(study):
    (group,) = groups(find([study]))
    assert (
        group.names == ["Joint", "LwF", "EWC", "Naive"] and group.title == "digits, task scenario, 2 classes per task"
    )
    assert group.names[group.best] == "LwF" and group.rows[group.best].paired is None, "joint does not compete"
    ps = [stats.ttest_rel(ACCURACIES["lwf"], ACCURACIES[name]).pvalue for name in ("joint", "ewc", "naive")]
    corrected = [row.paired.t_holm for row in group.rows if row.paired]
    assert corrected == pytest.approx(statistics.holm(ps)) and group.best_stands_out
    normalised = [row.normalised for row in group.rows]
    assert normalised == pytest.approx([1.0, (0.91 - 0.6) / (0.982 - 0.6), (0.812 - 0.6) / (0.982 - 0.6), 0.0])
    assert "significantly better than EWC, Naive; significantly worse than Joint" in group.verdict
    assert "too few seeds for a significant paired Wilcoxon test: 5; this table needs 7" in group.notes


def test_the_command_prints_and_writes_everything(study, tmp_path, capsys):
    assert main(["--compare", str(study), "--out", str(tmp_path / "new" / "out")]) == 0
    out, error = capsys.readouterr()
    assert re.search(r"^LwF +5 +0\.9100 ± 0\.0158 +\[0\.8904, 0\.9296\] +0\.8115 ", out, re.M) and not error
    there = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    comparison = {f"comparison.{kind}" for kind in ("csv", "md", "tex", "json")}
    assert there == comparison | {"confusion.csv", "report.html"}
    text = (tmp_path / "new" / "out" / "comparison.md").read_text()
    assert (
        "| LwF | 5 | 0.9100 ± 0.0158 | [0.8904, 0.9296] | 0.8115 |" in text and "| EWC | better | 5 | 0.0980 |" in text
    )
    assert "stores images" not in text, "a single column stands beside nothing"
    (group,) = json.loads((tmp_path / "new" / "out" / "comparison.json").read_text())["groups"]
    assert group["best"] == "LwF" and group["runs"][1]["FinalAccuracy"]["values"] == pytest.approx(ACCURACIES["lwf"])
    rows = list(csv.DictReader((tmp_path / "new" / "out" / "comparison.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["Joint", "LwF", "EWC", "Naive"] and rows[1]["method"] == "lwf"
    assert float(rows[2]["best_minus_this.difference"]) == pytest.approx(0.91 - 0.812)
    assert float(rows[1]["FinalAccuracy.mean"]) == pytest.approx(0.91) and rows[1]["seeds"] == "0 1 2 3 4"


def test_runs_kept_in_one_file_are_compared_as_their_folders(study, tmp_path, capsys):
    file = tmp_path / "kept.jsonl"
    kept = find([study])
    assert keep(study, file) == len(kept) == file.read_text().count("\n")
    before, score = file.read_text(), study / "lwf" / "final_score.json"
    whole = score.read_text()
    score.write_text(json.dumps(json.loads(whole) | {"seeds": [0, 1, 2, 3]}))
    with pytest.raises(BadInput, match="lacks its runs lwf seed 4; run them again"):
        keep(study, file)
    score.write_text(whole)
    assert file.read_text() == before
    again = find([file])
    assert [(run.folder.name, run.score.scores, run.settings) for run in again] == [
        (run.folder.name, run.score.scores, run.settings) for run in kept
    ]
    assert find([file / kept[0].folder.name])[0].score.scores == kept[0].score.scores
    assert [group.title[:6] for group in groups([*kept, *again])] == ["digits", "kept: "], (
        "a study is a group of its own"
    )
    assert main(["--compare", str(file), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    (group,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["groups"]
    assert {run["folder"] for run in group["runs"]} == {f"kept.jsonl/{run.folder.name}" for run in kept}
    assert "typo: no such run; it has " in refused(capsys, "--compare", str(file / "typo"))
    for line, told in (("{", "damaged"), ('{"run": "../a", "files": {}, "score": {}}', "no name")):
        damaged = tmp_path / f"damaged {told}.jsonl"
        damaged.write_text(file.read_text() + line)
        assert f"line {len(kept) + 1}" in (said := refused(capsys, "--compare", str(damaged))) and told in said


def test_latex_in_percent_bold_only_if_significant(study, tmp_path):
    text = tables.latex(groups(find([study])))
    assert r"LwF & $\mathbf{91.0 \pm 1.6}$ & $6.7 \pm 1.2$ & $0$ \\" in text.replace("\n", " "), text
    assert "\\caption{digits, task scenario, 2 classes per task: scores in \\%, mean $\\pm$ standard" in text
    assert "\\label{tab:digits-task-scenario-2-classes-per-task}" in text and "over 5 seeds." in text
    make_run(tmp_path / "si", "si", [0.95, 0.88, 0.90, 0.89, 0.925])  # as good as lwf, but for chance
    group = groups(find([study, tmp_path]))
    text = tables.latex(group)
    assert "mathbf" not in text and "\\toprule" in text and not group[0].best_stands_out
    assert tables.as_latex("a_b & 50%\nc\\x") == "a\\_b \\& 50\\%\\textbackslash{}nc\\textbackslash{}x"


def test_columns_are_chosen(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--compare", str(study), "--out", str(out), "--columns", "finalaccuracy, CI95,F1"]) == 0
    assert re.search(r"^run +FinalAccuracy +CI95 +F1$", capsys.readouterr().out, re.M)
    assert "| run | FinalAccuracy | CI95 | F1 |" in (out / "comparison.md").read_text()
    assert "Method & Accuracy & 95\\% interval & F1 \\\\" in (out / "comparison.tex").read_text()
    (first, *_) = csv.DictReader((out / "comparison.csv").read_text().splitlines())
    scores = [f"{name}.{field}" for name in ("FinalAccuracy", "F1") for field in ("mean", "std", "ci95")]
    assert set(first) == {"group", "name", "method", "folder", "seeds", *scores, "CI95.low", "CI95.high"}
    told = refused(capsys, "--compare", study, "--columns", "Forgeting")
    assert told.startswith("--columns: unknown column 'Forgeting'; did you mean Forgetting? known: seeds, FinalAcc")
    assert "--columns is for --compare" in refused(capsys, "files/ewc_digits.yaml", "--columns", "BWT")


def test_no_interval_beyond_one_and_no_negative_zero(tmp_path):
    make_run(tmp_path / "naive", "naive", [1.0, 0.99, 1.0])
    make_run(tmp_path / "joint", "joint", [0.99999] * 3)
    (group,) = groups(find([tmp_path]))
    column = {column.title: column for column in tables.COLUMNS}
    assert [tables.cell(column["CI95"], row)[0] for row in group.rows] == ["[1.0000, 1.0000]", "[0.9823, 1.0000]"]
    text = tables.section(group) + tables.latex([group], tables.SCORES)
    assert not re.search(r"-0\.0+(?!\d)", text)


def test_ranked_on_common_seeds(tmp_path):
    """Seed 0 is easy for both; a run that has it alone is no better than the same configuration with three seeds."""
    make_run(tmp_path / "one", {"name": "ewc", "importance": 1.0}, [0.9])
    make_run(tmp_path / "three", {"name": "ewc", "importance": 2.0}, [0.9, 0.6, 0.6])
    make_run(tmp_path / "worse", "naive", [0.8, 0.99, 0.99])
    (group,) = groups(find([tmp_path]))
    assert group.names == ["EWC importance=2", "EWC importance=1", "Naive"], "of equals, the one with more seeds"
    (note,) = [note for note in group.notes if "seeds differ" in note]
    assert "ranked on the seeds that all runs have (0)" in note and "0 (EWC importance=1)" in note
    for path in (tmp_path / "one" / "final_score.json",):
        path.write_text(path.read_text().replace('"seeds": [\n  0\n', '"seeds": [\n  7\n'))
    (group,) = groups(find([tmp_path]))
    assert group.names == ["Naive", "EWC importance=1", "EWC importance=2"]
    assert any("ranked by mean, without a common seed" in note for note in group.notes)


def test_no_text_breaks_out_of_its_output(tmp_path, capsys):
    """A data set's path and a folder's name with line breaks, commands and escape sequences."""
    odd = "x\\input{y} %&_$^~<b>|`"
    for number, name in enumerate(("one", f"\n{odd}\x1b[31m")):
        run = make_run(tmp_path / str(number), "ewc", [0.8, 0.9])
        config = yaml.safe_load((run / "config.yml").read_text())
        config["scenario"]["dataset"] = {"name": "npz", "path": odd}
        (run / "config.yml").write_text(yaml.safe_dump(config))
        run.rename(tmp_path / name)
    assert main(["--compare", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error and "npz x\\input{y}" in out
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    for name, text in texts.items():
        assert "\x1b" not in text, name
    tex = texts["comparison.tex"]
    assert "\\input" not in tex and "x\\textbackslash{}input\\{y\\} \\%\\&\\_\\$" in tex
    assert "<b>" not in texts["report.html"] and "&lt;b&gt;" in texts["report.html"]
    lines = [line for line in texts["comparison.md"].splitlines() if line.startswith("| EWC (")]
    assert len(lines) == 2 * 2 - 1 and "\\<b>\\|\\`" in "".join(lines)


def test_runs_of_one_method_are_named_by_what_differs(tmp_path):
    for importance in (1.0, 10.0):
        make_run(tmp_path / f"ewc{importance:g}", {"name": "ewc", "importance": importance}, [0.8, 0.9])
    make_run(tmp_path / "copy", {"name": "ewc", "importance": 1.0}, [0.8, 0.9])
    make_run(tmp_path / "naive.old-1", "naive", [0.5, 0.5])  # moved aside by --restart
    (group,) = groups(find([tmp_path, tmp_path / "ewc1"]))
    assert sorted(group.names) == ["EWC (copy)", "EWC (ewc1)", "EWC importance=10"]
    assert any("too few seeds for a significant paired t-test: 2" in note for note in group.notes)
    assert any("no normalised score" in note for note in group.notes) and "Paired t-test" not in group.verdict


def test_different_problems_are_not_mixed_and_different_protocols_are_told(study, tmp_path):
    make_run(tmp_path / "si", "si", [0.7, 0.8, 0.9], epochs=7)
    other = make_run(tmp_path / "other", "mas", [0.7, 0.8])
    config = yaml.safe_load((other / "config.yml").read_text())
    config["scenario"]["labels_per_task"] = 5
    (other / "config.yml").write_text(yaml.safe_dump(config))
    first, second = groups(find([study, tmp_path]))
    assert second.names == ["MAS"] and "5 classes per task" in second.title and "MAS" not in first.names
    assert "the protocol differs in train.epochs: 2 (Joint, LwF, EWC, Naive); 7 (SI)" in first.notes
    assert any("seeds differ" in note and "0, 1, 2 (SI)" in note for note in first.notes)
    assert "MAS" in tables.section(second)


def test_groups_have_unique_titles_and_unknown_data_are_told(tmp_path):
    for name, scenario in (
        ("old", {}),
        ("new", {"fingerprint": "abc"}),
        ("all", {"active_classes": "all"}),
    ):
        run = make_run(tmp_path / name, "naive", [0.5, 0.6])
        config = yaml.safe_load((run / "config.yml").read_text())
        config["scenario"] |= scenario | {"type": "class"}
        (run / "config.yml").write_text(yaml.safe_dump(config))
    title = "digits, class scenario, 2 classes per task, scenario.active_classes="
    both = groups(find([tmp_path / "old", tmp_path / "new", tmp_path / "all"]))
    assert [(group.title, len(group.runs)) for group in both] == [(f"{title}seen", 2), (f"{title}all", 1)]
    assert any("the protocol differs in scenario.fingerprint: null (Naive" in note for note in both[0].notes)
    assert len(tables.side_by_side(both)[0]) == 2 + 3


def test_figures_show_whole_numbers(tmp_path):
    """Coordinates are shortened, the numbers in names and alternative texts are not."""
    for importance in (0.0625, 0.125):
        make_run(tmp_path / f"ewc{importance:g}", {"name": "ewc", "importance": importance}, [0.8125, 0.8125])
    (group,) = groups(find([tmp_path]))
    with rc_context(svg.STYLE):
        drawn = figures.scores(group, figures.looks(group))[1].html
    assert all(f"EWC importance={value} 0.8125 to 0.8125" in drawn for value in (0.0625, 0.125))
    assert not re.search(r' d="[^"]*\.\d{3}', drawn)


def test_the_front_is_of_the_runs_that_no_other_beats_in_accuracy_and_bytes():
    points = [(0, 0.6), (10, 0.5), (10, 0.9), (20, 0.9), (5, 0.6), (99, 0.95)]
    assert cost.front(points) == [(0, 0.6), (10, 0.9), (99, 0.95)]


def test_accuracy_against_bytes(tmp_path):
    """Runs that store real samples are ringed; scores of older versions have no bytes, and then there is no figure."""
    make_run(tmp_path / "a", "naive", [0.5, 0.6])
    make_run(tmp_path / "bbb", "replay", [0.8, 0.9], stored=10)
    memory = {column.title: column for column in tables.COLUMNS}["memory"]
    for older, shown in ((False, {"4,000", "12,000"}), (True, {"4,000", "-"})):
        if older:
            path = tmp_path / "bbb" / "final_score.json"
            path.write_text(re.sub(r'"method_bytes": \d+,', "", path.read_text()))
        (group,) = groups(find([tmp_path]))
        assert {tables.cell(memory, row)[0] for row in group.rows} == shown
        with rc_context(svg.STYLE):
            drawn = [f for f in figures.scores(group, figures.looks(group)) if "bytes" in f.title]
        assert len(drawn) == (not older) and all("Ringed: stores real samples" in f.caption for f in drawn)


# ---- bad input


def refused(capsys, *options: str) -> str:
    """The one line that the command ends with."""
    try:
        code = main([*map(str, options)])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and (len(error) == 1 or error[0].startswith("usage:")), error
    return error[-1]


def test_missing_or_damaged_scores(study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nowhere: not a directory" in refused(capsys, "--compare", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: no finished run" in refused(capsys, "--compare", "empty")
    run = shutil.copytree(study / "lwf", tmp_path / "lwf")
    whole = (run / "final_score.json").read_text()
    for damaged in (
        whole[:-30],
        "{}",
        whole.replace("FinalAccuracy", "finalaccuracy"),
        whole.replace("0.93,", "null,"),
        whole.replace('"seeds": [', '"seeds": [99,'),
    ):
        (run / "final_score.json").write_text(damaged)
        assert re.search(r"lwf/final_score.json is damaged or of an older", refused(capsys, "--compare", run))
    (run / "final_score.json").write_text(whole)
    (run / "config.yml").write_text("{method: {name: lfw}, scenario: {dataset: digits}}")
    assert "did you mean lwf?" in refused(capsys, "--compare", run)
    (run / "config.yml").unlink()
    assert "config.yml: no such file" in refused(capsys, "--compare", run)
    assert "--out" in refused(capsys, "--compare", study / "ewc", "--out", run / "final_score.json")
    assert not (tmp_path / "comparison").exists()


def test_a_run_that_cannot_be_read_is_a_note(study, tmp_path, capsys):
    root = shutil.copytree(study, tmp_path / "runs")
    for name in ("a", "b", "c", "d"):
        shutil.copytree(study / "ewc", root / name)
    (root / "a" / "final_score.json").write_bytes(b"\xff{")
    (root / "b" / "config.yml").write_text("method: {name: lfw}\nscenario: {dataset: digitz}")
    (root / "c" / "config.yml").write_bytes(b"\0\xff")
    (root / "d" / "final_score.json").unlink(), (root / "d" / "final_score.json").mkdir()
    (root / "empty").mkdir(), (root / "comparison.csv").touch()
    write_pickle(root / "ewc" / "exp_0" / "final_results.pkl", ["no", "mapping"])
    write_pickle(root / "ewc" / "exp_1" / "final_results.pkl", {"epochs": 3, "diagnostics": [{"a": "b"}]})
    write_pickle(root / "lwf" / "exp_0" / "final_results.pkl", {"epochs": [], "diagnostics": [], "test": {}})
    (root / "lwf" / "exp_1" / "final_results.pkl").write_bytes(files._sealed(b"\x80\x04cbuiltins\nint\n."))
    (root / "lwf" / "exp_2" / "final_results.pkl").write_bytes(files._sealed(b"\x80\x04]"))
    assert main(["--compare", *map(str, sorted(root.iterdir())), "--out", str(tmp_path / "out")]) == 0
    out, error = capsys.readouterr()
    notes = error.splitlines()
    assert all(note.startswith("note: ") for note in notes) and "Traceback" not in error
    for name in (*"abcd", "empty", "ewc/exp_0", "ewc/exp_1", "lwf/exp_1", "lwf/exp_2"):
        assert sum(bool(re.search(rf"{root}/{name}\b", note)) for note in notes) == 1, name
    assert (
        len(notes) == 10
        and "comparison.csv: not a directory" in error
        and re.findall(r"^(\w+) +5 ", out, re.M) == ["Joint", "LwF", "EWC", "Naive"]
    )
    assert f"{root}/a/final_score.json is damaged" in (tmp_path / "out" / "report.html").read_text()
    code = main(["--compare", *(str(root / name) for name in "abc"), "--out", str(tmp_path / "none")])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 3 and not (tmp_path / "none").exists()


def test_either_run_or_compare(study, capsys):
    assert "give a CONFIG to run, --compare PATH, or --verify PATH" in refused(capsys)
    assert "leave out configs, seeds" in refused(capsys, "files/ewc_digits.yaml", "--seeds", "0", "--compare", study)
    assert "--out is for --compare" in refused(capsys, "files/ewc_digits.yaml", "--out", "x")


def test_a_damaged_missing_or_older_seed_is_told_and_left_out_of_the_curves(study, tmp_path, capsys):
    run = shutil.copytree(study / "lwf", tmp_path / "lwf")
    path = run / "exp_0" / "final_results.pkl"
    path.write_bytes(path.read_bytes()[:-9])
    (run / "exp_1" / "final_results.pkl").unlink()
    write_pickle(run / "exp_2" / "final_results.pkl", {"seed": 2})
    assert main(["--compare", str(run), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["note"] * 2
    assert "exp_0" in lines[0] and "damaged" in lines[0] and "older version" in lines[1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "exp_0/final_results.pkl is damaged" in page and "Loss" in page
    for name in ("exp_0", "exp_2", "exp_3", "exp_4"):
        (run / name / "final_results.pkl").unlink()
    assert main(["--compare", str(run), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.endswith("no learning curves without final_results.pkl: LwF\n")


def test_a_damaged_sample_is_told_and_left_out(study, tmp_path, capsys):
    run = shutil.copytree(study / "lwf", tmp_path / "lwf")
    path, image = (
        run / "exp_0" / "plots" / "samples_task_2.png",
        plots.accuracy_matrix(np.eye(3), "in place of samples"),
    )
    path.parent.mkdir()
    for content, notes in ((image, 0), (image[:-40], 1), (b"no image", 1), (b"", 1)):
        path.write_bytes(content)
        assert main(["--compare", str(run), "--out", str(tmp_path / "out")]) == 0
        assert capsys.readouterr().err.count(f"note: {path} is damaged (") == notes
        page = (tmp_path / "out" / "report.html").read_text()
        assert page.count("<img ") == 1 - notes and page.count("samples_task_2.png is damaged") == notes


def test_a_single_seed_and_a_single_task(tmp_path):
    make_run(tmp_path / "naive", "naive", [0.9], tasks=1)
    make_run(tmp_path / "joint", "joint", [0.9], tasks=1)
    assert main(["--compare", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert (
        "it needs a run of naive and one of joint at least 0.01 above it"
        in (tmp_path / "out" / "report.html").read_text()
    )


# ---- the page


def test_methods_side_by_side(study, tmp_path):
    """A column per learning problem and protocol, named by the problem and the settings in which protocols differ."""
    for name, final in (("naive", [0.2]), ("ewc", [0.5]), ("er", [0.6])):
        make_run(tmp_path / "longer" / name, name, final, epochs=7, stored=10 * (name == "er"))
    problem = "digits, task scenario, 2 classes per task"
    table = tables.side_by_side(groups(find([study, tmp_path / "longer"])))
    assert table == [
        ["method", "stores images", f"{problem}, train.epochs=2", f"{problem}, train.epochs=7"],
        ["Joint", "no", "0.9820 ± 0.0084", ""],
        ["LwF", "no", "0.9100 ± 0.0158", ""],
        ["EWC", "no", "0.8120 ± 0.0192", "0.5000"],
        ["Naive", "no", "0.6000 ± 0.0158", "0.2000"],
        ["Embedding Regularization", "yes", "", "0.6000"],
    ]
    assert tables.side_by_side(groups(find([study]))) == []


@pytest.fixture(scope="module", params=[3, pytest.param(10, marks=pytest.mark.long)])
def points(request) -> int:
    """Runs of each of the three methods that are varied on the page."""
    return request.param


@pytest.fixture(scope="module")
def page(tmp_path_factory, points) -> Path:
    """The report of 3 * points + 2 runs of five seeds, as many tasks as points, with generated samples of prer."""
    root, generator = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    image = plots.accuracy_matrix(generator.random((10, 10)), "in place of samples")
    for i in range(points):
        for method in ("ewc", "prer", "si"):
            settings = (
                {"name": "prer", "weights": {"er": 1.0 + i}}
                if method == "prer"
                else {"name": method, "importance": 1.0 + i}
            )
            final = (0.9 + 0.005 * i + 0.01 * generator.random(5)).tolist()
            run = make_run(root / f"{method}_{i}", settings, final, tasks=points, epochs=20)
            if method == "prer":
                (run / "exp_0" / "plots").mkdir()
                (run / "exp_0" / "plots" / f"samples_task_{points - 1}.png").write_bytes(image)
    for method in ("naive", "joint"):
        make_run(root / method, method, ACCURACIES[method], tasks=points, epochs=20)
    assert main(["--compare", str(root), "--out", str(root / "out")]) == 0
    return root / "out" / "report.html"


def test_the_page_is_whole_small_and_needs_no_network(page, points):
    html = page.read_text()
    assert all(f'download="comparison.{kind}"' in html for kind in ("csv", "md", "tex"))
    assert "train.optimizer=adam" in html and "unknown versions (no provenance.yml)" in html
    assert len(html.encode()) < 5e6
    assert not re.search(r"https?:|@import|url\((?!#)|srcset", html)
    assert all(link.startswith(("data:", "#")) for link in re.findall(r"(?:src|href)=\"([^\"]*)", html))
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) == points and all('alt="Samples generated by PRER' in image for image in images)
    svgs = re.findall(r"<svg [^>]*>", html)
    assert all('aria-label="' in svg or 'aria-hidden="true"' in svg for svg in svgs) and len(svgs) > 6 * points
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids)) and set(re.findall(r'(?:url\(|href=")#(\w+)', html)) <= set(ids)
    assert not re.search("|".join(svg.CSS), html), "no placeholder is left of the colours"
    assert "<code>importance=3</code>" in html and "fixed_replay" not in html, "only what is not at its default"
    assert html.count("<h1>") == 1 and 'lang="en"' in html and "prefers-color-scheme: dark" in html


PROBE = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table.sortable"), heads = [...table.tHead.rows[0].cells];
  const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].dataset.key);
  const press = i => {
    heads[i].querySelector("button").click();
    return [names(), heads[i].getAttribute("aria-sort")];
  };
  const found = {before: names(), loaded: performance.now(),  // ms since it was asked for
    requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^data:/.test(name)),
    byName: press(0), byNameDown: press(0), byAccuracy: press(2), byAccuracyUp: press(2)};
  document.querySelector(".legend button").click();
  found.emphasised = document.querySelectorAll(".figures .on").length;
  HTMLAnchorElement.prototype.click = function () { found.svg = decodeURIComponent(this.href.split(",")[1]); };
  document.querySelector("figcaption button").click();
  found.wide = document.documentElement.scrollWidth > innerWidth;
  document.body.innerHTML = ""; document.title = JSON.stringify(found);
});
</script></body>"""


@in_browser
def test_the_page_in_a_browser(page, points, tmp_path):
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/user",
    ]
    done = subprocess.run(
        [CHROMIUM, *flags, "--window-size=500,900", "--dump-dom", probed.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert found["requests"] == [] and found["loaded"] < 2000 and not found["wide"]
    assert len(found["before"]) == 3 * points + 2 and found["before"][0] == "Joint"
    assert found["byName"] == [sorted(found["before"], key=_natural), "ascending"]
    assert found["byNameDown"] == [found["byName"][0][::-1], "descending"]
    assert found["byAccuracy"] == [found["before"], "descending"]
    assert found["byAccuracyUp"] == [found["before"][::-1], "ascending"]
    assert found["emphasised"] >= 6
    svg = ElementTree.fromstring(found["svg"])
    assert svg.get("color") == "#000" and svg.get("width").endswith("pt") and "var(" not in found["svg"]


# ---- figures


def test_an_axis_of_accuracies_is_no_cliff_and_ends_at_one():
    assert plots.accuracy_limits(0.99, 1.0) == pytest.approx((0.951, 1.001))
    assert plots.accuracy_limits(0.5, 0.501) == pytest.approx((0.4755, 0.5255))
    assert plots.accuracy_limits(0.0, 0.001) == pytest.approx((-0.001, 0.049))
    assert plots.accuracy_limits(0.2, 1.045) == pytest.approx((0.2, 1.0169))


def test_confusion_is_added_over_seeds_and_written(study, tmp_path):
    assert main(["--compare", str(study), "--out", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert len(rows) == 4 * 100 and list(rows[0]) == ["group", "run", "true", "predicted", "count"]
    assert all(int(row["count"]) == 5 * (row["true"] == row["predicted"]) for row in rows)
    assert "Confusion matrix of LwF; 1.0000 are right" in (tmp_path / "report.html").read_text()


def test_many_series_are_a_heat_map():
    few, many = ({f"class {i}": [(t, 0.9) for t in range(3)] for i in range(n)} for n in (6, 7))
    axes = plots.new_figure(3, 3).add_subplot()
    plots.draw_heat(axes, many)
    assert axes.images[0].get_array().shape == (7, 3) and len(axes.get_yticklabels()) == 7
    results = {
        "seed": 0,
        "config": {"method": {"name": "prer"}, "scenario": {"dataset": {"name": "digits"}, "type": "task"}},
        "test": {"accuracy_matrix": np.eye(3).tolist()},
    }
    drawn = []
    for series in (few, many):
        of_task = [{f"agreement/{name}": points[t][1] for name, points in series.items()} for t in range(3)]
        drawn.append(dict(plots.of_results(results | {"diagnostics": of_task}, {}))["agreement"])
    assert drawn[0] == plots.over_tasks(few, "prer on digits (task, seed 0)", "agreement")
    assert drawn[1] == plots.heat_map(many, "prer on digits (task, seed 0)", "agreement")


def _natural(name: str) -> list:
    return [float(part) if re.fullmatch(r"[\d.]+", part) else part for part in re.split(r"([\d.]+)", name)]


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2.1."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        channels = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_in_light_dark_and_print():
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    style = (Path(tables.__file__).parent / "report.html").read_text()
    schemes = [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(schemes) == 3
    for scheme in schemes:
        texts = [("ink", "card"), ("ink", "page"), ("soft", "card"), ("soft", "page"), ("accent", "tint")]
        texts += [("ink", "tint"), ("ink", "warn-tint")]
        assert all(_contrast(scheme[a], scheme[b]) >= 4.5 for a, b in texts)
        assert all(_contrast(scheme[c], scheme["card"]) >= 3 for c in ("reference", *(f"c{i}" for i in range(8))))
