"""Write what a study found into its files: `python bench/freeze.py digits_task`.

For each files/study/<problem>/sweep/<method>.yaml that was run, its ranking is copied beside it (<method>.log), and
files/study/<problem>/<method>.yaml is written with the values of the best point. The first line of each file of the
problem that was run then gets time and score of its run in results/study/<problem>/, and these runs are kept in
study/<problem>.jsonl. From the root of the repository.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)

from utils.config.load import load
from utils.config.yaml_text import as_yaml, read_layers
from utils.report.kept import keep
from utils.settings import BadInput
from utils.store.folder import provenance_of

STUDY = Path("files", "study")


def freeze(problem: str, results: Path) -> None:
    """Write the files of the problem; `results` is the folder of results of main.py."""
    for swept in sorted((STUDY / problem / "sweep").glob("*.yaml")):
        folder = results / "sweep" / problem / swept.stem
        if not (folder / "sweep.json").exists():
            print(f"{swept}: not run")
            continue
        ranking = json.loads((folder / "sweep.json").read_text())
        if ranking["chosen"] is None or any(point["status"] == "not finished" for point in ranking["points"]):
            raise BadInput(f"{swept}: a point is not finished; run it again, with the seeds {ranking['seeds']}")
        swept.with_suffix(".log").write_text((folder / "sweep.log").read_text())
        content = frozen(swept, ranking["chosen"]["values"])
        seeds = ", ".join(map(str, ranking["seeds"]))
        comment = f"# Chosen by sweep/{swept.name}: {len(ranking['points'])} points on dev data of seeds {seeds}.\n"
        path, body = STUDY / problem / swept.name, comment + as_yaml(content)
        if not path.exists() or path.read_text().partition("\n")[2] != body:
            path.write_text(f"# python main.py {path}     not run\n{body}")
    for path in sorted((STUDY / problem).glob("*.yaml")):
        run = results / "study" / problem / path.stem
        if (run / "final_score.json").exists() and settings(run / "config.yml") == settings(path):
            _, _, body = path.read_text().partition("\n")
            path.write_text(f"{header(path, run)}\n{body}")
    if runs := keep(results / "study" / problem, Path("study", f"{problem}.jsonl"), portable):
        print(f"study/{problem}.jsonl: {runs} runs")


def frozen(swept: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The method's options in a sweep's file, what it says of the model beyond naive.yaml, and the chosen values."""
    shared = values(swept.parent.parent / "naive.yaml").items()
    fixed = {
        key: value
        for key, value in values(swept).items()
        if key.startswith("method.") or (key.startswith("model.") and (key, value) not in shared)
    }
    content: dict[str, Any] = {"base": "naive.yaml"}
    for key, value in (fixed | dict(chosen)).items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return content


def values(path: Path) -> dict[str, Any]:
    """What a file and those it is based on say, by dotted keys."""
    return {key: value for layer in read_layers(path) for key, value in layer}


def settings(path: Path) -> dict[str, Any]:
    """What decides results in a file or a config.yml, but for the place of the data and what binds a run to it."""
    of_data = ("scenario.fingerprint", "scenario.dataset.path")
    return {key: value for key, value in load(path).identity.items() if key not in of_data}


def portable(path: Path) -> str:
    """The text of a run's file; in config.yml the data set's path is that of the study's file, not of this machine."""
    text, asked = path.read_text(), STUDY / path.parents[1].name / f"{path.parent.name}.yaml"
    if path.name == "config.yml" and (place := getattr(load(asked).scenario.dataset, "path", None)):
        return re.sub(rf"^(    path: ).*/{re.escape(place)}$", rf"\g<1>{place}", text, flags=re.M)
    return text


def header(path: Path, run: Path) -> str:
    """The first line of a file: its command, and time and score of its run, a results folder."""
    score = json.loads((run / "final_score.json").read_text())
    seconds, accuracy = score["time"]["total_s"]["mean"], score["test"]["FinalAccuracy"]["mean"]
    cost = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    ran = provenance_of(run, score["seeds"][0])
    where = "1 core" if ran is None or ran.device == "cpu" else f"one {ran.processor}"
    return f"# python main.py {path}     about {cost} per seed on {where}     expect FinalAccuracy {accuracy:.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("problems", nargs="+", choices=sorted(path.name for path in STUDY.iterdir()), metavar="problem")
    parser.add_argument("--results", type=Path, default=Path("results"), help="main.py's folder of results")
    options = parser.parse_args()
    for name in options.problems:
        try:
            freeze(name, options.results)
        except BadInput as error:
            sys.exit(str(error))
