"""sweep.json and sweep.log: the points of a sweep, best first, and the test score of the best point alone."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from utils.config.sweep import Sweep
from utils.settings import BadInput
from utils.store.files import write_text
from utils.store.folder import SWEEP, check_same
from utils.store.metrics import plus_minus, summary

SCORE = "FinalAccuracy"  # points are ranked by it
ON_TEST = (
    "RANKED ON TEST DATA: the best score is biased upwards by the selection; do not compare it with scores of values "
    "chosen on dev data (scenario.dev_split)"
)


def check_folder(sweep: Sweep) -> None:
    """Raise BadInput unless a sweep's folder is new, or of the same sweep, perhaps with other values."""
    if (sweep.root / "config.yml").exists():
        raise BadInput(
            f"train.save_path: {sweep.root} holds results of one experiment, not of a sweep; "
            "choose another, or start again with --restart"
        )
    if old := _read(sweep.root):
        both = sweep.shared.keys() & old["shared"].keys()
        ours, theirs = ({key: of[key] for key in both} for of in (sweep.shared, old["shared"]))
        ours |= {"sweep": list(sweep.keys), "sweep.rank_by": sweep.rank_by}
        check_same(sweep.root, ours, theirs | {"sweep": old["keys"], "sweep.rank_by": old["ranked_on"]})


def write(sweep: Sweep, asked: Sequence[int], failed: Collection[tuple[Path, int]] = ()) -> None:
    """Rank all points in the folder, those of earlier lists too, and write sweep.json and sweep.log.

    Points are compared on the seeds `asked` for, and on those that other commands are through with. `failed` has the
    point's folder and the seed of each run that failed.
    """
    root, split = sweep.root, sweep.rank_by
    old = _read(root).get("points", ())
    earlier = {point["name"]: point["values"] for point in old if point["name"] not in sweep.points}
    known = {**sweep.points, **earlier}  # of equal scores, the first in the file is the better
    scores = {name: _scores(root / name, split) for name in known}
    before = {(root / point["name"], seed) for point in old for seed in point["failed"]}
    now = {(root / name, seed) for name in sweep.points for seed in asked}
    failures = (before - now) | {*failed}
    lost = {name: {seed for path, seed in failures if path == root / name} - scores[name].keys() for name in known}
    ended = set.intersection(*(scores[name].keys() | lost[name] for name in sweep.points))
    compared = sorted({*asked, *(ended & set().union(*scores.values()))})
    points: list[dict[str, Any]] = []
    for name, values in known.items():
        complete = scores[name].keys() >= set(compared)
        status = "done" if complete else "failed" if lost[name] else "not finished"
        score = {split: summary([scores[name][seed] for seed in compared]) if complete else None}
        points.append({"name": name, "values": values, "status": status, "failed": sorted(lost[name]), **score})
    points.sort(key=lambda point: -point[split]["mean"] if point["status"] == "done" else 1)  # a stable sort
    best, chosen = points[0], None
    if best["status"] == "done":
        test = _scores(root / best["name"], "test")
        chosen = {"name": best["name"], "values": best["values"], "test": summary([test[seed] for seed in compared])}
    ranking = {
        "keys": list(sweep.keys),
        "ranked_on": split,
        "warning": ON_TEST if split == "test" else None,
        "score": SCORE,
        "seeds": compared,
        "chosen": chosen,
        "points": points,
        "shared": sweep.shared,
    }
    write_text(root / SWEEP, json.dumps(ranking, indent=1, allow_nan=False) + "\n")
    write_text(root / "sweep.log", _as_text(ranking, root))


def _read(root: Path) -> dict[str, Any]:
    """What sweep.json holds; empty if there is none."""
    try:
        return json.loads((root / SWEEP).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{root / SWEEP}: is damaged ({error}); remove it and run again to rank anew") from None


def _scores(folder: Path, split: str) -> dict[int, float]:
    """Seed -> score, of the finished seeds of a point; a damaged file is written again when the point ends."""
    try:
        score = json.loads((folder / "final_score.json").read_text())
        return dict(zip(score["seeds"], score[split][SCORE]["values"], strict=True))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _as_text(ranking: dict[str, Any], root: Path) -> str:
    split, seeds, chosen = ranking["ranked_on"], ranking["seeds"], ranking["chosen"]
    of_seeds = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
    text = f"sweep of {', '.join(ranking['keys'])}: {len(ranking['points'])} points, {of_seeds} each\n"
    text += f"ranked by {SCORE} on {split} data, mean ± std over seeds\n"
    text += f"{ranking['warning']}\n" if ranking["warning"] else ""
    text += f"\nrank {f'{split} {SCORE}':>20}  point\n"
    for rank, point in enumerate(ranking["points"], 1):
        done, failed = point["status"] == "done", ", ".join(map(str, point["failed"]))
        score = plus_minus(point[split]) if done else point["status"]
        text += f"{rank if done else '-':>4} {score:>20}  {point['name']}{failed and f'  (seeds {failed})'}\n"
    if not chosen:
        return f"{text}\nchosen: none: no point is finished\n"
    found = f"test {SCORE}: {plus_minus(chosen['test'])}   (all its scores: {root / chosen['name']})"
    return f"{text}\nchosen: {chosen['name']}\n{found}\n"
