"""From an operator's ride file to activities: columns, times, distances, and what is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app.cli import puhui
from app.cli.mapping import DEFAULT, MappingError, read_mapping
from app.cli.ride_file import RideFileError, open_rides
from app.cli.rides import EARTH_RADIUS_KM, REFUSALS, Reader, RowError, great_circle_km
from app.cli.tally import Tally

NEW_YORK = ZoneInfo("America/New_York")
HEADER = (
    "trip_id,rider_ref,bike_id,started_at,ended_at,start_lat,start_lng,end_lat,end_lng,duration_s"
)
RIDE = {
    "trip_id": "t-1",
    "rider_ref": "r-1",
    "bike_id": "7",
    "started_at": "2018-01-01 08:00:00",
    "ended_at": "2018-01-01 08:10:00",
    "start_lat": "40.0",
    "start_lng": "-74.0",
    "end_lat": "40.01",
    "end_lng": "-74.0",
    "duration_s": "600",
}
EXAMPLE = DEFAULT.read_text()


@pytest.fixture(scope="module")
def read():
    return Reader(read_mapping(), NEW_YORK)


def refusal(read, **changes):
    with pytest.raises(RowError) as refused:
        read.activity(RIDE | changes)
    return refused.value.code


def test_a_plausible_row_is_an_activity_with_its_moment_and_its_distance(read):
    assert read.activity(RIDE) == {
        "id": "t-1",
        "subject": "r-1",
        "scenario": "travel.bike_shared",
        "occurred_at": "2018-01-01T13:00:00+00:00",
        "quantities": {"distance_km": "1.111", "duration_s": "600"},  # 0.01° of 111.195 km
    }


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("ROW_MALFORMED", {"trip_id": ""}),
        ("ROW_MALFORMED", {"rider_ref": "  "}),
        ("ROW_MALFORMED", {"rider_ref": "r\ufffd"}),
        ("ROW_MALFORMED", {"start_lat": "north"}),
        ("ROW_MALFORMED", {"start_lat": "nan"}),
        ("ROW_MALFORMED", {"end_lng": "inf"}),
        ("ROW_MALFORMED", {"end_lat": "90.1"}),
        ("ROW_MALFORMED", {"start_lng": "-180.5"}),
        ("ROW_MALFORMED", {"duration_s": "1e999"}),
        ("TIME_MALFORMED", {"started_at": "yesterday"}),
        ("TIME_MALFORMED", {"started_at": "2018-02-30 08:00:00"}),
        ("TIME_MALFORMED", {"ended_at": "9999-12-31 23:59:59"}),
        ("TIME_NOT_IN_ZONE", {"started_at": "2018-03-11 02:30:00"}),
        ("ENDS_BEFORE_START", {"ended_at": "2018-01-01 07:59:59"}),
        ("DURATION_CONTRADICTED", {"duration_s": "900"}),
        ("DURATION_TOO_SHORT", {"ended_at": "2018-01-01 08:00:59", "duration_s": "59"}),
        ("DURATION_TOO_LONG", {"ended_at": "2018-01-01 12:00:01", "duration_s": "14401"}),
        ("DISTANCE_TOO_SHORT", {"end_lat": "40.0"}),
        ("DISTANCE_TOO_SHORT", {"end_lat": "40.0008"}),
        ("SPEED_TOO_HIGH", {"end_lat": "40.05"}),
        (
            "DISTANCE_TOO_LONG",
            {"end_lat": "40.5", "ended_at": "2018-01-01 11:00:00", "duration_s": "10800"},
        ),
    ],
)
def test_what_is_no_plausible_ride_is_refused_with_its_reason(read, code, changes):
    assert refusal(read, **changes) == code
    assert REFUSALS[code]


def test_a_row_that_did_not_read_at_all_is_refused(read):
    with pytest.raises(RowError) as refused:
        read.activity({})
    assert refused.value.code == "ROW_MALFORMED"


def test_a_time_that_the_clock_showed_twice_is_the_earlier_one(read):
    twice = {"started_at": "2018-11-04 01:30:00", "ended_at": "2018-11-04 01:40:00"}
    assert read.activity(RIDE | twice)["occurred_at"] == "2018-11-04T05:30:00+00:00"


def test_unless_only_the_later_one_agrees_with_the_end_and_the_duration(read):
    over = {"started_at": "2018-11-04 01:55:00", "ended_at": "2018-11-04 02:05:00"}
    assert read.activity(RIDE | over)["occurred_at"] == "2018-11-04T06:55:00+00:00"
    back = {"started_at": "2018-11-04 01:55:00", "ended_at": "2018-11-04 01:05:00"}
    assert read.activity(RIDE | back)["occurred_at"] == "2018-11-04T05:55:00+00:00"


ANGLES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(ANGLES, ANGLES)
def test_a_distance_is_the_straight_way_over_the_sphere_and_never_longer(start, end):
    def vector(point):
        lat, lng = map(math.radians, point)
        return math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)

    a, b = vector(start), vector(end)
    apart = math.dist(a, b)  # the chord and its supplement: another way to the same angle
    straight = EARTH_RADIUS_KM * 2 * math.atan2(apart, math.dist(a, [-x for x in b]))
    told = float(great_circle_km(start, end, 3))
    assert straight - 0.001 - 1e-6 <= told <= straight + 1e-6


def test_a_distance_is_rounded_down():
    assert f"{great_circle_km((0, 0), (0, 1), 3):f}" == "111.195"  # 111.19508
    assert f"{great_circle_km((0, 0), (0, 0.018), 3):f}" == "2.001"  # 2.00151
    assert f"{great_circle_km((0, 0), (0, 0.018), 1):f}" == "2.0"


def test_another_operators_columns_and_times_are_a_mapping_away(tmp_path):
    other = tmp_path / "other.toml"
    changed = EXAMPLE.replace('"trip_id"', '"编号"').replace(
        '"%Y-%m-%d %H:%M:%S"', '"%d/%m/%Y %H:%M %z"'
    )
    other.write_text("\n".join(x for x in changed.splitlines() if "duration_s =" not in x[:13]))
    read = Reader(read_mapping(other), NEW_YORK)
    row = {**RIDE, "编号": "甲-1"}
    row |= {"started_at": "01/02/2018 08:00 +0800", "ended_at": "01/02/2018 08:10 +0800"}
    del row["trip_id"], row["duration_s"]
    activity = read.activity(row)
    assert activity["id"] == "甲-1"
    assert activity["occurred_at"] == "2018-02-01T00:00:00+00:00"
    assert refusal(read, **row | {"ended_at": "01/02/2018 08:00 +0800"}) == "DURATION_TOO_SHORT"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("quantity =", "kuantity =", "kuantity"),
        ('rider = "rider_ref"', "", "columns.rider"),
        ("\n[columns]", '\n[columns]\nbike = "bike_id"', "columns.bike"),
        ("max_speed_kmh = 30", "max_speed_kmh = nan", "bounds.max_speed_kmh"),
        ("min_duration_s = 60", "min_duration_s = 0", "bounds.min_duration_s"),
        ("max_speed_kmh = 30", 'max_speed_kmh = "30"', "bounds.max_speed_kmh"),
        ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d", "time_format"),
        ("travel.bike_shared", "travel.bike_flying", "travel.bike_flying"),
        ('"distance_km"', '"way"', "'way'"),
        ("[columns]", "[columns", "cannot be read"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_refused_by_the_name_of_its_fault(
    tmp_path, old, new, named
):
    path = tmp_path / "mapping.toml"
    path.write_text(EXAMPLE.replace(old, new))
    with pytest.raises(MappingError, match=named):
        read_mapping(path)


def test_rows_are_read_whatever_surrounds_them(tmp_path):
    path = tmp_path / "rides.csv"
    good = ",".join(RIDE.values())
    other = good.replace("r-1", "r-2")
    path.write_bytes(
        b"\xef\xbb\xbf"
        + "\r\n".join(
            [HEADER, good, "", 'x,"y"z' + "," * 8, good + ",more", "a,b", other]
        ).encode()
        + b"\r\nt,\xff" + b"," * 8
    )  # fmt: skip
    rides = open_rides(path, read_mapping().columns)
    assert [row.get("rider_ref") for row in rides.rows()] == [
        "r-1", None, None, None, "r-2", "\ufffd",
    ]  # fmt: skip
    assert list(rides.riders()) == ["r-1", "r-2", "\ufffd"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        (HEADER.replace("end_lat,", ""), "no column 'end_lat'"),
        (HEADER + ",end_lat", "more than one column 'end_lat'"),
    ],
)
def test_a_file_that_holds_no_rides_is_refused_in_a_sentence(tmp_path, content, said):
    path = tmp_path / "rides.csv"
    path.write_text(content)
    with pytest.raises(RideFileError, match=said):
        open_rides(path, read_mapping().columns)


def test_a_tally_puts_every_row_into_exactly_one_outcome():
    tally = Tally(rows=4)
    tally.refuse("SPEED_TOO_HIGH", "too fast")
    accepted = {"outcome": "accepted", "reduction_mg": "5", "points": "2", "waiting_points": "1"}
    tally.add(
        {
            "outcomes": [
                accepted,
                {"outcome": "duplicate"},
                {"outcome": "rejected", "code": "IN_FUTURE", "detail": "later"},
            ]
        }
    )
    assert json.loads(tally.line()) == {
        "rows": 4,
        "accepted": 1,
        "duplicate": 1,
        "unclaimed": 0,
        "rejected": {"IN_FUTURE": 1, "SPEED_TOO_HIGH": 1},
    }
    assert (tally.reduction_mg, tally.points, tally.waiting_points) == (5, 2, 1)
    assert tally.rejected == Counter(IN_FUTURE=1, SPEED_TOO_HIGH=1)


PRODUCTION = {
    "DATABASE_URL": "postgresql://nowhere/x",
    "REDIS_URL": "redis://nowhere",
    "PUHUI_LOG_ORIGIN": "log.example/x",
    "PUHUI_KEYS": "keys",
    "PUHUI_MODE": "production",
}


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        (["--timezone", "Mars/Olympus"], {}, "no time zone 'Mars/Olympus'"),
        (["--timezone", "America"], {}, "no time zone 'America'"),
        (["--timezone", "../etc"], {}, "no time zone"),
        ([], {}, "--timezone"),
        (["--timezone", "UTC"], {}, "is empty"),
        (["--timezone", "UTC", "--key-id", "x"], {}, "belong together"),
        (["--timezone", "UTC", "--provider", "../x"], {}, "--provider"),
        (["--timezone", "UTC", "--enroll"], PRODUCTION, "demo and test mode only"),
        (["--timezone", "UTC"], PRODUCTION, "give --url, --key and --key-id"),
    ],
)
def test_a_command_that_cannot_begin_says_so_and_leaves_with_2(tmp_path, options, environ, said):
    path = tmp_path / "rides.csv"
    path.write_text("")
    environ = {"PUHUI_MODE": "test", "PUHUI_DATA": str(tmp_path / "data")} | environ
    result = CliRunner().invoke(puhui, ["import", "trips", str(path), *options], env=environ)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_leaves_with_2():
    command = ["import", "trips", "no-such-file.csv", "--timezone", "UTC"]
    result = CliRunner().invoke(puhui, command, env={"PUHUI_MODE": "test"})
    assert result.exit_code == 2
    assert "no-such-file.csv" in result.output
