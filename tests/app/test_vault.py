"""The hashes by which a database knows requests, people and acts again, for as long as it lives."""

from __future__ import annotations

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from app.vault import Vault

VAULT = Vault(None, *(bytes([n]) * 32 for n in range(5)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(TEXTS, TEXTS)
def test_a_keyed_hash_is_that_of_the_scope_a_nul_and_the_rest(scope: str, rest: str) -> None:
    whole = f"{scope}\0{rest}".encode()
    entry_id = blake2b(whole, key=VAULT.ids, digest_size=16).hexdigest()
    subject = blake2b(whole, key=VAULT.subjects, digest_size=32).digest()
    assert (VAULT.entry_id(scope, rest), VAULT.subject(scope, rest)) == (entry_id, subject)
