from datetime import UTC, datetime

import pytest

import scenarios

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def catalogue():
    return scenarios.load()


@pytest.fixture(scope="session")
def now():
    return NOW


@pytest.fixture(scope="session")
def read(catalogue):
    def read(scenario, quantities, at="2026-11-22T08:00:00+08:00"):
        return scenarios.read(catalogue, scenario, at, quantities, NOW)

    return read


@pytest.fixture(scope="session")
def plausible(catalogue):
    """For each behaviour that takes activities: quantities in the middle of what is usual."""

    def value(item):
        return item.classes[0] if item.role == "class" else item.typical[0]

    latest = (catalogue.versions(name)[-1] for name in catalogue.scenarios)
    return {
        version.scenario: {item.name: value(item) for item in version.inputs}
        for version in latest
        if version.enabled
    }
