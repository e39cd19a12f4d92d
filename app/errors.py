"""Every refusal as RFC 9457 `application/problem+json`, out of one table.

An exception whose class carries a stable `code` that stands in PROBLEMS is an answer to the caller:
its sentence becomes the `detail`. Everything else is our own fault: a 500 that says only which
request it was, with the traceback in the log under that request's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import marshmallow as ma
import orjson
import structlog
from flask import Flask, Response, g, has_request_context
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from scenarios.errors import FAULTS, TITLES

_MAX_FIELD = 100
_RETRY_AFTER_S = {
    "UNAVAILABLE": 2,
    "RANKINGS_UNAVAILABLE": 5,
    "NOT_SEALED_YET": 1,
    "REQUEST_RUNNING": 1,
}

# code: (HTTP status, title for people)
PROBLEMS: dict[str, tuple[int, str]] = {
    # the request as such
    "BAD_REQUEST": (400, "请求有误"),
    "JSON_MALFORMED": (400, "请求体不是合法的 JSON"),
    "NOT_FOUND": (404, "没有这个地址或记录"),
    "METHOD_NOT_ALLOWED": (405, "此地址不支持该方法"),
    "BODY_TOO_SLOW": (408, "请求体发送过慢"),
    "BODY_TOO_LARGE": (413, "请求体过大"),
    "CONTENT_TYPE": (415, "请求体的类型不符合要求"),
    "VALIDATION_FAILED": (422, "字段不符合要求"),
    "CURSOR_INVALID": (422, "翻页游标无效"),
    "TOO_MANY_REQUESTS": (429, "请求过于频繁，请稍后再试"),
    "CITY_BUSY": (429, "提交批次过快，请按 Retry-After 稍后重试"),
    "INTERNAL": (500, "系统内部错误"),
    "UNAVAILABLE": (503, "服务暂时不可用，请稍后再试"),
    "DETACHED_UNREADABLE": (503, "较早的记录暂时无法读取"),
    # who asks
    "SIGNATURE_MISSING": (401, "缺少请求签名"),
    "SIGNATURE_MALFORMED": (401, "签名头格式有误"),
    "SIGNATURE_INVALID": (401, "签名验证未通过"),
    "KEY_UNKNOWN": (401, "未知的密钥编号"),
    "KEY_REVOKED": (401, "密钥已停用或过期"),
    "TIMESTAMP_SKEW": (401, "时间戳超出允许的偏差"),
    "NONCE_REPLAYED": (401, "随机串已被使用过"),
    "TOKEN_MISSING": (401, "请先登录"),
    "TOKEN_INVALID": (401, "登录凭证无效"),
    "TOKEN_EXPIRED": (401, "登录已过期，请重新登录"),
    "TOKEN_REVOKED": (401, "登录已退出，请重新登录"),
    "TOKEN_REUSED": (401, "登录凭证被重复使用，请重新登录"),
    "WECHAT_CODE_INVALID": (422, "微信凭证无效或已使用，请重试"),
    "WECHAT_DATA_INVALID": (422, "微信数据无法验证，请重新获取"),
    "WECHAT_BLOCKED": (403, "微信限制了此账号登录"),
    "SESSION_MISSING": (401, "请先登录管理端"),
    "SESSION_ENDED": (401, "会话已结束，请重新登录"),
    "LOGIN_FAILED": (401, "登录未成功"),
    "ROLE_MISSING": (403, "没有所需的角色"),
    "GUARDIAN_NEEDED": (403, "未满十四周岁须由监护人确认"),
    "GUARDIAN_TOO_YOUNG": (403, "须由成年人担任监护人"),
    "OWN_ACCOUNT": (403, "不能更改自己的账号"),
    "PASSWORD_WRONG": (403, "当前密码不正确"),
    "PASSWORD_WEAK": (422, "密码不符合要求"),
    # how a change is asked for
    "IDEMPOTENCY_KEY_MISSING": (400, "缺少请求编号 Idempotency-Key"),
    "IDEMPOTENCY_KEY_REUSED": (422, "请求编号已用于另一请求"),
    "REQUEST_RUNNING": (409, "同一请求正在处理中"),
    "IF_MATCH_MISSING": (428, "缺少 If-Match"),
    "REVISION_STALE": (412, "内容已被他人更改，请重新读取"),
    # what is asked
    "CODE_UNKNOWN": (404, "验证码无效或已过期"),
    "PRIVACY_NOTICE_CHANGED": (409, "请先阅读并同意最新的隐私说明"),
    "CONSENT_TEXT_CHANGED": (409, "授权说明已更新，请重新阅读"),
    "NOT_BOUND": (409, "该账号未被他人绑定，可直接绑定"),
    "DISPUTE_CLOSED": (409, "该争议已经结束"),
    "BINDING_TOKEN_INVALID": (422, "绑定凭证无效或已过期"),
    "IDENTIFIER_BOUND": (409, "该账号已绑定其他居民"),
    "ADMIN_UNKNOWN": (404, "没有这位管理员"),
    "ADMIN_EXISTS": (409, "管理员名称已被使用"),
    "LAST_OPERATOR": (409, "不能停用最后一位运营管理员"),
    "BUDGET_UNKNOWN": (404, "没有这个预算"),
    "REFERENCE_REUSED": (409, "文号已用于另一笔拨款"),
    "ENTRY_UNKNOWN": (404, "没有这笔记录"),
    "ACTIVITY_UNKNOWN": (404, "没有这条已计入的行为"),
    "RANGE_INVALID": (422, "日志大小范围有误"),
    "BATCH_ID_REUSED": (409, "批次号已用于不同的内容"),
    "NOT_SEALED_YET": (409, "该记录尚未封存入日志，请稍后再试"),
    # what residents bring themselves, and what reviewers decide of it
    "PICTURE_TOO_LARGE": (413, "图片过大"),
    "PICTURE_UNREADABLE": (422, "图片无法读取"),
    "NOT_REPORTABLE": (422, "该场景不接受居民自报"),
    "EVIDENCE_MISSING": (422, "缺少该场景所需的照片或编码"),
    "EVIDENCE_REUSED": (409, "该照片或编码已用于申报"),
    "TOO_LONG_AGO": (422, "行为时间已超出可申报的期限"),
    "TOO_MANY_WAITING": (409, "待审核的申报过多"),
    "REPORT_UNKNOWN": (404, "没有这份申报"),
    "REPORT_DECIDED": (409, "该申报已审核"),
    "REPORT_REFUSED": (422, "申报未通过审核"),
    "STEPS_UNREADABLE": (422, "步数数据格式不正确"),
    "STEP_DAY_UNKNOWN": (404, "没有这条待审步数"),
    "STEPS_OUT_OF_RANGE": (422, "计入的步数超出范围"),
    "STEPS_REFUSED": (422, "步数未通过审核"),
    # a correction is one activity, so what would be a rejection is an answer of its own
    "ACTIVITY_MALFORMED": (422, "行为格式不正确"),
    "ACTIVITY_ID_MALFORMED": (422, "行为编号格式不正确"),
    "ACTIVITY_ID_MISMATCH": (422, "行为编号与地址不一致"),
    "ACTIVITY_ID_REUSED": (409, "行为编号已用于另一行为"),
    "SUBJECT_MALFORMED": (422, "用户标识格式不正确"),
    "PLACE_MALFORMED": (422, "地点须为六位行政区划代码"),
    "SAME_ACT": (409, "同一次行为已由其他渠道申报"),
    "SUBJECT_UNKNOWN": (422, "用户标识尚未绑定居民"),
    "CONSENT_MISSING": (422, "居民未授权该来源申报此场景"),
    "PROCESSING_RESTRICTED": (409, "居民已限制个人信息处理"),
    "SUBJECT_ERASED": (409, "居民已注销"),
    "TOO_MANY_REVISIONS": (409, "更正次数过多"),
    **{code: (422, title) for code, title in TITLES.items()},
    # what a resident disputes
    "APPEAL_STATE": (409, "申诉当前状态不允许此操作"),
    "APPEAL_UNDER_WAY": (409, "同一事项的申诉正在处理中"),
    "TOO_MANY_APPEALS": (409, "处理中的申诉过多"),
    "REJECTION_UNKNOWN": (404, "没有这条未计入的行为"),
    "BUDGET_SHORT": (409, "预算余额不足"),
    # challenges, rankings, friends
    "CHALLENGE_STATE": (409, "挑战当前状态不允许此操作"),
    "NICKNAME_REFUSED": (422, "昵称不符合要求"),
    "RANKING_NOT_JOINED": (409, "尚未加入排行"),
    "FRIEND_CODE_UNKNOWN": (404, "好友码无效或已过期"),
    "FRIEND_CODE_OWN": (422, "不能添加自己为好友"),
    "FRIENDS_FULL": (409, "好友数量已达上限"),
    "RANKINGS_UNAVAILABLE": (503, "排行暂不可用，请稍后再试"),
    # what a resident shows at a till
    "PAY_CODE_UNKNOWN": (422, "付款码无效，请重新出示"),
    "PAY_CODE_EXPIRED": (422, "付款码已过期，请重新出示"),
    "PAY_CODE_USED": (409, "付款码已被使用，请重新出示"),
    "PAY_CODE_FOR_VOUCHER": (422, "该码用于核销卡券，不能付款"),
    # what a till asks, and what became of it
    "REQUEST_NO_REUSED": (409, "商户单号已用于另一请求"),
    "INSUFFICIENT_POINTS": (409, "积分不足"),
    "ALLOWANCE_EXHAUSTED": (409, "商户额度已用完"),
    "MINOR_LIMIT": (403, "未满十四周岁，今日可用积分已达上限"),
    "CONFIRMATION_EXPIRED": (409, "居民未在时限内确认"),
    "CONFIRMATION_DECLINED": (409, "居民已拒绝付款"),
    "RESIDENT_LEFT": (409, "居民已注销"),
    "CHARGE_UNKNOWN": (404, "没有这笔收款"),
    "CHARGE_CLOSED": (409, "该笔收款无需确认"),
    "CHARGE_REVERSED": (409, "该笔收款已撤销"),
    "CHARGE_NOT_PAID": (409, "该笔收款未成功，不能退款"),
    "REFUND_UNKNOWN": (404, "没有这笔退款"),
    "REFUND_EXCEEDS": (409, "退款超过可退积分"),
    # vouchers
    "VOUCHER_UNKNOWN": (422, "卡券码无效，请重新出示"),
    "VOUCHER_NOT_YOURS": (403, "该卡券属于其他商户"),
    "VOUCHER_ELSEWHERE": (409, "该卡券须在指定门店使用"),
    "VOUCHER_USED": (409, "卡券已被使用"),
    "VOUCHER_VOIDED": (409, "卡券已作废"),
    "VOUCHER_LAPSED": (409, "卡券已过期"),
    "CODES_EXHAUSTED": (409, "券码暂时不足，请稍后再确认"),
    "USE_UNKNOWN": (404, "没有这笔核销"),
    "USE_FAILED": (409, "该笔核销未成功，无需撤销"),
    "USE_RETURNED": (409, "该笔核销已撤销"),
    "OFFLINE_TOKEN_INVALID": (422, "离线卡券码无效"),
    "OFFLINE_TIME": (422, "离线核销时间不在卡券码有效时间内"),
    "OFFLINE_TOO_LATE": (409, "离线核销已超过补报期限"),
    "OFFLINE_FULL": (409, "该收银机当日离线核销已达上限"),
    # fraud, and cases
    "VELOCITY_LIMIT": (409, "消费过于频繁，请稍后再试"),
    "OWN_STAFF": (403, "不能在任职的商户使用积分"),
    "CASE_CLOSED": (409, "该事项已处理"),
    # merchants, and what they may do
    "MERCHANT_EXISTS": (409, "商户代码已被使用"),
    "MERCHANT_STATE": (409, "商户当前状态不允许此操作"),
    "MERCHANT_NOT_APPROVED": (403, "商户尚未通过审核"),
    "MERCHANT_SUSPENDED": (403, "商户已暂停"),
    "MERCHANT_CLOSED": (403, "商户已关闭"),
    "CONTRACT_MISSING": (409, "商户尚无合同"),
    "ALLOWANCE_IN_USE": (409, "可收回的额度不足"),
    "KEY_EXISTS": (409, "密钥已登记"),
    "KEYS_FULL": (409, "有效密钥数量已达上限"),
    "LAST_KEY": (409, "不能停用最后一把密钥"),
    "STORE_UNKNOWN": (404, "没有这家门店"),
    "TILL_UNKNOWN": (404, "没有这台收银机，或已停用"),
    "TILL_NOT_YOURS": (403, "该密钥属于另一台收银机"),
    "STAFF_UNKNOWN": (404, "没有这位员工"),
    "MANAGER_NEEDED": (403, "须由店长或负责人操作"),
    # rewards and orders
    "REWARD_STATE": (409, "奖励当前状态不允许此操作"),
    "REWARD_NOT_OPEN": (409, "该奖励当前不可兑换"),
    "REWARD_SOLD_OUT": (409, "该奖励已兑完"),
    "PERSON_LIMIT": (409, "已达到每人可兑数量"),
    "DAY_LIMIT": (409, "今日份额已兑完，请明天再来"),
    "DISTRICT_NOT_SERVED": (403, "该奖励不面向您所在的区县"),
    "AGE_TOO_YOUNG": (403, "该奖励须年满十四周岁"),
    "STANDING_TOO_LOW": (403, "累计减排量未达到兑换要求"),
    "STOCK_REFUSED": (409, "库存不能如此更改"),
    "CODES_REFUSED": (422, "券码文件不符合要求"),
    "ORDER_RELEASED": (409, "订单已取消或超时，积分已退回"),
    "ORDER_CONFIRMED": (409, "订单已确认，不能取消"),
    "BILL_UNKNOWN": (404, "没有这一天的账单"),
    "BILL_NOT_CLOSED": (409, "当天账单尚未生成"),
    "BILL_PAID": (409, "该账单已登记付款"),
    # where merchants are told what happened
    "WEBHOOK_URL_REFUSED": (422, "通知地址不符合要求"),
    "WEBHOOK_UNKNOWN": (404, "没有这个通知地址"),
    "WEBHOOK_STATE": (409, "通知地址当前状态不允许此操作"),
    "WEBHOOKS_FULL": (409, "通知地址数量已达上限"),
    "EVENT_UNKNOWN": (404, "没有这个事件"),
    # a resident's rights
    "ARCHIVE_NOT_READY": (409, "数据副本尚未生成，请稍后再试"),
    "ERASURE_CODE_INVALID": (409, "注销确认码不正确或已过期"),
    # a draft of scenario changes, and what its editions may not be
    "DRAFT_STATE": (409, "草案当前状态不允许此操作"),
    "BACKTEST_MISSING": (409, "缺少本修订的测算"),
    "OWN_APPROVAL": (403, "不能批准自己起草的草案"),
    "WITHDRAWAL_TOO_LATE": (409, "已过可撤回的时限"),
    "EFFECT_IN_PAST": (422, "生效日期须晚于今天"),
    "NOTICE_TOO_SHORT": (422, "生效日期早于公示期"),
    **{code: (422, title) for code, title in FAULTS.items()},
}

_BY_STATUS = {
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "BODY_TOO_LARGE",
    415: "CONTENT_TYPE",
    422: "VALIDATION_FAILED",
    429: "TOO_MANY_REQUESTS",
    503: "UNAVAILABLE",
}

_DETAILS = {  # where the framework's own sentence would be of no help or say too much
    404: "there is nothing at this address",
    405: "this address does not take this method; Allow names those it takes",
    413: "the body is larger than this address takes",
}


class Problem(Exception):  # noqa: N818  (RFC 9457's own word)
    """A refusal by the HTTP surface itself; `code` must stand in PROBLEMS."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.errors = errors
        self.headers = headers or {}


class FieldErrorSchema(ma.Schema):
    """One field that is not as it must be."""

    field = ma.fields.String(required=True, metadata={"example": "activities.3.id"})
    message = ma.fields.String(required=True)


class ProblemSchema(ma.Schema):
    """RFC 9457 problem details, as every refusal of this API is answered."""

    type = ma.fields.String(required=True, metadata={"example": "/problems/NOT_FOUND"})
    code = ma.fields.String(required=True, metadata={"example": "NOT_FOUND"})
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    detail = ma.fields.String(required=True)
    errors = ma.fields.List(ma.fields.Nested(FieldErrorSchema))
    request_id = ma.fields.String()


def install(app: Flask) -> None:
    """Answer every exception of the application."""
    app.register_error_handler(HTTPException, _answer_framework)
    app.register_error_handler(Exception, _answer)


def field_errors(messages: Any, path: str = "") -> Iterator[dict[str, str]]:
    """Flatten marshmallow's nested messages to one row a field, its path joined by dots."""
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            yield from field_errors(inner, path if key == "_schema" else f"{path}.{key}")
    else:
        field = path.removeprefix(".")[:_MAX_FIELD]  # a name of the sender's own choice
        for message in messages if isinstance(messages, list) else [messages]:
            yield {"field": field, "message": str(message)}


def _answer(exc: Exception) -> Response:
    code = getattr(exc, "code", None)
    if isinstance(exc, OperationalError | PoolTimeout):
        structlog.get_logger().error("database unavailable", request_id=_request_id())
        detail = "the database does not answer at this moment; the same request may be sent again"
        return refusal("UNAVAILABLE", detail)
    if isinstance(exc, DataError) and _holds_nul(exc.orig):
        # texts of any script are welcome, and this one character no column of text can hold
        return refusal("VALIDATION_FAILED", "a text holds the character U+0000; leave it out")
    if not isinstance(code, str) or code not in PROBLEMS:
        structlog.get_logger().error("unhandled", request_id=_request_id(), exc_info=exc)
        return refusal("INTERNAL", "the request could not be completed; quote its request_id")
    errors: Sequence[Mapping[str, str]] = getattr(exc, "errors", ())
    return refusal(code, str(exc), errors=errors, headers=getattr(exc, "headers", {}))


def _holds_nul(error: BaseException | None) -> bool:
    """Whether the driver refused U+0000 in a text; in an array the server does, as no character."""
    return getattr(error, "sqlstate", None) == "22021" or "NUL (0x00)" in str(error)


def _answer_framework(exc: HTTPException) -> Response:
    """An HTTPException of Flask or Werkzeug; a redirect is none of our business and passes."""
    if exc.response is not None or (exc.code or 500) < 400:
        return exc.get_response()  # type: ignore[return-value]
    status = exc.code or 500
    code = _BY_STATUS.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL")
    kept = {k: v for k, v in exc.get_headers() if k in ("Allow", "Retry-After")}
    return refusal(code, _DETAILS.get(status, f"HTTP {status}: {exc.name}"), headers=kept)


def refusal(
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer for a code of PROBLEMS, within a request or outside of any."""
    status, title = PROBLEMS[code]
    body = {
        "type": f"/problems/{code}",
        "code": code,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": _request_id(),
    }
    if errors:
        body["errors"] = list(errors)
    answer = Response(orjson.dumps(body), status, mimetype="application/problem+json")
    answer.headers.update(headers or {})
    if code in _RETRY_AFTER_S:
        answer.headers["Retry-After"] = str(_RETRY_AFTER_S[code])
    answer.headers["Cache-Control"] = "no-store"
    if status == 401:  # RFC 9110 section 11.6.1
        token = code.startswith(("TOKEN", "SESSION", "LOGIN"))
        answer.headers["WWW-Authenticate"] = (
            "Bearer" if token else "PUHUI-ED25519, PUHUI-RSA-SHA256"
        )
    return answer


def _request_id() -> str:
    return str(g.get("request_id", "-")) if has_request_context() else "-"
