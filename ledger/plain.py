"""The plain issue: the form nine entries in ten have, written and read in one go.

It credits a reduction and, with points, pays them out of a budget; nothing is repaid. The
pattern is the canonical form itself, so what it takes needs no parsing and no writing again;
whatever it does not take is left to ``Entry.read``, which knows what is wrong with it.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from ledger.accounts import Account, AccountKind, Asset, is_scenario
from ledger.buckets import is_bucket
from ledger.entries import Kind, Row, is_instant
from ledger.errors import Malformed

_REDUCTION, _RESIDENT = AccountKind.REDUCTION.code, AccountKind.RESIDENT.code
_BUDGET = AccountKind.BUDGET.code
_CO2E, _POINT = Asset.CO2E.code, Asset.POINT.code


class Terms(NamedTuple):
    """What many issues have in common; ``budget`` is "" and ``bucket`` 0 if there are no points."""

    scenario: str
    version: int
    digest: str
    vintage: int
    budget: str
    bucket: int


class Plain(NamedTuple):
    """What a book needs of one of them: mg of CO2e and points go to the resident's wallet."""

    id: str
    resident: str
    terms: Terms
    reduction_mg: int
    points: int


class Grant(NamedTuple):
    """One of them as it is read: what ``Plain`` has, and what its opening is held against."""

    id: str
    resident: str
    terms: Terms
    reduction_mg: int
    points: int
    commitment: str
    awaiting: int
    withheld: int


class Issue(NamedTuple):
    """A plain issue ready to be appended; it offers what an ``Entry`` offers a store."""

    plain: Plain
    data: bytes

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.plain.id

    @property
    def kind(self) -> Kind:
        """Always an issue."""
        return Kind.ISSUE

    def payload(self) -> bytes:
        """The canonical bytes."""
        return self.data

    def rows(self) -> tuple[Row, ...]:
        """Its postings as a database keeps them."""
        _, resident, terms, mg, points = self.plain
        wallet = bytes.fromhex(resident)
        carbon = (
            (-mg, _source(terms.scenario), terms.vintage, _REDUCTION, _CO2E),
            (mg, wallet, terms.vintage, _RESIDENT, _CO2E),
        )
        if not points:
            return carbon
        return (
            *carbon,
            (-points, bytes.fromhex(terms.budget), 0, _BUDGET, _POINT),
            (points, wallet, terms.bucket, _RESIDENT, _POINT),
        )


def write(
    terms: Terms,
    *,
    id: str,
    at: str,
    resident: str,
    commitment: str,
    reduction_mg: int,
    points: int = 0,
    awaiting: int = 0,
    withheld: int = 0,
) -> Issue:
    """What ``transfers.issue`` makes for a resident who owes nothing, in a sixth of the time.

    The text around what differs from issue to issue passes ``read`` once for all that share it,
    and the parts are held to its pattern one by one; so ``read`` takes the bytes of each, and what
    it says of them is known. Raises ``Malformed`` for anything that is no sound issue.
    """
    form, known = _form(terms, at, points > 0, awaiting, withheld)
    if not (
        _parts(f"{id},{resident},{commitment}")
        and 0 < reduction_mg < _TOO_MUCH
        and 0 <= points < _TOO_MUCH
    ):
        raise Malformed("These are not the parts of a plain issue.")
    paid = (points, resident, points) if points else ()
    data = form % (commitment, id, reduction_mg, resident, reduction_mg, *paid)
    made = _plain(Plain, (id, resident, known, reduction_mg, points))
    return _plain(Issue, (made, data.encode()))


@lru_cache(maxsize=4096)
def _form(terms: Terms, at: str, paid: bool, awaiting: int, withheld: int) -> tuple[str, Terms]:
    """The text of such issues, with %s and %d for its parts; the terms as ``read`` finds them."""
    scenario, version, digest, vintage, budget, bucket = terms
    waits = f'"awaiting":{awaiting},"budget":"{budget}",' if awaiting else ""
    lost = f',"withheld":{withheld}' if withheld else ""
    pays = f',["budget:{budget}","POINT",0,-%d],["resident:%s","POINT",{bucket},%d]' if paid else ""
    form = (
        f'{{"at":"{at}","detail":{{{waits}"commitment":"%s",'
        f'"rule":["{scenario}",{version},"{digest}"]{lost}}},"id":"%s","kind":"issue",'
        f'"postings":[["reduction:{scenario}","CO2E",{vintage},-%d],'
        f'["resident:%s","CO2E",{vintage},%d]{pays}],"v":1}}'
    )
    token, parts = "0" * 32, (1, "0" * 32, 1) if paid else ()
    try:
        made = read((form % ("0" * 64, token, 1, token, 1, *parts)).encode())
    except (TypeError, ValueError):  # a % among the terms
        made = None
    if made is None:
        raise Malformed("These are not the terms of a plain issue.")
    return form, made.terms


# Fewer digits than MAX_INT and MAX_VERSION have: larger numbers are Entry.read's.
_FORM = (
    r'\{"at":"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})'
    r'T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z","detail":\{'
    r'(?:"awaiting":(?P<awaiting>AMOUNT),"budget":"TOKEN",)?"commitment":"(?P<commitment>DIGEST)",'
    r'"rule":\["(?P<scenario>[a-z0-9_.]+)",(?P<version>[1-9][0-9]{0,5}),"(?P<digest>DIGEST)"\]'
    r'(?:,"withheld":(?P<withheld>AMOUNT))?\},"id":"(?P<id>TOKEN)","kind":"issue","postings":\['
    r'\["reduction:(?P=scenario)","CO2E",(?P<vintage>[1-9][0-9]{3}),-(?P<mg>AMOUNT)\],'
    r'\["resident:(?P<resident>TOKEN)","CO2E",(?P=vintage),(?P=mg)\]'
    r'(?(awaiting)|(?:,\["budget:(?P<budget>TOKEN)","POINT",0,-(?P<points>AMOUNT)\],'
    r'\["resident:(?P=resident)","POINT",(?P<bucket>[1-9][0-9]{7}),(?P=points)\])?)\],"v":1\}'
)
_match = re.compile(
    _FORM.replace("AMOUNT", "[1-9][0-9]{0,14}")
    .replace("TOKEN", "[0-9a-f]{32}")
    .replace("DIGEST", "[0-9a-f]{64}")
).fullmatch

_TOO_MUCH = 10**15  # the first amount with more digits than the pattern takes
_parts = re.compile(r"[0-9a-f]{32},[0-9a-f]{32},[0-9a-f]{64}").fullmatch

_plain = tuple.__new__  # the hot path: a named tuple is a tuple


def read(payload: bytes) -> Grant | None:
    """The plain issue of a payload ``Entry.read`` would take too; None if it is anything else."""
    form = _match(payload.decode("latin-1"))  # one character a byte; the form is ASCII
    if form is None:
        return None
    (
        day, awaiting, commitment, scenario, version, digest, withheld,
        entry_id, vintage, mg, resident, budget, points, bucket,
    ) = form.groups()  # fmt: skip
    terms = _terms(day, scenario, version, digest, vintage, budget, bucket)
    if terms is None:
        return None
    amounts = int(mg), int(points or 0)
    waits = int(awaiting or 0), int(withheld or 0)
    return _plain(Grant, (entry_id, resident, terms, *amounts, commitment, *waits))


@lru_cache(maxsize=4096)
def _terms(
    day: str,
    scenario: str,
    version: str,
    digest: str,
    vintage: str,
    budget: str | None,
    bucket: str | None,
) -> Terms | None:
    wallet, expires = AccountKind.RESIDENT, int(bucket or 0)
    if (
        is_instant(f"{day}T00:00:00.000Z")
        and is_scenario(scenario)
        and is_bucket(wallet, Asset.CO2E, int(vintage))
        and (bucket is None or is_bucket(wallet, Asset.POINT, expires))
    ):
        return Terms(scenario, int(version), digest, int(vintage), budget or "", expires)
    return None


@lru_cache(maxsize=1024)
def _source(scenario: str) -> bytes:
    return Account(AccountKind.REDUCTION, scenario).key
