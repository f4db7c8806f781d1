"""The measuring programs: what they make of numbers made by hand, and each of them once on very little work."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import bare_loop, choices, folder, freeze, front, jobs, measuring, montage, peers, profile, scale
from models.encoders import paper
from models.learner import HEADS, Learner
from utils.settings import BadInput

pytestmark = pytest.mark.long


def record(program: str, method: str, end_to_end: float, training: float, between: float = 0.0) -> dict:
    seconds = {"end_to_end_s": end_to_end, "cpu_s": end_to_end / 2, "train_s": training, "method_s": between}
    return {"program": program, "method": method, **seconds, "eval_s": 1.0, "peak_mb": 500.0, "accuracy": 0.97}


RECORDS = [
    *(record("ours", "naive", seconds, 2.0) for seconds in (4.0, 100.0, 3.0)),
    *(record("avalanche", "naive", seconds, 8.0) for seconds in (10.0, 9.0, 11.0)),
    *(record("bare", "naive", 3.0, 1.6) for _ in range(3)),
    *(record("ours", "prer", 20.0, 6.0, between=10.0) for _ in range(3)),
]


def test_ratios_are_of_medians_and_only_where_both_sides_were_measured():
    rows = [line.strip("| ").split(" | ") for line in peers.ratios(RECORDS).splitlines()]
    assert rows[0] == ["ratio of medians", "end to end", "training", "CPU"]
    assert rows[2:] == [
        ["naive: Avalanche / ours", "2.50", "4.00", "2.50"],
        ["prer / naive, both ours", "5.00", "8.00", "5.00"],
        ["naive: ours / bare loop", "1.33", "1.25", "1.33"],
    ]


def test_the_table_has_a_row_for_every_method_and_program():
    rows = [line.strip("| ").split(" | ") for line in peers.table(RECORDS).splitlines()]
    assert [row[:2] for row in rows[2:]] == [
        ["naive", "ours"],
        ["naive", "avalanche"],
        ["naive", "bare"],
        ["prer", "ours"],
    ]
    assert rows[2][2] == "4.0 (3.0-100.0)" and rows[5][3] == "16.0 (16.0-16.0)" and rows[5][-1].startswith("0.9700")


def test_spread_says_the_range_where_there_is_one():
    assert measuring.spread([2.0]) == "2.0" and measuring.spread([3.0, 1.0, 2.0], 2) == "2.00 (1.00-3.00)"


SWEEP = "method: {name: ewc, fisher: exact}\nmodel: {frozen: after_first_task}\n"
NAIVE = "method: naive\nscenario: {dataset: {name: npz, path: a.npz}}\nmodel: {embedding: 8}\n"


def test_a_study_gets_the_values_of_its_sweeps_and_the_scores_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for problem, base in (("task", "../naive.yaml"), ("class", "../../task/sweep/ewc.yaml")):
        (Path("files/study") / problem / "sweep").mkdir(parents=True)
        Path("files/study", problem, "naive.yaml").write_text(f"# python main.py old     old\n{NAIVE}")
        text = f"base: {base}\n" + (SWEEP if problem == "task" else "")
        Path("files/study", problem, "sweep", "ewc.yaml").write_text(text)
    found = Path("results/sweep/class/ewc")
    found.mkdir(parents=True)
    chosen = {"values": {"method.importance": 100.0, "train.epochs": 3}}
    ranking = {"chosen": chosen, "points": [{"status": "done"}] * 2, "seeds": [100, 101]}
    (found / "sweep.json").write_text(json.dumps(ranking))
    (found / "sweep.log").write_text("the ranking")
    run = Path("results/study/class/naive")
    run.mkdir(parents=True)
    score = {"seeds": [0], "time": {"total_s": {"mean": 150.0}}, "test": {"FinalAccuracy": {"mean": 0.54321}}}
    (run / "final_score.json").write_text(json.dumps(score))
    (run / "config.yml").write_text(
        "method: naive\nscenario:\n  dataset:\n    name: npz\n    path: /this/machine/a.npz\nmodel: {embedding: 8}\n"
    )
    for problem in ("task", "class"):
        freeze.freeze(problem, Path("results"))
    assert not Path("files/study/task/ewc.yaml").exists()
    assert Path("files/study/class/ewc.yaml").read_text() == (
        "# python main.py files/study/class/ewc.yaml     not run\n"
        "# Chosen by sweep/ewc.yaml: 2 points on dev data of seeds 100, 101.\n"
        "base: naive.yaml\nmethod:\n  name: ewc\n  fisher: exact\n  importance: 100.0\n"
        "model:\n  frozen: after_first_task\ntrain:\n  epochs: 3\n"
    )
    assert Path("files/study/class/sweep/ewc.log").read_text() == "the ranking"
    first = Path("files/study/class/naive.yaml").read_text().splitlines()[0]
    assert first.endswith("/naive.yaml     about 2 min per seed on 1 core     expect FinalAccuracy 0.543")
    (line,) = Path("study/class.jsonl").read_text().splitlines()
    assert json.loads(line)["files"]["config.yml"].endswith("    path: a.npz\nmodel: {embedding: 8}\n"), "portable"
    assert not Path("study/task.jsonl").exists()
    measured = Path("files/study/class/naive.yaml").read_text()
    card = {"python": "3", "torch": "2", "numpy": "2", "device": "cuda", "processor": "NVIDIA H100", "threads": 1}
    (run / "exp_0").mkdir()
    (run / "exp_0" / "provenance.yml").write_text(json.dumps(card))
    assert "min per seed on one NVIDIA H100     expect" in freeze.header(Path("a.yaml"), run)
    (run / "final_score.json").rename(run / "elsewhere.json")
    freeze.freeze("class", Path("results"))
    assert Path("files/study/class/naive.yaml").read_text() == measured, "not run again: as it was"
    (run.parent / "ewc").mkdir()
    (run / "elsewhere.json").rename(run.parent / "ewc" / "final_score.json")
    (run / "config.yml").rename(run.parent / "ewc" / "config.yml")
    kept = Path("study/class.jsonl").read_text()
    with pytest.raises(BadInput, match="lacks its runs naive seed 0"):
        freeze.freeze("class", Path("results"))
    assert Path("study/class.jsonl").read_text() == kept
    ranking["points"][0]["status"] = "not finished"
    (found / "sweep.json").write_text(json.dumps(ranking))
    with pytest.raises(BadInput, match="not finished"):
        freeze.freeze("class", Path("results"))


def test_the_front_of_kept_studies_is_drawn(tmp_path, monkeypatch):
    out = tmp_path / "front.png"
    study = str(measuring.ROOT / "study" / "mnist_class_frozen.jsonl")
    monkeypatch.setattr(sys, "argv", ["front.py", study, "--out", str(out)])
    assert front.main() == 0
    with Image.open(out) as image:
        assert image.width > image.height and image.convert("L").getextrema() == (0, 255)


def test_slope_is_the_exponent():
    assert scale.slope([(x, 3 * x**2) for x in (5, 10, 20, 50)]) == pytest.approx(2)
    assert scale.slope([(1, 8.0), (2, 4.0)]) == pytest.approx(-1)


def test_growth_in_words():
    assert scale.growth("tasks", "training", 1.0) == "linear or better"
    assert scale.growth("tasks", "training", 1.3) == "MORE THAN LINEAR"
    assert scale.growth("tasks", "evaluation", 2.0) == "linear in the T^2 accuracies or better"
    assert scale.growth("jobs", "end to end", -1.0) == "2.00 x as fast with twice the jobs"
    assert scale.growth("tasks", "evaluation", 2.5) == "MORE THAN QUADRATIC"


def test_rounds_become_medians_before_slopes():
    points = [{"axis": "tasks", "method": "naive", "value": v, "eval_s": s} for v in (5, 10) for s in (v, 2 * v, 90)]
    assert [(p["value"], p["eval_s"]) for p in scale.medians(points)] == [(5, 10), (10, 20)]


class Time:
    """A clock that a test turns."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_time_belongs_to_the_innermost_part(monkeypatch):
    time = Time()
    monkeypatch.setattr(profile, "time", time)
    clock = profile.Clock(begun=98.0)  # the process began before
    backward = clock.wrap(time.passes, "backward")
    penalty = clock.wrap(lambda: (time.passes(1), backward(4), time.passes(2)), "method")
    whole = clock.wrap(lambda: (time.passes(8), backward(16)), "generator")  # its steps are its own
    with clock.part("other"):
        penalty()
        whole()
    assert clock.seconds == {"start-up": 2, "method": 3, "backward": 4, "generator": 24, "other": 0}


def test_the_other_programs_have_the_network_of_ours():
    torch.manual_seed(0)
    ours = Learner(paper.build((1, 28, 28), None), HEADS["paper"](0.5), "task", [(0, 1)]).eval()
    theirs = torch.nn.Sequential(bare_loop.encoder(), bare_loop.head()).eval()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data = own.data
    x = torch.rand(5, 1, 28, 28)
    assert torch.allclose(ours.logits(ours.embed(x), 0), theirs(x), atol=1e-6)


def test_the_bare_loop_s_tasks_are_pairs_of_classes():
    x, y = torch.arange(6.0).view(6, 1, 1, 1), torch.tensor([3, 0, 2, 1, 2, 0])
    (x0, y0), (x1, y1) = bare_loop.tasks_of(x, y)
    assert x0.flatten().tolist() == [1, 3, 5] and y0.tolist() == [0, 1, 0]
    assert x1.flatten().tolist() == [0, 2, 4] and y1.tolist() == [1, 0, 0]


def test_a_program_is_measured_from_outside():
    code = "import os; x = bytearray(200_000_000); print(os.environ['OMP_NUM_THREADS'])"
    ran = measuring.run([sys.executable, "-c", code], threads=3)
    assert ran.output == "3\n" and ran.peak_mb > 200 and ran.cpu_seconds > 0 and ran.seconds > 0
    with pytest.raises(measuring.Failed, match=r"ended with 7:\nwhy"):
        measuring.run([sys.executable, "-c", "print('why'); raise SystemExit(7)"])


def call(monkeypatch, program, *arguments: str) -> int:
    """Run a program's main with these arguments."""
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return program.main()


DIGITS = "files/naive_digits.yaml"


def test_peers(monkeypatch, tmp_path, capsys):
    out = tmp_path / "peers.json"
    options = ["--programs", "ours", "bare", "--methods", "naive", "--rounds", "1", "--epochs", "1", "--out", str(out)]
    assert call(monkeypatch, peers, *options, "--data-root", str(tmp_path)) == 0
    ours, bare = json.loads(out.read_text())
    assert (ours["program"], bare["program"]) == ("ours", "bare") and ours["train_s"] > 0 < bare["train_s"]
    assert min(ours["accuracy"], bare["accuracy"]) > 0.5
    printed = capsys.readouterr().out
    assert printed.startswith("digits, 1 epochs per task") and "| naive: ours / bare loop |" in printed


def test_profile(monkeypatch, capsys):
    assert call(monkeypatch, profile, DIGITS, "--set", "train.epochs=1") == 0
    rows = dict(line.strip("| ").split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[4:])
    seconds = {part: float(cell.partition(" s")[0]) for part, cell in rows.items()}
    total = seconds.pop("end to end")
    assert list(seconds) == list(profile.PARTS) and sum(seconds.values()) == pytest.approx(total, abs=0.1)
    assert all(seconds[part] > 0 for part in ("start-up", "backward", "evaluation", "writing", "exit"))


def test_scale(monkeypatch, tmp_path, capsys):
    figure = tmp_path / "scale.png"
    options = ["--axes", "tasks", "--values", "2", "4", "--methods", "naive", "--set", "train.epochs=1"]
    assert call(monkeypatch, scale, *options, "--out", str(figure)) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[4:8]]
    assert [row[2] for row in rows] == ["training", "evaluation", "end to end", "peak memory"]
    assert all(np.isfinite(float(row[4])) for row in rows)


def test_jobs(monkeypatch, capsys):
    options = ["--seeds", "2", "--rounds", "1", "--set", "train.epochs=1"]
    assert call(monkeypatch, jobs, DIGITS, *options) == 0
    printed = capsys.readouterr().out
    assert "| 1 | " in printed and "| 2 | " in printed and "the same bits in all 2 runs" in printed


@pytest.mark.filterwarnings("ignore:`torch.jit.script`", "ignore:TF32")  # forward mode and oneDNN's switch say it
@pytest.mark.parametrize("choice", choices.CHOICES)
def test_all_ways_of_a_choice_give_the_same_numbers(choice):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        rows = choices.measure(choices.CHOICES[choice][1](False), rounds=1)
    finally:
        torch.set_num_threads(threads)
    assert len(rows) > 1 and rows[0][2] == "1.00" and all(float(ms) > 0 for _, ms, _ in rows)


def test_ways_that_differ_are_not_compared():
    with pytest.raises(AssertionError, match="wrong: "):
        choices.measure({"right": lambda: torch.zeros(2), "wrong": lambda: torch.ones(2)}, rounds=1)


def test_montage(monkeypatch, tmp_path, capsys):
    plots, out = tmp_path / "plots", tmp_path / "out.png"
    assert call(monkeypatch, montage, str(tmp_path), "--out", str(out)) == 2 and not out.exists()
    plots.mkdir()
    for task, colour in enumerate(["red", "blue"]):
        Image.new("RGB", (30, 10 * (task + 1)), colour).save(plots / f"samples_task_{task}.png")
    assert call(monkeypatch, montage, str(tmp_path), "--out", str(out), "--tasks", "7") == 2 and not out.exists()
    assert call(monkeypatch, montage, str(tmp_path), "--out", str(out), "--width", "60") == 0
    with Image.open(out) as picture:
        assert picture.size == (60, 20)
        pixels = [picture.getpixel(at) for at in ((5, 5), (5, 15), (45, 5), (45, 15))]
    assert pixels == [(255, 0, 0), (255, 255, 255), (0, 0, 255), (0, 0, 255)]


def test_folder(capfd):
    assert folder.main(["--images", "1000", "--threads", "1", "2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1,000 images, 1 threads", "1,000 images, 2 threads"]
    assert all("of which the images are 3 MiB" in line for line in lines)
