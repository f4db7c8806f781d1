"""sweep.json and sweep.log: the points of a sweep, best first, and the test score of the best point alone."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.config.sweep import Sweep
from utils.settings import BadInput
from utils.store.files import write_text
from utils.store.folder import SWEEP, check_same, make_folder
from utils.store.metrics import plus_minus, summary

SCORE = "FinalAccuracy"
"""Points are ranked by this score."""
ON_TEST = (
    "RANKED ON TEST DATA: the best score is biased upwards by the selection; do not compare it with scores of values "
    "chosen on dev data (scenario.dev_split)"
)


def check_folder(sweep: Sweep, anew: bool) -> None:
    """Make sure that a sweep's folder is new, is started `anew`, or is of the same sweep, perhaps with other values.

    Raises:
        BadInput: it holds something else.
    """
    if anew:
        return
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


def prepare(sweep: Sweep, anew: bool, seeds: Sequence[int]) -> None:
    """Make a sweep's folder with its sweep.json; with `anew`, an existing one is moved aside.

    Raises:
        OSError: it cannot be written.
    """
    make_folder(sweep.root, anew, SWEEP, _as_json(_ranked(sweep, {} if anew else _read(sweep.root), seeds, {})))


def write(sweep: Sweep, seeds: Sequence[int], failed: Collection[tuple[Path, int]]) -> None:
    """Rank all points in the folder, those of earlier lists too, and write sweep.json and sweep.log.

    Args:
        seeds: the seeds asked for. Points are compared on these, and on those that other commands are through with.
        failed: (point's folder, seed) of each seed that failed.
    """
    by_name = {name: sorted(s for folder, s in failed if folder == sweep.root / name) for name in sweep.points}
    ranking = _ranked(sweep, _read(sweep.root), seeds, by_name)
    write_text(sweep.root / SWEEP, _as_json(ranking))
    write_text(sweep.root / "sweep.log", _as_text(ranking, sweep.root))


def _read(root: Path) -> dict[str, Any]:
    """What sweep.json holds; empty if there is none."""
    try:
        return json.loads((root / SWEEP).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{root / SWEEP}: is damaged ({error}); remove it and run again to rank anew") from None


def _as_json(ranking: dict[str, Any]) -> str:
    return json.dumps(ranking, indent=1, allow_nan=False) + "\n"


def _ranked(
    sweep: Sweep, before: dict[str, Any], asked: Sequence[int], failed: Mapping[str, list[int]]
) -> dict[str, Any]:
    """What sweep.json holds; `before` is what it held, `failed` has the seeds asked for that failed, by point."""
    old = {point["name"]: point for point in before.get("points", ())}
    known = {name: point["values"] for name, point in old.items()} | sweep.points
    scores = {name: _scores(sweep.root / name, sweep.rank_by) for name in known}
    lost = {name: {s for s in old.get(name, {}).get("failed", ()) if s not in asked} for name in known}
    lost = {name: (seeds | set(failed.get(name, ()))) - scores[name].keys() for name, seeds in lost.items()}
    ended = set.intersection(*(scores[name].keys() | lost[name] for name in sweep.points))
    compared = sorted({*asked, *(ended & set().union(*scores.values()))})
    points = []
    for name, values in known.items():
        complete = scores[name].keys() >= set(compared)
        status = "done" if complete else "failed" if lost[name] else "not finished"
        score = {sweep.rank_by: summary([scores[name][seed] for seed in compared]) if complete else None}
        points.append({"name": name, "values": values, "status": status, "failed": sorted(lost[name]), **score})
    points.sort(key=lambda point: -point[sweep.rank_by]["mean"] if point["status"] == "done" else 1)  # a stable sort
    chosen = None
    if points[0]["status"] == "done":
        best = {key: points[0][key] for key in ("name", "values")}
        test = _scores(sweep.root / best["name"], "test")
        chosen = best | {"test": summary([test[seed] for seed in compared])}
    return {
        "keys": list(sweep.keys),
        "ranked_on": sweep.rank_by,
        "warning": ON_TEST if sweep.rank_by == "test" else None,
        "score": SCORE,
        "seeds": compared,
        "chosen": chosen,
        "points": points,
        "shared": sweep.shared,
    }


def _scores(folder: Path, split: str) -> dict[int, float]:
    """Seed -> score, of the finished seeds of a point."""
    try:
        score = json.loads((folder / "final_score.json").read_text())
    except FileNotFoundError:
        return {}
    return dict(zip(score["seeds"], score[split][SCORE]["values"], strict=True))


def _as_text(ranking: dict[str, Any], root: Path) -> str:
    split, seeds, chosen = ranking["ranked_on"], ranking["seeds"], ranking["chosen"]
    lines = [
        f"sweep of {', '.join(ranking['keys'])}: {len(ranking['points'])} points, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))}) each",
        f"ranked by {SCORE} on {split} data, mean ± std over seeds",
        *([ranking["warning"]] if ranking["warning"] else []),
        "",
        f"rank {f'{split} {SCORE}':>20}  point",
    ]
    for rank, point in enumerate(ranking["points"], 1):
        done, failed = point["status"] == "done", point["failed"]
        score = plus_minus(point[split]) if done else point["status"]
        which = f"  (seeds {', '.join(map(str, failed))})" if failed else ""
        lines.append(f"{rank if done else '-':>4} {score:>20}  {point['name']}{which}")
    lines += ["", "chosen: " + (chosen["name"] if chosen else "none: no point is finished")]
    if chosen:
        lines.append(f"test {SCORE}: {plus_minus(chosen['test'])}   (all its scores: {root / chosen['name']})")
    return "\n".join(lines) + "\n"
