// What a receipt says and whether it holds: the same reading as ledger/{text,note,checkpoint,proof}.py,
// as strict, in plain JavaScript over ed25519.js. Nothing here touches a page or a network.
"use strict";

/** A file is not what it must be (MALFORMED, UNBALANCED), or what it claims does not hold (UNVERIFIED). */
class Refused extends Error {
  constructor(code, zh, en) {
    super(en);
    Object.assign(this, { code, zh });
  }
}

const malformed = (zh, en) => new Refused("MALFORMED", zh, en);
const unverified = (zh, en) => new Refused("UNVERIFIED", zh, en);

const MAX_DECIMAL = 2n ** 63n - 1n;
const MAX_HASHES = 63; // the height of the tallest tree whose size fits 63 bits
const MAX_SIGNATURES = 100;
const HEADER = "c2sp.org/tlog-proof@v1";
const [ED25519, COSIGNATURE] = [1, 4];
const DASH = "\u2014 ";
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The UTF-8 bytes of text; half a surrogate pair has none. */
function encode(text) {
  let percent;
  try {
    percent = encodeURIComponent(text);
  } catch {
    throw malformed("文本不是 UTF-8。", "The text is not UTF-8.");
  }
  const bytes = [];
  for (let at = 0; at < percent.length; at++) {
    if (percent[at] === "%") {
      bytes.push(parseInt(percent.slice(at + 1, at + 3), 16));
      at += 2;
    } else bytes.push(percent.charCodeAt(at));
  }
  return Uint8Array.from(bytes);
}

/** The text of UTF-8 bytes, and of nothing else. */
function decode(bytes) {
  try {
    return decodeURIComponent(Array.from(bytes, (byte) => "%" + byte.toString(16).padStart(2, "0")).join(""));
  } catch {
    throw malformed("文件不是 UTF-8。", "The file is not UTF-8.");
  }
}

/** A canonical decimal from 0 to 2^63 - 1, as a BigInt. */
function decimal(text) {
  const value = /^(0|[1-9][0-9]{0,18})$/.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value > MAX_DECIMAL || !text.endsWith(String(value)))
    throw malformed("数字写法不规范。", "A number is not a canonical decimal below 2^63.");
  return value;
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const [a, b = 0, c = 0] = bytes.slice(at, at + 3);
    const whole = (a << 16) | (b << 8) | c;
    const four = [18, 12, 6, 0].map((shift) => ALPHABET[(whole >> shift) & 63]).join("");
    text += four.slice(0, bytes.length - at + 1).padEnd(4, "=");
  }
  return text;
}

/** Canonical base64, of `length` bytes if given. */
function unbase64(text, length) {
  const bytes = [];
  const form = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text) && !text.endsWith("\n");
  for (let at = 0; form && at < text.length; at += 4) {
    const four = text.slice(at, at + 4);
    const whole = [...four].reduce((sum, one) => (sum << 6) | Math.max(0, ALPHABET.indexOf(one)), 0);
    bytes.push(...[16, 8, 0].map((shift) => (whole >> shift) & 255).slice(0, 3 - (four.split("=").length - 1)));
  }
  const made = Uint8Array.from(bytes);
  if (!form || base64(made) !== text) throw malformed("base64 写法不规范。", "This is not canonical base64.");
  if (length !== undefined && made.length !== length)
    throw malformed(`应为 ${length} 字节。`, `This holds ${made.length} bytes, not ${length}.`);
  return made;
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const same = (one, other) => one.length === other.length && one.every((byte, n) => byte === other[n]);

/** `text` at the first `mark`; at the last one for `last`. Without it: all, and nothing. */
function cut(text, mark, last = false) {
  const at = last ? text.lastIndexOf(mark) : text.indexOf(mark);
  return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + mark.length)];
}

// Python's white space, so that both readers take the same names.
const isName = (name) => name !== "" && (encode(name), !/[+\u0000-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/.test(name));

/** The verifier key of a line `name+id+base64` (c2sp.org/signed-note). */
function readKey(line) {
  const [name, rest] = cut(line, "+");
  const [id, material] = cut(rest ?? "", "+");
  const data = material === null ? [] : unbase64(material);
  if (data.length !== 33 || !isName(name))
    throw malformed("验证公钥格式不正确。", "A key is a name, a key id and 33 bytes in base64.");
  const [kind, key] = [data[0], data.slice(1)];
  if (kind !== ED25519 && kind !== COSIGNATURE)
    throw malformed("不认识的公钥类型。", `Signature type ${kind} is not one we know.`);
  if (hex(sha256(encode(name), [10, kind], key).slice(0, 4)) !== id)
    throw malformed("公钥编号与公钥不符。", "The key's id does not belong to its name and key.");
  return { name, id, kind, key };
}

const readKeys = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean).map(readKey);

function holds({ kind, key }, text, value) {
  if (kind === ED25519) return ed25519(key, encode(text), value);
  const time = value.length < 8 ? -1n : toInt(value.slice(0, 8));
  if (time > MAX_DECIMAL) throw malformed("见证时间超出范围。", "A cosignature's time is 0 to 2^63 - 1 seconds.");
  return ed25519(key, encode(`cosignature/v1\ntime ${time}\n${text}`), value.slice(8));
}

function readSignature(line) {
  const [name, value] = cut(line.startsWith(DASH) ? line.slice(DASH.length) : "", " ");
  if (value === null || !isName(name))
    throw malformed("签名行格式不正确。", "A signature line is a dash, a key name and base64.");
  const data = unbase64(value);
  if (data.length <= 4) throw malformed("签名太短。", "A signature is longer than its key id of 4 bytes.");
  return { name, id: hex(data.slice(0, 4)), value: data.slice(4) };
}

/** The text of a signed note, and the keys that signed it, of those we hold. */
function openNote(note, keys) {
  encode(note);
  if (/[\u0000-\u0009\u000b-\u001f]/.test(note))
    throw malformed("签名文本含有控制字符。", "A note has no control characters but newlines.");
  const [head, tail] = cut(note, "\n\n", true);
  if (tail === null || !tail.endsWith("\n"))
    throw malformed("缺少签名行。", "A note is text, a blank line and signature lines.");
  const lines = tail.slice(0, -1).split("\n");
  if (lines.length > MAX_SIGNATURES) throw malformed("签名过多。", "A note has at most 100 signatures.");
  const [text, signatures, signed] = [head + "\n", lines.map(readSignature), new Set()];
  const known = new Map();
  for (const key of keys) {
    const place = `${key.name} ${key.id}`;
    const other = known.get(place) ?? key;
    if (other.kind !== key.kind || !same(other.key, key.key))
      throw malformed("两把不同的公钥同名同号。", "Two different keys share a name and a key id.");
    known.set(place, key);
  }
  for (const { name, id, value } of signatures) {
    const key = known.get(`${name} ${id}`);
    if (!key) continue; // a signature by a key we do not hold says nothing
    if (!holds(key, text, value)) throw unverified("签名不成立。", `The signature by ${name} does not hold.`);
    signed.add(key);
  }
  if (!signed.size) throw unverified("没有您所信任的公钥的签名。", "No key we hold signed the note.");
  return { text, signed };
}

/** A checkpoint's text (c2sp.org/tlog-checkpoint). */
function readCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length < 4 || lines.at(-1) !== "") throw malformed("检查点不完整。", "A checkpoint is at least three lines.");
  const [origin, size, root, ...extensions] = lines.slice(0, -1);
  const head = { origin, size: decimal(size), root: unbase64(root, 32), extensions };
  if (!origin || extensions.some((line) => !line))
    throw malformed("检查点中有空行。", "A checkpoint's origin and extensions are lines that are not empty.");
  return head;
}

/** The checkpoint, if the log itself signed it: its key carries its name. */
function openCheckpoint(note, keys) {
  const { text, signed } = openNote(note, keys);
  const head = readCheckpoint(text);
  if (![...signed].some((key) => key.kind === ED25519 && key.name === head.origin))
    throw unverified("检查点不是由该账本自己签名的。", `No key of ${head.origin} signed its checkpoint.`);
  return head;
}

const leafHash = (payload) => sha256([0], payload);
const nodeHash = (left, right) => sha256([1], left, right);

/** RFC 9162 section 2.1.3.2; sizes and indices are BigInts. Throws Refused. */
function verifyInclusion(index, size, leaf, proof, root) {
  if ([leaf, root, ...proof].some((one) => one.length !== 32)) throw malformed("哈希长度不对。", "A hash is 32 bytes.");
  if (index < 0n || index >= size) throw unverified("序号超出账本。", `Leaf ${index} is not inside a tree of ${size}.`);
  let [node, last, computed] = [index, size - 1n, leaf];
  for (const sibling of proof) {
    if (last === 0n) throw unverified("证明过长。", "The inclusion proof is too long.");
    if (node & 1n || node === last) {
      computed = nodeHash(sibling, computed);
      while (!(node & 1n) && node) [node, last] = [node >> 1n, last >> 1n];
    } else computed = nodeHash(computed, sibling);
    [node, last] = [node >> 1n, last >> 1n];
  }
  if (last) throw unverified("证明过短。", "The inclusion proof is too short.");
  if (!same(computed, root)) throw unverified("证明到不了账本的根。", `The inclusion proof of leaf ${index} does not lead to the root.`);
}

/** A receipt's parts (c2sp.org/tlog-proof@v1); only `verify` makes them worth reading. */
function readReceipt(text) {
  encode(text);
  const [head, signed] = cut(text, "\n\n");
  const [header, ...lines] = head.split("\n");
  if (header !== HEADER) throw malformed("这不是凭证文件。", `A receipt begins with ${HEADER}.`);
  const extra = lines[0]?.startsWith("extra ") ? unbase64(lines.shift().slice(6)) : null;
  if (!lines[0]?.startsWith("index ")) throw malformed("凭证没有序号。", "A receipt names the index of its leaf.");
  const index = decimal(lines.shift().slice(6));
  const hashes = lines.map((line) => unbase64(line, 32));
  if (hashes.length > MAX_HASHES) throw malformed("哈希过多。", `A proof is at most ${MAX_HASHES} hashes of 32 bytes.`);
  if (!signed?.endsWith("\n")) throw malformed("凭证没有检查点。", "A receipt ends with a checkpoint.");
  return { index, hashes, checkpoint: signed, extra };
}

const FIELDS = "at detail id kind postings v";
const ENTRY_KINDS = ("issue hold release redeem refund reverse expire adjust scenario.published" +
  " scenario.withdrawn key.rotated budget.funded merchant.funded subject.erased day.closed admin.acted").split(" ");

/** RFC 8785 text of what an entry is made of: text, whole numbers, lists and tables. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join()}}`;
}

/** An entry from its bytes: canonical, of a known kind, and balanced in each asset. */
function readEntry(payload) {
  const fault = (en) => malformed("条目格式不正确。", en);
  const text = decode(payload);
  let entry;
  try {
    entry = JSON.parse(text);
  } catch {
    throw fault("An entry is JSON.");
  }
  if (entry === null || typeof entry !== "object" || canonical(entry) !== text)
    throw fault("An entry's bytes are in canonical form (RFC 8785).");
  if (Object.keys(entry).sort().join(" ") !== FIELDS || entry.v !== 1 || !ENTRY_KINDS.includes(entry.kind))
    throw fault("An entry has six fields, version 1 and a known kind.");
  if (!/^[0-9a-f]{32}$/.test(entry.id) || typeof entry.detail !== "object" || !Array.isArray(entry.postings))
    throw fault("An entry has an id, a detail and postings.");
  const sums = {};
  for (const posting of entry.postings) {
    const [account, asset, bucket, amount] = Array.isArray(posting) && posting.length === 4 ? posting : [];
    if (typeof account !== "string" || !["CO2E", "POINT"].includes(asset) || ![bucket, amount].every(Number.isSafeInteger) || !amount)
      throw fault("A posting is an account, an asset, a bucket and an amount.");
    sums[asset] = (sums[asset] ?? 0n) + BigInt(amount);
  }
  if (Object.values(sums).some((sum) => sum !== 0n))
    throw new Refused("UNBALANCED", "条目的分录不平衡。", "The postings of an entry sum to zero in each asset.");
  return entry;
}

/** The entry of a receipt that holds under these keys, and the signed head it stands in. */
function verify(receipt, keys, entry = null) {
  const { index, hashes, checkpoint, extra } = readReceipt(receipt);
  const head = openCheckpoint(checkpoint, keys);
  const payload = extra ?? (entry === null ? null : encode(entry));
  if (payload === null) throw malformed("凭证中没有条目原文，请一并填入。", "The receipt does not carry its entry.");
  if (extra && entry !== null && !same(extra, encode(entry)))
    throw unverified("凭证中的条目与所填不同。", "The receipt carries another payload than the one to be proved.");
  verifyInclusion(index, head.size, leafHash(payload), hashes, head.root);
  return { index, head, entry: readEntry(payload) };
}

/** What an entry committed to, from the JSON of /opening: SHA-256(salt followed by the opening). */
function checkOpening(entry, text) {
  let given;
  try {
    given = JSON.parse(text);
  } catch {
    given = null;
  }
  const { salt, opening } = given ?? {};
  if (typeof salt !== "string" || typeof opening !== "string" || !/^[0-9a-f]{64}$/i.test(salt))
    throw malformed("承诺原文应为含 salt 与 opening 的 JSON。", "An opening is JSON with a salt of 32 bytes in hex and an opening.");
  const bytes = salt.match(/../g).map((two) => parseInt(two, 16));
  if (entry.kind !== "issue" || entry.detail.commitment !== hex(sha256(bytes, encode(opening))))
    throw unverified("原文不是该条目所承诺的内容。", "The opening is not what the entry committed to.");
  return opening;
}
