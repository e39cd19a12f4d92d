"""What the ledger says no with: one sentence for people, one stable code for programs."""

# ruff: noqa: N818  (these are read where they are raised: `raise Unbalanced(...)` needs no suffix)


class LedgerError(Exception):
    """Base of every refusal in this package; ``code`` is stable, the message is a sentence."""

    code = "LEDGER"


class Malformed(LedgerError):
    """Bytes or a value are not of the required form."""

    code = "MALFORMED"


class Unverified(LedgerError):
    """A signature, a proof or a root does not hold."""

    code = "UNVERIFIED"


class Unbalanced(LedgerError):
    """The postings of an entry do not sum to zero."""

    code = "UNBALANCED"


class Insufficient(LedgerError):
    """An account holds less than an entry would take from it."""

    code = "INSUFFICIENT"


class Exhausted(Insufficient):
    """A merchant's allowance is less than a redemption would take from it."""

    code = "EXHAUSTED"


class Refused(LedgerError):
    """An entry is well formed, but the book as it stands cannot take it."""

    code = "REFUSED"
