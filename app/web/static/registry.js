// The registry: each scenario's edition in force, what will change, and where grid factors are from.
import { AREAS, make, read, row } from "./dom.js";

const PER = { day: "每日", month: "每月" };
const OF = { count: "次", grams: "克", points: "积分" };
const EVIDENCE = {
  record: "业务记录", meter: "计量表", scale: "称重", device: "设备传感", photo: "照片", code: "扫码", declared: "自述",
};
const SENSITIVE = { movement: "行踪轨迹", finance: "金融账户", health: "医疗健康" };
const STATE = { scheduled: "待生效", in_force: "生效中", superseded: "已被取代", withdrawn: "已撤回" };
const KIND = {
  new: "新增", coefficient: "系数", cap: "上限", rule: "核验规则", input: "数量", text: "文字",
  eligibility: "适用条件", rate: "积分比例", group: "互斥", state: "启停", source: "来源",
};
const LATEST = 10;

function source(one) {
  const known = /^https?:$/.test(URL.canParse(one.url) ? new URL(one.url).protocol : "");
  const year = one.year ? `，${one.year}` : "";
  return make("span", {}, known ? make("a", { href: one.url, rel: "noreferrer" }, one.source) : one.source, year);
}

function table(names, rows) {
  const head = make("tr", {}, ...names.map((name) => make("th", {}, name)));
  return make("div", { className: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function quiet(node) {
  node.className = "quiet";
  return node;
}

function numbers(edition) {
  if (!edition.coefficients.length) return make("p", { className: "quiet" }, "尚未见到公开数值。");
  return table(["系数", "数值", "来源"], edition.coefficients.flatMap((one) => [
    row([one.title.zh, make("b", {}, one.value ? `${one.value} ${one.unit}` : "未公布"),
      make("span", {}, source(one), `（可信度 ${one.confidence}）`)]),
    ...(one.alternatives ?? []).map((other) => quiet(row(["别处", `${other.value} ${other.unit}`, source(other)]))),
  ]));
}

function rule(one, titles) {
  const what = {
    speed: `时速不超过 ${one.maximum} km`,
    count: `${PER[one.per]}不超过 ${one.maximum} 次`,
    total: `${titles[one.of]}每日合计不超过 ${one.maximum}`,
    given: `须提供${titles[one.of]}`,
  }[one.kind];
  return `核验：${what}${one.mode === "shadow" ? "（试运行，只记录不拒绝）" : ""}`;
}

function conditions(edition) {
  const titles = Object.fromEntries(edition.inputs.map((one) => [one.name, one.title.zh]));
  const bounds = edition.inputs.filter((one) => one.unit).map(
    (one) => `${one.title.zh}：${one.minimum} 至 ${one.maximum} ${one.unit}${one.presence === "optional" ? "（可不提供）" : ""}`);
  const excluded = edition.inputs.filter((one) => one.role === "exclusion").map((one) => `不计入：${one.title.zh}`);
  const caps = edition.caps.map((cap) =>
    `${PER[cap.per]}${cap.of === "count" ? "计" : "积分最多按"} ${cap.limit} ${OF[cap.of]}（${cap.source}）`);
  const group = edition.group ? [`与 ${edition.group.members.filter((name) => name !== edition.scenario).join("、")} ${PER[edition.group.per]}只计其一`] : [];
  const act = edition.act ? ["同一次出行由多方申报时只计一次"] : [];
  const sensitive = edition.sensitive.map((name) => SENSITIVE[name]).join("、");
  const lines = [
    edition.eligibility.zh, ...bounds, ...excluded, ...caps, ...(edition.rules ?? []).map((one) => rule(one, titles)), ...group, ...act,
    `凭证（${EVIDENCE[edition.evidence.kind]}）：${edition.evidence.zh}`,
    `授权：${edition.consent.zh}${sensitive ? `（涉及敏感个人信息：${sensitive}）` : ""}`,
    `每千克 ${edition.rate.points_per_kg} 积分，有效 ${edition.rate.validity_months} 个月`,
  ];
  return make("ul", {}, ...lines.map((line) => make("li", {}, line)));
}

/** The number at a glance: a difference, a product, a range over classes, or the one factor. */
function glance({ formula, coefficients }) {
  if (!coefficients.length || coefficients.some((one) => !one.value)) return "暂无数值";
  const { baseline, project, detour, production, rate, factor } =
    Object.fromEntries(coefficients.map((one) => [one.name, one.value]));
  const shown = {
    difference: `${baseline} − ${project}`,
    detour: `${baseline} − ${project} × ${detour}`,
    substitution: `${production} × ${rate}`,
    by_class: range(coefficients.map((one) => one.value)),
  }[formula] ?? factor;
  return `${shown} ${coefficients.find((one) => one.unit !== "1").unit}`;
}

function range(values) {
  const sorted = values.map(Number).sort((a, b) => a - b);
  return `${sorted[0]} – ${sorted.at(-1)}`;
}

/** What the next edition will change, if one is published already. */
async function ahead(scenario) {
  if (!scenario.next || !scenario.in_force) return [];
  const next = scenario.versions.find((one) => one.number === scenario.next);
  const path = `/api/v1/scenarios/${scenario.id}/differences?from=${scenario.in_force}&to=${next.number}`;
  const { items } = await read(path);
  const shown = items.filter((one) => !/\.(alternatives|url|tag)$/.test(one.field));
  return [make("h4", {}, `第 ${next.number} 版自 ${next.effective_from} 起改为（`, make("a", { href: path }, "全部差异"), "）"),
    table(["字段", "现在", "将来"], shown.map((one) => row([make("code", {}, one.field), one.old, one.new])))];
}

function editions(scenario) {
  return make("p", { className: "quiet" }, ...scenario.versions.flatMap((one) => [
    make("a", { href: `/api/v1/scenarios/${scenario.id}/versions/${one.number}` }, `第 ${one.number} 版`),
    ` 自 ${one.effective_from}，${STATE[one.state]}，SHA-256 `, make("code", {}, one.digest), make("br")]));
}

async function card(scenario) {
  const number = scenario.in_force ?? scenario.next ?? scenario.versions.at(-1).number;
  const edition = await read(`/api/v1/scenarios/${scenario.id}/versions/${number}`);
  const head = make("summary", {}, make("b", {}, scenario.title_zh), " ",
    make("span", { lang: "en" }, scenario.title_en),
    make("span", { className: "value" }, scenario.enabled ? glance(edition) : "未开放"));
  return make("details", {}, head,
    make("p", { className: "quiet" }, make("code", {}, scenario.id), ` 方法学可信度 ${scenario.confidence}`),
    ...(edition.disabled ? [make("p", {}, edition.disabled.zh)] : []),
    numbers(edition), conditions(edition), ...await ahead(scenario), editions(scenario));
}

async function areas() {
  const { items, notice_days } = await read("/api/v1/scenarios");
  const cards = await Promise.all(items.map(card));
  document.getElementById("notice").textContent = `变更至少提前 ${notice_days} 天公布。`;
  const main = document.getElementById("areas");
  for (const [area, title] of Object.entries(AREAS)) {
    const here = cards.filter((_, n) => items[n].area === area);
    if (here.length) main.append(make("h2", { id: area }, title, " ", make("small", { lang: "en" }, area)), ...here);
  }
}

async function changes() {
  const { items } = await read(`/api/v1/scenarios/changes?limit=${LATEST}`);
  const rows = items.map((one) => row([
    one.recorded_date, one.change === "published" ? "公布" : "撤回", one.effective_from,
    one.areas.map((area) => AREAS[area]).join("、"), one.kinds.map((kind) => KIND[kind] ?? kind).join("、"),
    make("span", {}, one.title ?? "随程序公布", make("small", {}, one.reason ? ` ${one.reason}` : "")),
    String(one.editions.length)]));
  document.getElementById("changes").append(table(["日期", "", "生效", "领域", "变更", "说明", "场景"], rows));
}

async function grid() {
  const { factors, elsewhere, unused } = await read("/api/v1/grid-factors");
  document.getElementById("grid").append(
    table(["地区", "年份", "克/千瓦时", "来源"], [
      ...factors.map((one) => row([one.title_zh, String(one.year), make("b", {}, one.value), source({ ...one, year: 0 })])),
      ...elsewhere.map((one) => quiet(row(["别处", "", one.value, source(one)]))),
      ...unused.map((one) => quiet(row([one.title_zh, "不用", one.value, make("span", {}, one.reason_zh, "（", source(one), "）")])))]));
}

await Promise.allSettled([areas(), changes(), grid()]);
