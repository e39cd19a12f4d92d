from pathlib import Path

from ledger.export import Export, Leaves
from ledger.replay import Seen


def seen() -> Seen:
    return Seen(Leaves(Export(Path("nowhere")), 0))


def test_an_id_is_found_at_its_leaf() -> None:
    ids = seen()
    keys = [number.to_bytes(16) for number in range(500)]
    for key in keys:
        assert ids.leaf(key) is None
        ids.add(key)
    assert [ids.leaf(key) for key in keys] == list(range(500))
    assert len(ids) == 500


def test_an_id_that_only_two_rows_together_spell_is_not_there_until_it_is() -> None:
    ids = seen()
    first = bytes(16)
    second = bytes(2) + b"\x01" * 14
    ids.add(first)
    ids.add(second)
    across = (first + bytes(6) + second)[14:30]
    assert across not in (first, second)
    assert ids.leaf(across) is None
    ids.add(across)
    assert ids.leaf(across) == 2
    assert (ids.leaf(first), ids.leaf(second)) == (0, 1)
