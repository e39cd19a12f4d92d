"""The plain issue: the form nine entries in ten have, written and read in one go.

It credits a reduction and, with points, pays them out of a budget; nothing is repaid. The
pattern is the canonical form itself, so what it takes needs no parsing and no writing again;
whatever it does not take is left to ``Entry.read``, which knows what is wrong with it.
"""

import re
from binascii import hexlify
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


class Grant(NamedTuple):
    """One of them as it is read: mg of CO2e and points go to the resident's wallet."""

    id: str
    resident: str
    terms: Terms
    reduction_mg: int
    points: int
    commitment: str
    awaiting: int
    withheld: int


class Issue(NamedTuple):
    """A plain issue ready to be appended; it offers what an ``Entry`` offers a store. Its id and
    the resident's token are the bytes that a database keeps."""

    key: bytes
    wallet: bytes
    terms: Terms
    reduction_mg: int
    points: int
    data: bytes

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.key.hex()

    @property
    def kind(self) -> Kind:
        """Always an issue."""
        return Kind.ISSUE

    def payload(self) -> bytes:
        """The canonical bytes."""
        return self.data

    def rows(self) -> tuple[Row, ...]:
        """Its postings as a database keeps them."""
        _, wallet, terms, mg, points, _ = self
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
    """What ``transfers.issue`` makes for a resident who owes nothing.

    Raises ``Malformed`` for anything that is no sound issue.
    """
    key, wallet, committed = _bytes(id), _bytes(resident), _bytes(commitment)
    form = _form(terms, at)
    return form.issue(key, wallet, committed, reduction_mg, points, awaiting, withheld)


def _bytes(part: str) -> bytes:
    try:
        made = bytes.fromhex(part)
    except ValueError:
        made = b""
    if made.hex() != part:
        raise Malformed(_UNSOUND)
    return made


class Form:
    """The form of all issues of the same terms and moment, which writes each in a small part of the
    time that ``transfers.issue`` takes.

    The text around what differs from issue to issue passes ``read`` once, and what is put into it
    can only be hex digits of the right number and decimals of few enough digits; so ``read`` takes
    the bytes of each, and what it says of them is known.
    """

    def __init__(self, terms: Terms, at: str) -> None:
        """Raises ``Malformed`` if no issue can have these terms."""
        self._terms, self._at = terms, at
        self._texts: dict[tuple[bool, bool, bool], bytes] = {}
        self._text(terms.budget != "", False, False)

    def issue(
        self,
        key: bytes,
        wallet: bytes,
        commitment: bytes,
        reduction_mg: int,
        points: int,
        awaiting: int,
        withheld: int,
    ) -> Issue:
        """The issue of this id (16 bytes) to this resident (16) with this commitment (32).

        Raises ``Malformed`` for anything that is no sound issue.
        """
        if not (
            len(key) == len(wallet) == 16
            and len(commitment) == 32
            and 0 < reduction_mg < _TOO_MUCH
            and 0 <= points < _TOO_MUCH
            and 0 <= awaiting < _TOO_MUCH
            and 0 <= withheld < _TOO_MUCH
        ):
            raise Malformed(_UNSOUND)
        kind = points > 0, awaiting > 0, withheld > 0
        text, who = self._texts.get(kind) or self._text(*kind), hexlify(wallet)
        due = (awaiting,) if awaiting else ()
        cut = (withheld,) if withheld else ()
        paid = (points, who, points) if points else ()
        carbon = hexlify(key), reduction_mg, who, reduction_mg
        data = text % (*due, hexlify(commitment), *cut, *carbon, *paid)
        return _tuple(Issue, (key, wallet, self._terms, reduction_mg, points, data))

    def _text(self, paid: bool, waits: bool, cut: bool) -> bytes:
        """The text of such issues, with %b and %d for what differs."""
        scenario, version, digest, vintage, budget, bucket = self._terms
        due = f'"awaiting":%d,"budget":"{budget}",' if waits else ""
        lost = ',"withheld":%d' if cut else ""
        pays = (
            f',["budget:{budget}","POINT",0,-%d],["resident:%b","POINT",{bucket},%d]'
            if paid
            else ""
        )
        text = (
            f'{{"at":"{self._at}","detail":{{{due}"commitment":"%b",'
            f'"rule":["{scenario}",{version},"{digest}"]{lost}}},"id":"%b","kind":"issue",'
            f'"postings":[["reduction:{scenario}","CO2E",{vintage},-%d],'
            f'["resident:%b","CO2E",{vintage},%d]{pays}],"v":1}}'
        ).encode()
        token = b"0" * 32
        parts = (*((1,) if waits else ()), b"0" * 64, *((1,) if cut else ()), token, 1, token, 1)
        try:
            sound = read(text % (*parts, *((1, token, 1) if paid else ())))
        except (TypeError, ValueError):  # a % among the terms
            sound = None
        if sound is None:
            raise Malformed("These are not the terms of a plain issue.")
        self._texts[paid, waits, cut] = text
        return text


_form = lru_cache(maxsize=1024)(Form)

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
_UNSOUND = "These are not the parts of a plain issue."

_tuple = tuple.__new__  # the hot path: a named tuple is a tuple


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
    return _tuple(Grant, (entry_id, resident, terms, *amounts, commitment, *waits))


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
