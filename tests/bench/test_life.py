from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from app.application import create_app
from app.flows.check import check_database
from app.flows.export import export_log
from bench import life
from bench.charges import open_shop
from bench.stage import stage
from ledger.audit import audit


def test_a_life_that_was_loaded_is_a_legal_ledger_whose_audit_holds() -> None:
    with stage(3) as made:
        with made.engine.begin() as tx:
            shop = open_shop(tx, made, 0, made.now())
        city = life.City(made, [shop], create_app(made.config).test_client())
        life.live(city, 600, timedelta(days=20), "city")
        assert not list(check_database(made.engine, made.vault))
        folder = made.config.data_dir / "export"
        export_log(made.engine, made.vault, folder, openings=True)
        report = audit(folder)
        with made.engine.connect() as tx:
            charged, billed, redeemed = (
                tx.execute(text(query)).scalar_one()
                for query in (
                    "SELECT coalesce(sum(points), 0) FROM charges WHERE state = 'succeeded'",
                    "SELECT coalesce(sum(points), 0) FROM bill_lines",
                    "SELECT coalesce(sum(amount), 0) FROM postings WHERE account_kind = 13",
                )
            )
    assert city.lived == 600
    assert (report.recomputed, report.missing) == (600, 0)
    assert charged == billed == redeemed > 0
