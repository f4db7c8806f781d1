"""The YAML files of files/ are valid and open with command, cost and score; study/ holds what files/study/ asks for."""

import re
from pathlib import Path

import pytest

import methods
from utils.config import load as loading
from utils.config.load import load_points
from utils.report.find import find
from utils.store.folder import provenance_of

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "files").rglob("*.yaml"))
STUDY = sorted((ROOT / "files" / "study").glob("*/*.yaml"))
SWEEPS = sorted((ROOT / "files" / "study").glob("*/sweep/*.yaml"))
MEASURED = r"about \d+ (s|min|h) per seed on (\d cores?|one [\w ]+)     expect FinalAccuracy (0\.\d{2,4}|1\.000)"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix(""))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_opens_with_command_cost_and_score_and_is_valid(path):
    command, _, rest = path.read_text().splitlines()[0].partition("     ")
    assert command.split(" --")[0] == f"# python main.py {path.relative_to(ROOT)}"
    assert re.fullmatch(rf"{MEASURED}|not run( in full)?", rest) or path in SWEEPS
    for point in load_points(path):
        folder, *inner = Path(point.config.save_path).parts
        assert folder == "results" and point.config.method.name in methods.known()
        if path.parent.name == "files":  # prer_paper_mnist, a variant of prer: results/mnist/prer_paper
            variant, _, dataset = path.stem.rpartition("_")
            assert (inner, point.config.scenario.dataset.name) == ([dataset, variant], dataset)
            assert variant.startswith(point.config.method.name)
        elif path in SWEEPS:
            assert inner[:-1] == ["sweep", path.parts[-3], path.stem], (
                "not in results/study, which is compared as a whole"
            )
            assert point.sweep is not None and len(point.sweep.points) == 8
            assert point.config.scenario.dev_split > 0
        else:
            assert inner[: len(path.parts[:-1]) - len(ROOT.parts) - 1] == list(path.parent.relative_to(ROOT).parts[1:])


def test_a_file_that_another_one_names_exists():
    named = {mention for path in FILES for mention in re.findall(r"files/\w+\.yaml", path.read_text())}
    assert named and all((ROOT / mention).exists() for mention in named)


@pytest.mark.parametrize("folder", sorted({path.parent for path in STUDY}), ids=lambda folder: folder.name)
def test_files_of_the_study_ask_the_same_of_every_method(folder):
    loaded = {path.stem: loading.load(path) for path in folder.glob("*.yaml")}
    assert {"naive", "joint"} <= loaded.keys()
    for stem, own in loaded.items():
        assert own.method.name in (stem, stem.rpartition("_")[0]), "a variant, as ranpac_5000"
        assert str(own.save_path) == f"results/study/{folder.name}/{stem}"
        naive = loaded["naive"]
        assert (own.scenario, own.train.experiments) == (naive.scenario, naive.train.experiments)
        assert own.model.model_copy(update={"frozen": naive.model.frozen}) == naive.model, "but for frozen features"
        assert own.train.epochs == naive.train.epochs or stem == "gdumb", "whose epochs are passes over its memory"


@pytest.mark.parametrize("path", STUDY, ids=name)
def test_files_of_the_study_have_the_values_of_the_files_they_name(path):
    text = path.read_text()
    if "# Chosen by " in text:
        swept = path.parent / "sweep" / path.name
        ranking = swept.with_suffix(".log").read_text()
        chosen = next(point for point in load_points(swept) if f"chosen: {point.config.save_path.name}\n" in ranking)
        assert loading.load(path).method == chosen.config.method.model_copy(
            update={"plot": loading.load(path).method.plot}
        )
    elif named := re.search(r"# Values as in (\S+)\.\n", text):
        ours, theirs = loading.load(path).method, loading.load(ROOT / named[1]).method
        own = {"gem": "margin", "der": "alpha"}.get(ours.name) if "class" in path.parent.name else None
        assert ours == theirs or (own and ours.model_copy(update={own: getattr(theirs, own)}) == theirs)
    else:
        assert (
            path.parent.name == "cifar10_part"
            or "; to be measured again as in files/" in text
            or "# Default" in text
            or "# Nothing to tune" in text
            or "chosen on dev" in text
        )


@pytest.mark.parametrize("kept", sorted(ROOT.glob("study/*.jsonl")), ids=lambda kept: kept.stem)
def test_the_study_was_run_from_its_files_on_one_commit(kept):
    runs = find([kept])
    assert {run.folder.name for run in runs} == {path.stem for path in STUDY if path.parent.name == kept.stem}
    for run in runs:
        asked = loading.load(ROOT / "files" / "study" / kept.stem / f"{run.folder.name}.yaml")
        settings = {key: value for key, value in asked.identity.items() if not key.startswith("train.evaluate")}
        assert {**run.settings, "scenario.fingerprint": None} == settings  # which binds a folder to its data
        assert len(run.score.seeds) == asked.train.experiments
    records = [provenance_of(run.folder, seed) for run in runs for seed in run.score.seeds]
    assert len({record.commit.removesuffix("-dirty") for record in records}) == 1  # freeze.py changes files
    assert not any(record.changed for record in records)


BASES = {"features": "prer_features_mnist", "task": "prer_mnist"}


@pytest.mark.parametrize("path", sorted((ROOT / "files" / "ablation").glob("*.yaml")), ids=name)
def test_an_ablation_differs_in_one_thing(path):
    base = loading.load(ROOT / "files" / f"{BASES[path.stem.split('_')[0]]}.yaml").identity
    own = loading.load(path).identity
    both = base.keys() & own.keys()  # a flow of another type has other options
    assert sum(base[key] != own[key] for key in both) == 1
