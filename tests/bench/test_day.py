"""The day of a small city, as the day of a large one is measured."""

from __future__ import annotations

from bench import day


def test_all_of_a_day_comes_in(capfd):
    day.main(60, reads=True)
    said = capfd.readouterr().err
    assert "600 of 600 activities of 60 people accepted" in said
    assert "22:00" in said
    assert "99th percentile" in said
