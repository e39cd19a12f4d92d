from datetime import UTC, datetime

import pytest

import scenarios

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
MORE = ("baseline", "reference", "own_average")


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
        if item.role == "exclusion":
            return "no"
        return item.typical[item.role in MORE] if item.numeric else item.classes[0]

    latest = (catalogue.versions(name)[-1] for name in catalogue.scenarios)
    return {
        version.scenario: {item.name: value(item) for item in version.inputs}
        for version in latest
        if version.enabled
    }


def phrase(words):
    return {"zh": "中文", "en": words}


def coefficient(name="factor", value="250", unit="g/km", **changes):
    return {
        "name": name,
        "title": phrase(name),
        "value": value,
        "unit": unit,
        "bounds": [value, value] if value else [],
        "year": 2022,
        "source": "a report",
        "url": "",
        "tag": "S",
        "confidence": "B",
        **changes,
    }


def quantity(name="distance_km", role="quantity", unit="km", **changes):
    return {
        "name": name,
        "role": role,
        "title": phrase(name),
        "unit": unit,
        "decimals": 3,
        "minimum": "0",
        "maximum": "100",
        "basis": "rec: for these tests",
        **changes,
    }


@pytest.fixture(scope="session")
def parts():
    """Tables to build editions from: phrase, coefficient, quantity."""
    return phrase, coefficient, quantity


@pytest.fixture(scope="session")
def document():
    """The tables of an edition of 250 g a km without caps, with changes; None takes a field away.

    A scenario's name alone is enough: travel.one, travel.two …
    """
    rate = {
        "number": 1,
        "effective_from": "2018-01-01",
        "points_per_kg": 1000,
        "validity_months": 120,
        "sources": [{"source": "a report", "url": "", "tag": "S"}],
    }

    def document(scenario="travel.one", **changes):
        tables = {
            "format": 2,
            "scenario": scenario,
            "code": scenario.upper().replace(".", "_"),
            "number": 1,
            "effective_from": "2018-01-01",
            "confidence": "B",
            "title": phrase("Riding"),
            "eligibility": phrase("Every ride once."),
            "evidence": {"kind": "record", **phrase("The order."), "tag": "rec"},
            "consent": phrase("How far you rode is sent."),
            "sensitive": [],
            "formula": "per_unit",
            "inputs": [quantity()],
            "coefficients": [coefficient()],
            "caps": [],
            "rate": rate,
            **changes,
        }
        return {name: value for name, value in tables.items() if value is not None}

    return document


@pytest.fixture(scope="session")
def edition(document):
    """An edition built from `document`."""

    def edition(scenario="travel.one", **changes):
        return scenarios.Version.parse(document(scenario, **changes))

    return edition
