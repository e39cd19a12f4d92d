import random
from collections.abc import Iterator
from contextlib import closing
from tempfile import TemporaryFile

import pytest

from ledger import ids as module
from ledger.ids import Ids


@pytest.fixture(params=[7, 1 << 20])
def ids(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ids]:
    """Ids that go to disk often, or never."""
    monkeypatch.setattr(module, "SPILL", request.param)
    with closing(Ids()) as ids:
        yield ids


def again(ids: Ids) -> Ids:
    """The ids as another run reads them."""
    file = TemporaryFile()  # noqa: SIM115  (the ids lie in it)
    file.write(b"before" + b"".join(ids.write()))
    file.seek(len(b"before"))
    return Ids.read(file)


def test_an_id_is_found_at_its_leaf(ids: Ids) -> None:
    draw = random.Random(1)
    keys = [bytes(draw.choices((0, 1), k=2)) + draw.randbytes(14) for _ in range(100)]
    for key in keys:
        assert ids.leaf(key) is None
        ids.add(key)
    assert [ids.leaf(key) for key in keys] == list(range(100))
    with closing(again(ids)) as kept:
        assert kept.count == 100
        for key in keys[:3]:
            kept.add(key[::-1])
        assert [kept.leaf(key) for key in keys] == list(range(100))
        assert [kept.leaf(key[::-1]) for key in keys[:4]] == [100, 101, 102, None]


def test_an_id_that_only_two_records_together_spell_is_not_there_until_it_is(ids: Ids) -> None:
    first = bytes(16)
    second = bytes(2) + b"\x01" * 14
    ids.add(first)
    ids.add(second)
    across = (first + bytes(6) + second)[14:30]
    assert across not in (first, second)
    assert ids.leaf(across) is None
    assert ids.twice() is None
    ids.add(across)
    assert ids.leaf(across) == 2
    assert (ids.leaf(first), ids.leaf(second)) == (0, 1)
    assert ids.twice() is None


@pytest.mark.parametrize("before", [0, 5, 20])
def test_the_first_leaf_whose_id_was_used_is_found_wherever_the_other_lies(
    ids: Ids, before: int
) -> None:
    keys = [number.to_bytes(16) for number in range(40)]
    for key in keys[:before]:
        ids.add(key)
    assert ids.twice() is None
    with closing(again(ids)) as kept:
        for key in keys[before:]:
            kept.add(key)
        assert kept.twice() is None
        for key in (keys[30], keys[2], keys[2]):
            kept.add(key)
        assert kept.twice() == 40
