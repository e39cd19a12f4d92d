// The registry: each scenario's newest edition, by area.
import { AREAS, make, read, row } from "./dom.js";

const PER = { day: "每日", month: "每月" };
const OF = { count: "次", grams: "克", points: "积分" };

function source(one) {
  const known = /^https?:$/.test(URL.canParse(one.url) ? new URL(one.url).protocol : "");
  const year = one.year ? `，${one.year}` : "";
  return make("span", {}, known ? make("a", { href: one.url, rel: "noreferrer" }, one.source) : one.source, year);
}

function numbers(edition) {
  const body = make("tbody");
  for (const one of edition.coefficients) {
    body.append(row([
      one.title.zh, make("b", {}, `${one.value} ${one.unit}`), make("span", {}, source(one), `（可信度 ${one.confidence}）`),
    ]));
    for (const other of one.alternatives ?? []) {
      body.append(row(["别处", `${other.value} ${other.unit}`, source(other)]));
      body.lastChild.className = "quiet";
    }
  }
  const head = make("tr", {}, ...["系数", "数值", "来源"].map((name) => make("th", {}, name)));
  return make("div", { className: "wide" }, make("table", {}, make("thead", {}, head), body));
}

function rules(edition) {
  const bounds = edition.inputs.filter((one) => one.unit).map(
    (one) => `${one.title.zh}：${one.minimum} 至 ${one.maximum} ${one.unit}`);
  const caps = edition.caps.map((cap) =>
    `${PER[cap.per]}${cap.of === "count" ? "计" : "积分最多按"} ${cap.limit} ${OF[cap.of]}（${cap.source}）`);
  const group = edition.group ? [`与 ${edition.group.members.filter((name) => name !== edition.scenario).join("、")} ${PER[edition.group.per]}只计其一`] : [];
  const lines = [edition.conditions.zh, ...bounds, ...caps, ...group, `每千克 ${edition.rate.points_per_kg} 积分，有效 ${edition.rate.validity_months} 个月`];
  return make("ul", {}, ...lines.map((line) => make("li", {}, line)));
}

/** The number at a glance: a difference, a range over classes, or the one factor. */
function glance({ formula, coefficients }) {
  const values = coefficients.map((one) => one.value);
  const shown = { difference: values.join(" − "), by_class: range(values) }[formula] ?? values[0];
  return `${shown} ${coefficients[0].unit}`;
}

function range(values) {
  const sorted = values.map(Number).sort((a, b) => a - b);
  return `${sorted[0]} – ${sorted.at(-1)}`;
}

function card(scenario, version, edition) {
  const head = make("summary", {}, make("b", {}, scenario.title_zh), " ",
    make("span", { lang: "en" }, scenario.title_en), make("span", { className: "value" }, scenario.enabled ? glance(edition) : "未开放"));
  const path = `/api/v1/scenarios/${scenario.id}/versions/${version.number}`;
  return make("details", {}, head,
    make("p", { className: "quiet" }, make("code", {}, scenario.id), ` 第 ${version.number} 版，自 ${version.effective_from}，`,
      make("a", { href: path }, "原文"), " SHA-256 ", make("code", {}, version.digest)),
    ...(edition.disabled ? [make("p", {}, edition.disabled.zh)] : []),
    numbers(edition), rules(edition));
}

const { items } = await read("/api/v1/scenarios");
const cards = await Promise.all(items.map(async (one) => {
  const version = one.versions.at(-1);
  return card(one, version, await read(`/api/v1/scenarios/${one.id}/versions/${version.number}`));
}));
const main = document.getElementById("areas");
for (const [area, title] of Object.entries(AREAS)) {
  const here = cards.filter((_, n) => items[n].area === area);
  if (here.length) main.append(make("h2", { id: area }, title, " ", make("small", { lang: "en" }, area)), ...here);
}
