"""How an activity becomes a reduction in mg and points; pure, and knowing nothing of accounts."""

from scenarios.activity import SHANGHAI, Activity, check_claim, measure, read, read_time
from scenarios.catalogue import Catalogue
from scenarios.errors import Fault, Rejected, ScenarioError
from scenarios.limits import Claimed, Key, Usage, claim, needs, undo
from scenarios.loading import grid, load
from scenarios.reduction import Reduction, Workings, quantify
from scenarios.replay import Claim, Replay, opening
from scenarios.version import AREAS, Version

__all__ = [
    "AREAS",
    "SHANGHAI",
    "Activity",
    "Catalogue",
    "Claim",
    "Claimed",
    "Fault",
    "Key",
    "Reduction",
    "Rejected",
    "Replay",
    "ScenarioError",
    "Usage",
    "Version",
    "Workings",
    "check_claim",
    "claim",
    "grid",
    "load",
    "measure",
    "needs",
    "opening",
    "quantify",
    "read",
    "read_time",
    "undo",
]
