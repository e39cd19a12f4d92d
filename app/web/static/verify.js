// The page around receipt.js: text in, and in words what holds or what does not. No network.
"use strict";

const KINDS = { issue: "获得", hold: "冻结", release: "解冻", redeem: "兑换", refund: "退回", reverse: "冲正", expire: "过期", adjust: "调整" };
const field = (id) => document.getElementById(id);
const result = field("result");

function line(zh, en) {
  const made = document.createElement("p");
  const small = document.createElement("span");
  small.lang = "en";
  small.textContent = en;
  made.append(zh, " ", small);
  return made;
}

function amount([account, asset, bucket, value]) {
  const many = BigInt(value);
  const [sign, digits] = [many < 0n ? "−" : "+", String(many < 0n ? -many : many).padStart(asset === "CO2E" ? 4 : 1, "0")];
  const shown = asset === "CO2E" ? `${digits.slice(0, -3)}.${digits.slice(-3)} g CO₂e` : `${digits} 积分`;
  return `${account}：${sign}${shown}${bucket ? `（${bucket}）` : ""}`;
}

function show({ index, head, entry }, opened) {
  const items = entry.postings.map((posting) => {
    const made = document.createElement("li");
    made.textContent = amount(posting);
    return made;
  });
  const list = document.createElement("ul");
  list.append(...items);
  const [scenario, version] = entry.detail.rule ?? [];
  result.replaceChildren(
    line("凭证成立。", "The receipt holds."),
    line(`条目 ${entry.id}，第 ${index} 片叶，${KINDS[entry.kind] ?? entry.kind}，${entry.at}`, "entry, leaf, kind, time"),
    ...(scenario ? [line(`依据 ${scenario} 第 ${version} 版`, "the rule it was reckoned by")] : []),
    list,
    ...(entry.postings.some(([account]) => account.startsWith("merchant:"))
      ? [line("商户一行是它的额度：还可兑换多少积分。", "The merchant's line is its allowance: what it may still redeem.")] : []),
    line(`由 ${head.origin} 在 ${head.size} 条的账本中签名。`, `Signed by ${head.origin} in its log of ${head.size} entries.`),
    ...(opened ? [
      line("原文与条目的承诺一致：", "The opening is what the entry committed to:"),
      line(opened, ""),
    ] : []),
  );
  result.className = "holds";
}

function check() {
  try {
    const keys = readKeys(field("keys").value);
    const entry = field("entry").value.trim();
    const pasted = field("receipt").value.replaceAll("\r\n", "\n"); // and often without its last line's end
    const found = verify(pasted.endsWith("\n") ? pasted : `${pasted}\n`, keys, entry || null);
    const opening = field("opening").value.trim();
    show(found, opening ? checkOpening(found.entry, opening) : null);
  } catch (fault) {
    const told = fault instanceof Refused ? [fault.zh, `${fault.code}: ${fault.message}`] : ["无法读取。", String(fault)];
    result.replaceChildren(line(`不成立：${told[0]}`, told[1]));
    result.className = "fails";
  }
  result.hidden = false;
}

for (const name of ["receipt", "keys", "opening", "entry"])
  field(`${name}-file`).addEventListener("change", async ({ target }) => {
    const file = target.files[0];
    if (!file) return;
    try {
      field(name).value = decode(new Uint8Array(await file.arrayBuffer()));
    } catch (fault) {
      field(name).value = "";
      result.replaceChildren(line(`不成立：${fault.zh ?? fault}`, fault.message));
      result.hidden = false;
    }
  });
field("check").addEventListener("click", check);
