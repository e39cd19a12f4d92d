"""A merchant's client of Puhui: sign, charge with a till's patience, refund, bills, webhooks.

Needs Python 3.11, httpx and cryptography. Copy it, and make it yours. As a program:

    python puhui_merchant.py URL KEY_ID KEY.pem charge NUMBER CODE POINTS TILL
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import load_pem_private_key

LOST = httpx.TransportError  # no answer came: nobody here knows what became of the request
AGAIN = {429, 502, 503, 504}  # not taken, or nobody knows; every other answer is final


class RefusedError(Exception):
    """The server said no; `code` is stable, the sentence is for people."""

    def __init__(self, status: int, problem: dict) -> None:
        super().__init__(f"{problem.get('code')}: {problem.get('detail')}")
        self.status, self.code = status, problem.get("code", "")


class Merchant:
    """One merchant, or one till of it, that signs with one key."""

    def __init__(self, url: str, key_id: str, pem: bytes, timeout_s: float = 5) -> None:
        self.url, self.key_id = url.rstrip("/"), key_id
        self.key = load_pem_private_key(pem, None)
        self.http = httpx.Client(timeout=timeout_s, trust_env=False)
        self.ahead_s = 0  # by how much the server's clock is ahead of this machine's

    def sign(self, method: str, path: str, body: bytes) -> str:
        """The Authorization header: five lines are signed, each ended by a newline."""
        at, nonce = str(int(time.time()) + self.ahead_s), secrets.token_urlsafe(24)
        message = f"{method}\n{path}\n{at}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(self.key.sign(message)).decode()
        fields = {"key_id": self.key_id, "timestamp": at, "nonce": nonce, "signature": signature}
        return "PUHUI-ED25519 " + ",".join(f'{name}="{text}"' for name, text in fields.items())

    def send(self, method: str, path: str, document: dict | None = None) -> httpx.Response:
        """One signed request, twice if this clock was off. Raises RefusedError, LOST."""
        path = f"/api/v1/merchant/{path}"
        body = b"" if document is None else json.dumps(document).encode()
        for _ in range(2):
            headers = {"Authorization": self.sign(method, path, body)}
            if body:
                headers["Content-Type"] = "application/json"
            answer = self.http.request(method, self.url + path, content=body, headers=headers)
            if answer.is_success:
                return answer
            problem = _problem(answer)
            if problem.code != "TIMESTAMP_SKEW":
                break
            there = self.http.get(f"{self.url}/api/v1/time").json()["timestamp"]
            self.ahead_s = int(there) - int(time.time())
        raise problem

    def ask(self, method: str, path: str, document: dict | None = None, tries: int = 3) -> dict:
        """A request that is safe to send again, patiently. Raises RefusedError, LOST."""
        for left in range(tries - 1, -1, -1):
            try:
                return self.send(method, path, document).json()
            except (LOST, RefusedError) as error:
                final = isinstance(error, RefusedError) and error.status not in AGAIN
                if final or not left:
                    raise
            time.sleep(0.2 * 2 ** (tries - left))
        raise AssertionError("unreachable")

    def charge(self, number: str, code: str, points: int, till: str, wait_s: float = 60) -> dict:
        """Charge by the code a resident shows; the charge when it is decided: succeeded, failed or
        reversed. (1) Send it. (2) No answer: ask what became of it. (3) It never came, or nobody
        answers: reverse it, so that it never will. (4) Pending: the resident is asked; wait."""
        body = {"out_request_no": number, "code": code, "points": str(points), "till": till}
        try:
            made = self.send("POST", "charges", body).json()  # (1)
        except (LOST, RefusedError) as error:
            if isinstance(error, RefusedError) and error.status not in AGAIN and error.status < 500:
                return {"state": "failed", "code": error.code, "detail": str(error)}
            made = self._found(number)  # (2)
        until = time.monotonic() + wait_s
        while made["state"] == "pending" and time.monotonic() < until:  # (4)
            time.sleep(1)
            made = self._found(number)
        return self.reverse(number)["charge"] if made["state"] == "pending" else made

    def _found(self, number: str) -> dict:
        try:
            return self.ask("GET", f"charges/{number}")
        except (LOST, RefusedError):
            return self.reverse(number)["charge"]  # (3)

    def reverse(self, number: str) -> dict:
        """Leave nothing of a charge, whatever became of it. Sent until it is answered."""
        return self.ask("POST", f"charges/{number}/reverse", {}, tries=10)

    def refund(self, refund_number: str, number: str, points: int, reason: str) -> dict:
        """Give back some of a charge. The same refund number again is the same refund."""
        body = {"out_refund_no": refund_number, "out_request_no": number}
        return self.ask("POST", "refunds", body | {"points": str(points), "reason": reason})

    def bill(self, day: str) -> bytes:
        """The CSV of a closed day (YYYY-MM-DD), once its hash was checked. Raises ValueError."""
        answer, summary = self.send("GET", f"bills/{day}.csv"), self.ask("GET", f"bills/{day}")
        found = hashlib.sha256(answer.content).hexdigest()
        if not found == answer.headers["X-Content-SHA256"] == summary["csv_sha256"]:
            raise ValueError(f"the bill of {day} did not arrive as it was sent; fetch it again")
        return answer.content


def verify_webhook(secret: str, headers: dict, body: bytes, now: float | None = None) -> dict:
    """The event of a request to your endpoint, if it is ours. Raises ValueError. Answer 2xx soon,
    and drop what has a `webhook-id` that you have seen: an event may come more than once."""
    given = {name.lower(): value for name, value in headers.items()}
    event, at = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not at.isdigit() or abs((time.time() if now is None else now) - int(at)) > 300:
        raise ValueError("the webhook's timestamp is missing or not of the last 5 minutes")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = hmac.digest(key, f"{event}.{at}.".encode() + body, "sha256")
    for one in given.get("webhook-signature", "").split():  # two, while a secret is changed
        version, _, text = one.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64encode(wanted).decode(), text):
            return json.loads(body)
    raise ValueError("no signature of this webhook holds")


def _problem(answer: httpx.Response) -> RefusedError:
    try:
        return RefusedError(answer.status_code, answer.json())
    except ValueError:
        return RefusedError(answer.status_code, {"code": "ANSWER_UNKNOWN", "detail": "not ours"})


if __name__ == "__main__":
    url, key_id, pem, verb, *words = sys.argv[1:]
    said = getattr(Merchant(url, key_id, Path(pem).read_bytes()), verb)(*words)
    sys.stdout.buffer.write(said if isinstance(said, bytes) else json.dumps(said).encode())
