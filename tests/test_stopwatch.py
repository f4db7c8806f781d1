"""Seconds of a run's parts: inside each other, and over an interruption."""

import itertools

from utils.run import stopwatch


def test_parts_inside_others_and_what_is_not_over_are_counted_once(monkeypatch):
    ticks = itertools.count()  # every look at the clock is a second later
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    watch = stopwatch.Stopwatch("whole", "part", "never")
    with watch.timing("whole"):  # begins at 0
        with watch.timing("part"):  # 1 to 2
            pass
        assert watch.so_far() == {"whole": 3, "part": 1, "never": 0}  # a look at 3
        with watch.timing("part"):  # 4 to 5
            pass
    assert watch.seconds == watch.so_far() == {"whole": 6, "part": 2, "never": 0}
    later = stopwatch.Stopwatch("whole", "part", "never")
    later.seconds.update(watch.so_far())
    with later.timing("whole"):
        pass
    assert later.seconds["whole"] == 7
