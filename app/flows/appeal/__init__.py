"""Appeals: a resident disputes, a reviewer answers, and if nobody does in time, the worker grants.

    open ──ask──▶ asked ──answer──▶ open          the city's time stands still while it is asked
    open, asked ──▶ granted | refused             by a reviewer, with a reason
    open, asked ──▶ withdrawn                     by the resident, or unanswered for too long
    open ──▶ granted_in_time                      by the worker, after due_at, within the limits

What was said is sealed under the resident's own key. Points come by an ordinary adjust entry out
of the scenario's budget, which names the appeal and nobody. All that is locked is locked in
everybody's order: the resident, the appeal, counters, the budget.
"""
