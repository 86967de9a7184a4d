"""Are the zones those of the ``tzdata`` package, on whatever machine?"""

from __future__ import annotations

import importlib.resources
import itertools
import os
import struct
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratelimit import clock, zone, zone_names
from ratelimit.clocks import STRIDE
from tests.unit.ratelimit_oracle import names, utc

ROOT = Path(__file__).parents[2]


def on_file(name: str) -> list[tuple[int, int, int]]:
    """When an offset changes according to a file of RFC 9636, in Unix seconds, and the offsets before and after."""
    raw = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    isut, isstd, leaps, times, types, chars = struct.unpack(">6l", raw[20:44])
    second = 44 + times * 5 + types * 6 + chars + leaps * 8 + isstd + isut  # the part with 64 bits
    _, _, _, times, types, _ = struct.unpack(">6l", raw[second + 20 : second + 44])
    at = second + 44
    instants = struct.unpack(f">{times}q", raw[at : at + 8 * times])
    indices = raw[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", raw[at + 6 * n : at + 6 * n + 4])[0] for n in range(types)]
    readings = [offsets[0], *(offsets[n] for n in indices)]
    return [
        (instant, readings[n], readings[n + 1]) for n, instant in enumerate(instants) if readings[n] != readings[n + 1]
    ]


def test_the_names_are_the_packages() -> None:
    assert zone_names() == frozenset(names())
    assert {"Asia/Tokyo", "UTC", "US/Eastern", "Pacific/Kiritimati"} <= zone_names()
    assert all(zone(name).key == name for name in zone_names())


@pytest.mark.parametrize("name", ["Asia/Tokyo", "Pacific/Apia", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Gaza"])
def test_the_rules_are_those_of_the_packages_files(name: str) -> None:
    read = on_file(name)
    assert read
    for instant, before, after in read:
        if instant < -(2**31):
            continue  # local mean time, of no calendar that any person keeps
        there = datetime.fromtimestamp(instant, UTC).astimezone(zone(name))
        earlier = (datetime.fromtimestamp(instant, UTC) - timedelta(seconds=1)).astimezone(zone(name))
        assert there.utcoffset() == timedelta(seconds=after)
        assert earlier.utcoffset() == timedelta(seconds=before)


def test_no_zone_changes_its_clocks_twice_within_a_stride() -> None:
    assert len(names()) > 400
    for name in names():
        for (earlier, *_), (later, *_) in itertools.pairwise(on_file(name)):
            assert later - earlier > STRIDE.total_seconds(), name


@pytest.mark.parametrize(
    "name", ["", "../x", "localtime", "posix/UTC", "Europe", "asia/tokyo", "/etc/localtime", "x/y"]
)
def test_what_is_no_zone_of_the_database_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        zone(name)


def test_what_zones_the_machine_has_does_not_matter(tmp_path: Path) -> None:
    bogus = tmp_path / "Asia"
    bogus.mkdir()
    package = importlib.resources.files("tzdata")
    (bogus / "Tokyo").write_bytes(package.joinpath("zoneinfo", "Pacific", "Kiritimati").read_bytes())
    (tmp_path / "Mars").write_bytes(package.joinpath("zoneinfo", "UTC").read_bytes())
    program = """
from datetime import UTC, datetime
from zoneinfo import ZoneInfo
from ratelimit import zone, zone_names
at = datetime(2026, 11, 21, tzinfo=UTC)
print(at.astimezone(ZoneInfo("Asia/Tokyo")).hour, at.astimezone(zone("Asia/Tokyo")).hour, "Mars" in zone_names())
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONTZPATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["14", "9", "False"]  # the machine is fooled, we are not


def test_instants_are_written_as_the_clock_on_a_wall_there_shows_them() -> None:
    assert clock(utc("2026-11-22T23:00"), zone("Asia/Tokyo")) == "08:00 on 2026-11-23 (Asia/Tokyo)"
    assert clock(utc("2026-11-22T23:00:07.9"), zone("Asia/Tokyo")) == "08:00:07 on 2026-11-23 (Asia/Tokyo)"
    assert clock(utc("2026-11-22T23:00"), zone("Asia/Kathmandu")) == "04:45 on 2026-11-23 (Asia/Kathmandu)"
