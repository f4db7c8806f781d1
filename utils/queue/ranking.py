"""sweep.json and sweep.log: the points of a sweep, the best first, and the test score of the best alone."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from utils.config.sweep import Sweep
from utils.settings import BadInput
from utils.store.files import write_text
from utils.store.folder import SWEEP, check_same, make_folder
from utils.store.metrics import plus_minus, summary

SCORE = "FinalAccuracy"
"""What points are ranked by."""
ON_TEST = (
    "RANKED ON TEST DATA: the best score is the luckiest too, and says too much; it is not to be compared with "
    "scores of values chosen on dev data (scenario.dev_split)"
)


def check_folder(sweep: Sweep, anew: bool) -> None:
    """Make sure that a sweep's folder is free, will be made anew, or is of the same sweep but for its lists' values.

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
    old = _read(sweep.root)
    if old:
        both = sweep.shared.keys() & old["shared"].keys()
        ours, theirs = ({key: of[key] for key in both} for of in (sweep.shared, old["shared"]))
        ours |= {"sweep": list(sweep.keys), "sweep.rank_by": sweep.rank_by}
        check_same(sweep.root, ours, theirs | {"sweep": old["keys"], "sweep.rank_by": old["ranked_on"]})


def prepare(sweep: Sweep, anew: bool, seeds: Sequence[int]) -> None:
    """Make a sweep's folder, and say in it what it is; `anew`, an older one is moved aside.

    Raises:
        BadInput: it cannot be written.
    """
    before = {} if anew else _read(sweep.root)
    make_folder(sweep.root, anew, SWEEP, _as_json(_ranked(sweep, before, seeds, {})))


def write(sweep: Sweep, seeds: Sequence[int], failed: Collection[tuple[Path, int]]) -> Path:
    """Rank all points that the folder knows, those of earlier lists too, as far as they are finished.

    Args:
        seeds: that are asked for; points are compared on these.
        failed: folder and seed of those that failed.

    Returns:
        sweep.log, for people; sweep.json beside it holds the same.
    """
    by_name: dict[str, list[int]] = {}
    for folder, seed in sorted(failed):
        if folder.parent == sweep.root:
            by_name.setdefault(folder.name, []).append(seed)
    ranking = _ranked(sweep, _read(sweep.root), seeds, by_name)
    write_text(sweep.root / SWEEP, _as_json(ranking))
    write_text(sweep.root / "sweep.log", _as_text(ranking, sweep.root))
    return sweep.root / "sweep.log"


def _read(root: Path) -> dict[str, Any]:
    """What sweep.json holds; nothing if there is none."""
    try:
        return json.loads((root / SWEEP).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{root / SWEEP}: is damaged ({error}); move it away, and the sweep is ranked anew") from None


def _as_json(ranking: dict[str, Any]) -> str:
    return json.dumps(ranking, indent=1, allow_nan=False) + "\n"


def _ranked(sweep: Sweep, before: dict[str, Any], seeds: Sequence[int], failed: dict[str, list[int]]) -> dict[str, Any]:
    known = {point["name"]: point["values"] for point in before.get("points", ())} | sweep.points
    points = []
    for name, values in known.items():
        scores = _scores(sweep.root / name, sweep.rank_by, seeds)
        status = "done" if scores else "failed" if name in failed else "not finished"
        score = {sweep.rank_by: scores and summary(scores)}
        points.append({"name": name, "values": values, "status": status, "failed": failed.get(name, []), **score})
    points.sort(key=lambda point: -point[sweep.rank_by]["mean"] if point["status"] == "done" else 1)  # a stable sort
    chosen = None
    if points[0]["status"] == "done":
        best = {key: points[0][key] for key in ("name", "values")}
        chosen = best | {"test": summary(_scores(sweep.root / best["name"], "test", seeds))}
    return {
        "keys": list(sweep.keys),
        "ranked_on": sweep.rank_by,
        "warning": ON_TEST if sweep.rank_by == "test" else None,
        "score": SCORE,
        "seeds": list(seeds),
        "chosen": chosen,
        "points": points,
        "shared": sweep.shared,
    }


def _scores(folder: Path, split: str, seeds: Sequence[int]) -> list[float] | None:
    """The score of each of the seeds; None if one has none yet."""
    try:
        score = json.loads((folder / "final_score.json").read_text())
    except FileNotFoundError:
        return None
    values = dict(zip(score["seeds"], score[split][SCORE]["values"], strict=True))
    return [values[seed] for seed in seeds] if set(seeds) <= values.keys() else None


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
    lines += ["", "chosen: " + (chosen["name"] if chosen else "none, since no point is finished")]
    if chosen:
        lines.append(f"test {SCORE}: {plus_minus(chosen['test'])}   (all its scores: {root / chosen['name']})")
    return "\n".join(lines) + "\n"
