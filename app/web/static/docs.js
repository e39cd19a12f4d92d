// Draws /openapi.json as a readable page: tags, operations, parameters, bodies, answers.
import { make, prose, read, row } from "./dom.js";

const METHODS = ["get", "put", "post", "delete"];
const WHO = { provider: "运营方签名", resident: "居民令牌（Bearer）", admin: "管理员会话（Bearer）" };
const DEEP = 3;

let spec;

function follow(value) {
  if (!value?.$ref) return value ?? {};
  return value.$ref.slice(2).split("/").reduce((at, key) => at[key], spec);
}

function kindOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" | ");
  if (schema.type === "array") return `${kindOf(schema.items ?? {})}[]`;
  const kind = [].concat(schema.format ?? schema.type ?? "any").join(" | ");
  return schema.enum ? `${kind}: ${schema.enum.join(", ")}` : kind;
}

function table(rows) {
  const head = make("tr", {}, ...["名称", "类型", "说明"].map((name) => make("th", {}, name)));
  return make("div", { className: "wide" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map((cells) => row(cells)))));
}

function fields(schema, depth = 0, prefix = "") {
  const found = follow(schema);
  if (found.anyOf) return found.anyOf.flatMap((one) => fields(one, depth, prefix));
  if (found.type === "array") return fields(found.items, depth, `${prefix.slice(0, -1)}[].`);
  return Object.entries(found.properties ?? {}).flatMap(([name, inner]) => {
    const needed = found.required?.includes(name) ? "" : "（可缺）";
    const own = [make("code", {}, prefix + name), kindOf(inner) + needed, inner.description ?? ""];
    return [own, ...(depth < DEEP ? fields(inner, depth + 1, `${prefix}${name}.`) : [])];
  });
}

function contents(label, holder) {
  return Object.entries(holder.content ?? {}).flatMap(([type, media]) => {
    const rows = media.schema ? fields(media.schema) : [];
    return [make("h4", {}, `${label} `, make("code", {}, type)), ...(rows.length ? [table(rows)] : [])];
  });
}

function operation(method, path, item) {
  const needs = (item.security ?? []).flatMap(Object.keys).map((name) => WHO[name] ?? name);
  const parameters = (item.parameters ?? []).map(follow);
  const shown = Object.entries(item.responses ?? {}).filter(([status]) => status.startsWith("2"));
  return make("details", {},
    make("summary", {}, make("b", {}, method.toUpperCase()), " ", make("code", {}, path), " ",
      make("span", {}, ...prose(item.summary ?? ""))),
    ...(item.description ?? "").split("\n\n").map((text) => make("p", {}, ...prose(text))),
    ...(needs.length ? [make("p", { className: "quiet" }, `认证：${needs.join("，")}`)] : []),
    ...(parameters.length ? [make("h4", {}, "参数"), table(parameters.map((one) => [
      make("code", {}, one.name), `${kindOf(one.schema ?? {})}${one.required ? "" : "（可缺）"}`, one.description ?? "",
    ]))] : []),
    ...(item.requestBody ? contents("请求体", item.requestBody) : []),
    ...shown.flatMap(([status, answer]) => contents(`应答 ${status}`, follow(answer))));
}

function section(tag) {
  const [zh, rest] = (tag.description ?? tag.name).split("：");
  const title = make("h2", { id: tag.name }, rest ? zh : tag.name, " ", make("small", { lang: "en" }, tag.name));
  const operations = Object.entries(spec.paths).flatMap(([path, methods]) => METHODS
    .filter((method) => methods[method]?.tags?.includes(tag.name))
    .map((method) => operation(method, path, {
      ...methods[method],
      parameters: [...(methods.parameters ?? []), ...(methods[method].parameters ?? [])],
    })));
  return [title, make("p", {}, rest ?? ""), ...operations];
}

spec = await read("/openapi.json");
document.getElementById("operations").append(...spec.tags.flatMap(section));
document.getElementById("contents").append(
  ...[...document.querySelectorAll("h2")].map((h2) => make("a", { href: `#${h2.id}` }, h2.firstChild.textContent)));
const { items } = await read("/problems");
document.querySelector("#problems tbody").append(
  ...items.map((one) => row([make("code", {}, one.code), String(one.status), one.title])));
