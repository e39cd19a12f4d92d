"""For residents: challenges, badges, and rankings for those who want them."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.admins import DoneSchema
from app.api.challenges import GoalSchema, face
from app.api.wire import Blueprint, Pattern, answer, answer_once, calendar_day, stamp
from app.auth import resident
from app.errors import Problem
from app.flows import badges, challenge, friendship, ranking
from app.flows.challenge import Progress
from app.flows.ranking import Ranking, Rankings, Row
from app.flows.standing import standing
from app.store import friends
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")

blp = Blueprint(
    "belonging",
    __name__,
    url_prefix="/api/v1/me",
    description="参与：挑战、徽章、排行、好友。Challenges, badges, rankings and friends.",
)


class ProgressSchema(ma.Schema):
    """A challenge and how far one has come, in the goal's unit; null for who did not join."""

    id = ma.fields.String(required=True)
    month = ma.fields.String(required=True, metadata={"description": "YYYY-MM"})
    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    goal = ma.fields.Nested(GoalSchema, required=True)
    joined = ma.fields.Boolean(required=True)
    done = ma.fields.String(required=True, allow_none=True)
    reached_on = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"format": "date", "description": "the day on which it was enough"},
    )


class MyChallengesSchema(ma.Schema):
    """The challenges that are open."""

    items = ma.fields.List(ma.fields.Nested(ProgressSchema), required=True)


class BadgeSchema(ma.Schema):
    """A badge, and on which day it was earned, if it was."""

    code = ma.fields.String(required=True, metadata={"example": "first.travel"})
    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    for_zh = ma.fields.String(required=True)
    earned_on = ma.fields.String(required=True, allow_none=True, metadata={"format": "date"})


class BadgesSchema(ma.Schema):
    """Every badge there is."""

    items = ma.fields.List(ma.fields.Nested(BadgeSchema), required=True)


class NicknameSchema(ma.Schema):
    """The name to be seen under."""

    nickname = ma.fields.String(required=True, validate=ma.validate.Length(1, 200))


class InRankingsSchema(ma.Schema):
    """Whether one is shown in rankings, and under which name."""

    joined = ma.fields.Boolean(required=True)
    nickname = ma.fields.String(required=True, allow_none=True)


class RankRowSchema(ma.Schema):
    """One line of a ranking. Ties share a rank; the next one is as much lower."""

    rank = ma.fields.Integer(required=True, allow_none=True)
    nickname = ma.fields.String(required=True)
    reduction_mg = ma.fields.String(required=True)
    me = ma.fields.Boolean(required=True)


class RankingSchema(ma.Schema):
    """This month's ranking. With fewer than ten people there are no ranks (`too_few`): friends are
    then listed by nickname, a district not at all."""

    of = ma.fields.String(required=True)
    month = ma.fields.String(required=True, metadata={"description": "YYYY-MM"})
    joined = ma.fields.Boolean(required=True)
    too_few = ma.fields.Boolean(required=True)
    people = ma.fields.Integer(required=True, allow_none=True)
    mine = ma.fields.Nested(RankRowSchema, required=True, allow_none=True)
    items = ma.fields.List(ma.fields.Nested(RankRowSchema), required=True)


class RankingArgs(ma.Schema):
    """Among whom."""

    of = ma.fields.String(
        load_default="district", validate=ma.validate.OneOf(["district", "friends"])
    )


class FriendCodeSchema(ma.Schema):
    """A code to give to one friend."""

    code = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    expires_date = ma.fields.String(required=True, metadata={"format": "date"})


class GivenCodeSchema(ma.Schema):
    """A code that a friend gave one."""

    code = ma.fields.String(
        required=True,
        validate=Pattern(
            f"^[{friendship.CODE_LETTERS}{friendship.CODE_LETTERS.lower()}]"
            f"{{{friendship.CODE_LENGTH}}}$",
            error="must be the ten letters and digits of a friend's code",
        ),
    )


class FriendSchema(ma.Schema):
    """A friend. The id is between the two of you."""

    id = ma.fields.String(required=True)
    nickname = ma.fields.String(required=True)
    since_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    since_date = ma.fields.String(required=True, metadata={"format": "date"})


class FriendsSchema(ma.Schema):
    """One's friends."""

    items = ma.fields.List(ma.fields.Nested(FriendSchema), required=True)


def rankings() -> Rankings:
    """The rankings of the city that this request is for."""
    here = wired()
    return Rankings(here.engine, here.vault, here.redis)


def progressed(one: Progress) -> dict[str, Any]:
    """A challenge as its resident reads it."""
    return {
        "id": one.challenge.id,
        **face(one.challenge),
        "joined": one.joined,
        "done": None if one.done is None else str(one.done),
        "reached_on": calendar_day(one.reached_on) if one.reached_on else None,
    }


@blp.serve("GET", "/challenges", gives=MyChallengesSchema, guard=resident)
def get_challenges() -> Response:
    """挑战 · The open challenges, and how far I have come in those I joined."""
    here = wired()
    with here.engine.connect() as tx:
        found = challenge.progress(tx, here.vault, g.resident, here.clock())
    return answer({"items": [progressed(one) for one in found]})


@blp.serve(
    "POST", "/challenges/<challenge_id>/join", gives=ProgressSchema, guard=resident, repeat=True
)
def post_join(challenge_id: str) -> Response:
    """参加挑战 · Take part; the whole month counts."""
    here, who, known = wired(), g.resident, _known(challenge_id)
    now = here.clock()
    return answer_once(lambda tx: progressed(challenge.join(tx, here.vault, known, who, now)))


@blp.serve(
    "POST",
    "/challenges/<challenge_id>/leave",
    gives=MyChallengesSchema,
    guard=resident,
    repeat=True,
)
def post_leave(challenge_id: str) -> Response:
    """退出挑战 · Take part no more; answers the open challenges."""
    here, who, known = wired(), g.resident, _known(challenge_id)

    def work(tx: Connection) -> dict[str, Any]:
        challenge.leave(tx, known, who)
        found = challenge.progress(tx, here.vault, who, here.clock())
        return {"items": [progressed(one) for one in found]}

    return answer_once(work)


@blp.serve("GET", "/badges", gives=BadgesSchema, guard=resident)
def get_badges() -> Response:
    """徽章 · Every badge, and when I earned it, reckoned from my acts that stand."""
    here = wired()
    with here.engine.connect() as tx:
        acts = standing(tx, here.vault, [g.resident])[g.resident]
        days = badges.earned(acts, challenge.reached_days(tx, g.resident, acts))
    return answer(
        {
            "items": [
                {
                    **one._asdict(),
                    "earned_on": calendar_day(days[one.code]) if one.code in days else None,
                }
                for one in badges.BADGES
            ]
        }
    )


@blp.serve("PUT", "/ranking", gives=InRankingsSchema, guard=resident, body=NicknameSchema)
def put_ranking(body: dict[str, Any]) -> Response:
    """加入排行 · Be seen in rankings under this nickname, by those they are for."""
    here, now = wired(), wired().clock()
    name = ranking.show(here.engine, here.vault, g.resident, body["nickname"], now)
    rankings().settle(g.resident, now)
    return answer({"joined": True, "nickname": name})


@blp.serve("POST", "/ranking/leave", gives=InRankingsSchema, guard=resident, repeat=True)
def post_ranking_leave() -> Response:
    """退出排行 · Be seen no more, at once. Nickname and friends are deleted."""
    who = g.resident

    def work(tx: Connection) -> dict[str, Any]:
        friends.hide(tx, who)
        return {"joined": False, "nickname": None}

    made = answer_once(work)
    rankings().settle(who, wired().clock())
    return made


@blp.serve("GET", "/ranking", gives=RankingSchema, guard=resident, query=RankingArgs)
def get_ranking(args: dict[str, Any]) -> Response:
    """排行 · This month's reductions in my district, or among my friends. Who has not joined sees
    nobody. 503 RANKINGS_UNAVAILABLE for a moment while they are made anew."""
    now, of = wired().clock(), args["of"]
    here = rankings()
    read = here.district if of == "district" else here.among_friends
    return answer({"of": of, **_ranked(read(g.resident, now))})


def _ranked(found: Ranking) -> dict[str, Any]:
    return {
        "month": f"{found.month // 100}-{found.month % 100:02d}",
        "joined": found.mine is not None,
        "too_few": found.mine is not None and found.people is None,
        "people": found.people,
        "mine": _row(found.mine) if found.mine else None,
        "items": [_row(one) for one in found.rows],
    }


def _row(one: Row) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "nickname": one.nickname,
        "reduction_mg": str(one.mg),
        "me": one.me,
    }


@blp.serve("POST", "/friend-codes", gives=FriendCodeSchema, status=201, guard=resident, repeat=True)
def post_friend_code() -> Response:
    """好友码 · A code for one friend, good for 15 minutes; the one before it ends."""
    here, who = wired(), g.resident

    def work(tx: Connection) -> dict[str, Any]:
        code, until = friendship.hand_out(tx, here.vault, who, here.clock())
        return {"code": code, **stamp("expires", until)}

    return answer_once(work, 201)


@blp.serve("GET", "/friends", gives=FriendsSchema, guard=resident)
def get_friends() -> Response:
    """好友 · Whom I made friends with."""
    here, names = wired(), rankings()
    with here.engine.connect() as tx:
        found = friends.friends(tx, g.resident)
    return answer(
        {
            "items": [
                {
                    "id": friendship.friend_id(here.vault, g.resident, friend),
                    "nickname": names.open_name(friend, named),
                    **stamp("since", since),
                }
                for friend, since, named in found
            ]
        }
    )


@blp.serve(
    "POST",
    "/friends",
    gives=DoneSchema,
    status=201,
    guard=resident,
    body=GivenCodeSchema,
    repeat=True,
)
def post_friend(body: dict[str, Any]) -> Response:
    """添加好友 · Enter a friend's code: we then see each other's month.

    The answer names nobody, since answers are kept to be repeated.
    """
    here, who = wired(), g.resident

    def work(tx: Connection) -> dict[str, Any]:
        friendship.enter(tx, here.vault, who, body["code"], here.clock())
        return {"done": True}

    return answer_once(work, 201)


@blp.serve("POST", "/friends/<friend_id>/remove", gives=DoneSchema, guard=resident, repeat=True)
def post_friend_remove(friend_id: str) -> Response:
    """解除好友 · End a friendship, for both of us."""
    here, who = wired(), g.resident

    def work(tx: Connection) -> dict[str, Any]:
        friendship.remove(tx, here.vault, who, friend_id)
        return {"done": True}

    return answer_once(work)


def _known(challenge_id: str) -> str:
    if not _ID.fullmatch(challenge_id):
        raise Problem("NOT_FOUND", "there is no open challenge of this id")
    return challenge_id
