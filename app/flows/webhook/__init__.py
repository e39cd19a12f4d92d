"""Webhooks out: what happened to a merchant's points, told to endpoints that it proved its own.

    emit ─────────────▶ event ──spread──▶ delivery: waiting ──▶ delivered
    tell (bill lines) ──▶                            │  ▲
                                                     ▼  └─ replay
                                                    dead

An event is written once, in the transaction of what it tells or after that was sealed; a delivery
is one event on its way to one endpoint, at least once, in no promised order. Nothing in a body is
about a person. Only the worker ever calls out, and only to addresses of the public Internet.
"""
