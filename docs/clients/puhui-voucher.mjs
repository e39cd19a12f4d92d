// Judge a voucher without network, in Node 20 or later or in a browser. Fetch
// /api/v1/voucher-keys (public) and /api/v1/merchant/profile (for your own id) while there is one.

const FORM = /^PV1:([A-Z2-7]{208})$/;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DOMAIN = new TextEncoder().encode("puhui voucher 1\0");
const SIGNED = 66; // bytes before the signature

/** What a token says, once one of the keys holds for it; throws an Error that says why not. */
export async function verifyVoucher(token, keys) {
  const form = FORM.exec(token);
  if (!form) throw new Error("a token is PV1: and 208 of A-Z 2-7");
  const key = keys.find((one) => one.id === form[1].slice(0, 8));
  if (!key) throw new Error("no key that is known here has signed this token");
  const raw = base32(form[1]);
  const [said, signature] = [raw.slice(0, SIGNED), raw.slice(SIGNED)];
  const bytes = Uint8Array.from(atob(key.public_key), (one) => one.charCodeAt(0));
  const known = await crypto.subtle.importKey("raw", bytes, "Ed25519", false, ["verify"]);
  const message = Uint8Array.from([...DOMAIN, ...said]);
  if (!(await crypto.subtle.verify("Ed25519", known, signature, message)))
    throw new Error("the token's signature does not hold");
  const notBefore = number(said, 58, 62);
  if (key.until !== null && notBefore > Date.parse(key.until) / 1000)
    throw new Error("the token is signed by a key that signed no more at its time");
  return {
    voucher: hex(said, 5, 21),
    merchant: hex(said, 21, 37),
    reward: hex(said, 37, 53),
    points: number(said, 53, 58),
    not_before: notBefore,
    not_after: number(said, 62, 66),
  };
}

/** Why a till may not take a voucher that verified; "" if it may. `limits` is the document of
 * /api/v1/voucher-keys, `taken` the ids of the vouchers that the till took today, `now` is in
 * seconds since 1970. Add the voucher to `taken` before the goods are handed out. */
export function refusal(voucher, merchant, limits, taken, now) {
  if (voucher.merchant !== merchant) return "VOUCHER_NOT_YOURS";
  if (now < voucher.not_before || now > voucher.not_after) return "OFFLINE_TIME";
  if (taken.has(voucher.voucher)) return "VOUCHER_USED";
  if (voucher.points > Number(limits.points)) return "OFFLINE_POINTS";
  return taken.size < limits.per_till_day ? "" : "OFFLINE_FULL";
}

function base32(text) {
  const made = new Uint8Array((text.length * 5) / 8);
  let [bits, held, at] = [0, 0, 0];
  for (const letter of text) {
    bits = ((bits << 5) | LETTERS.indexOf(letter)) & 0xfff;
    held += 5;
    if (held >= 8) made[at++] = (bits >> (held -= 8)) & 0xff;
  }
  return made;
}

function number(bytes, from, to) {
  return bytes.slice(from, to).reduce((sum, one) => sum * 256 + one, 0);
}

function hex(bytes, from, to) {
  return Array.from(bytes.slice(from, to), (one) => one.toString(16).padStart(2, "0")).join("");
}
