"""The WSGI application: the routes of every audience over one set of parts."""

from __future__ import annotations

from flask import Flask

from app.api import (
    admins,
    appeals,
    backtests,
    belonging,
    bills,
    bindings,
    cases,
    challenges,
    consents,
    drafts,
    joining,
    log,
    login,
    merchant,
    messages,
    ops,
    orders,
    oversight,
    pages,
    partners,
    paying,
    periods,
    places,
    providers,
    public,
    receipts,
    registry,
    reports,
    residents,
    reviews,
    reward_desks,
    rewards,
    rights,
    sandbox,
    settings,
    settlement,
    tills,
    voucher_tills,
    vouchers,
    webhook_desks,
    webhooks,
)
from app.clock import Clock
from app.config import Config
from app.shell import shell


def create_app(config: Config, clock: Clock | None = None) -> Flask:
    """The WSGI application of these settings. Raises ConfigError."""
    app, api = shell(config, clock)
    app.register_blueprint(pages.blp)
    audiences = [
        providers.blp,
        receipts.blp,
        residents.blp,
        rewards.blp,
        orders.blp,
        reward_desks.blp,
        rights.blp,
        reports.blp,
        periods.blp,
        login.blp,
        joining.blp,
        consents.blp,
        bindings.blp,
        admins.blp,
        oversight.blp,
        reviews.blp,
        drafts.blp,
        backtests.blp,
        challenges.blp,
        belonging.blp,
        settings.blp,
        appeals.blp,
        cases.blp,
        messages.blp,
        paying.blp,
        tills.blp,
        vouchers.blp,
        voucher_tills.blp,
        merchant.blp,
        partners.blp,
        places.blp,
        bills.blp,
        settlement.blp,
        public.blp,
        registry.blp,
        log.blp,
        webhooks.blp,
        webhook_desks.blp,
        ops.blp,
    ]
    for blueprint in audiences + ([sandbox.blp] if config.sandbox else []):
        api.register_blueprint(blueprint)
    return app
