// A merchant's client of Puhui: sign, charge with a till's patience, refund, bills, webhooks.
//
// Needs Node 18 or newer and nothing else. Copy it, and make it yours. As a program:
//     node puhui-merchant.mjs URL KEY_ID KEY.pem charge NUMBER CODE POINTS TILL

import crypto from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const AGAIN = new Set([429, 502, 503, 504]); // not taken, or nobody knows; the others are final
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const now = () => Math.floor(Date.now() / 1000);

/** The server said no; `code` is stable, the sentence is for people. */
export class RefusedError extends Error {
  constructor(status, { code, detail }) {
    Object.assign(super(`${code}: ${detail}`), { status, code });
  }
}

/** One merchant, or one till of it, that signs with one key. */
export class Merchant {
  constructor(url, keyId, pem, timeoutS = 5) {
    Object.assign(this, { url: url.replace(/\/$/, ""), keyId, timeoutS });
    this.key = crypto.createPrivateKey(pem);
    this.aheadS = 0; // by how much the server's clock is ahead of this machine's
  }

  /** The Authorization header: five lines are signed, each ended by a newline. */
  sign(method, path, body) {
    const timestamp = String(now() + this.aheadS);
    const nonce = crypto.randomBytes(24).toString("base64url");
    const message = Buffer.from(`${method}\n${path}\n${timestamp}\n${nonce}\n${body}\n`);
    const signature = crypto.sign(null, message, this.key).toString("base64");
    const fields = { key_id: this.keyId, timestamp, nonce, signature };
    return `PUHUI-ED25519 ${Object.entries(fields).map(([k, v]) => `${k}="${v}"`).join(",")}`;
  }

  /** One signed request, twice if this clock was off: {headers, body}. Throws RefusedError, or
   * anything else if no answer came. */
  async send(method, path, document) {
    const address = `/api/v1/merchant/${path}`;
    const text = document === undefined ? "" : JSON.stringify(document);
    for (let attempt = 0; ; attempt++) {
      const headers = { Authorization: this.sign(method, address, text) };
      if (text) headers["Content-Type"] = "application/json";
      const signal = AbortSignal.timeout(this.timeoutS * 1000);
      const sent = { method, headers, body: text || undefined, signal };
      const answer = await fetch(this.url + address, sent);
      const body = Buffer.from(await answer.arrayBuffer());
      if (answer.ok) return { headers: answer.headers, body };
      const problem = problemOf(answer.status, body);
      if (problem.code !== "TIMESTAMP_SKEW" || attempt) throw problem;
      const there = await (await fetch(`${this.url}/api/v1/time`)).json();
      this.aheadS = there.timestamp - now();
    }
  }

  /** The JSON of a request that is safe to send again, patiently. */
  async ask(method, path, document, tries = 3) {
    for (let left = tries - 1; ; left--) {
      try {
        return JSON.parse((await this.send(method, path, document)).body);
      } catch (error) {
        if ((error instanceof RefusedError && !AGAIN.has(error.status)) || !left) throw error;
      }
      await sleep(0.2 * 2 ** (tries - left));
    }
  }

  /** Charge by the code a resident shows; the charge when it is decided: succeeded, failed or
   * reversed. (1) Send it. (2) No answer: ask what became of it. (3) It never came, or nobody
   * answers: reverse it, so that it never will. (4) Pending: the resident is asked; wait. */
  async charge(number, code, points, till, waitS = 60) {
    const body = { out_request_no: number, code, points: String(points), till };
    let made;
    try {
      made = JSON.parse((await this.send("POST", "charges", body)).body); // (1)
    } catch (error) {
      if (error instanceof RefusedError && !AGAIN.has(error.status) && error.status < 500) {
        return { state: "failed", code: error.code, detail: error.message };
      }
      made = await this.found(number); // (2)
    }
    const until = now() + waitS;
    while (made.state === "pending" && now() < until) { // (4)
      await sleep(1);
      made = await this.found(number);
    }
    return made.state === "pending" ? (await this.reverse(number)).charge : made;
  }

  async found(number) {
    const reversed = async () => (await this.reverse(number)).charge; // (3)
    return this.ask("GET", `charges/${number}`).catch(reversed);
  }

  /** Leave nothing of a charge, whatever became of it. Sent until it is answered. */
  reverse(number) {
    return this.ask("POST", `charges/${number}/reverse`, {}, 10);
  }

  /** Give back some of a charge. The same refund number again is the same refund. */
  refund(refundNumber, number, points, reason) {
    const numbers = { out_refund_no: refundNumber, out_request_no: number };
    return this.ask("POST", "refunds", { ...numbers, points: String(points), reason });
  }

  /** The CSV of a closed day (YYYY-MM-DD) as bytes, once its hash was checked. */
  async bill(day) {
    const { headers, body } = await this.send("GET", `bills/${day}.csv`);
    const digest = crypto.createHash("sha256").update(body).digest("hex");
    const summary = await this.ask("GET", `bills/${day}`);
    if (digest !== headers.get("X-Content-SHA256") || digest !== summary.csv_sha256) {
      throw new Error(`the bill of ${day} did not arrive as it was sent; fetch it again`);
    }
    return body;
  }
}

/** The event of a request to your endpoint, if it is ours; else it throws. Answer 2xx soon, and
 * drop what has a `webhook-id` that you have seen: an event may come more than once. */
export function verifyWebhook(secret, headers, body, at = now()) {
  const given = Object.fromEntries(Object.entries(headers).map(([k, v]) => [k.toLowerCase(), v]));
  const stamp = given["webhook-timestamp"] ?? "";
  if (!/^[0-9]+$/.test(stamp) || Math.abs(at - Number(stamp)) > 300) {
    throw new Error("the webhook's timestamp is missing or not of the last 5 minutes");
  }
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const said = Buffer.concat([Buffer.from(`${given["webhook-id"]}.${stamp}.`), Buffer.from(body)]);
  const wanted = crypto.createHmac("sha256", key).update(said).digest();
  for (const one of (given["webhook-signature"] ?? "").split(" ")) { // two, while a secret changes
    const found = one.startsWith("v1,") ? Buffer.from(one.slice(3), "base64") : Buffer.alloc(0);
    if (found.length === wanted.length && crypto.timingSafeEqual(found, wanted)) return JSON.parse(body);
  }
  throw new Error("no signature of this webhook holds");
}

function problemOf(status, body) {
  try {
    return new RefusedError(status, JSON.parse(body));
  } catch {
    return new RefusedError(status, { code: "ANSWER_UNKNOWN", detail: "not ours" });
  }
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [url, keyId, pem, verb, ...words] = process.argv.slice(2);
  const said = await new Merchant(url, keyId, readFileSync(pem))[verb](...words);
  process.stdout.write(Buffer.isBuffer(said) ? said : JSON.stringify(said));
}
