// Draws /openapi.json as a readable page: tags, operations, parameters, bodies, answers.
"use strict";

const METHODS = ["get", "put", "post", "delete"];

// Everything from the document goes in as text, never as markup.
function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function follow(spec, value) {
  if (!value || !value.$ref) return value || {};
  return value.$ref.slice(2).split("/").reduce((at, key) => at[key], spec);
}

function kindOf(spec, schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return kindOf(spec, schema.items || {}) + "[]";
  const kind = [].concat(schema.type || "any").join(" | ");
  return schema.enum ? `${kind}: ${schema.enum.join(", ")}` : kind;
}

function table(rows) {
  const body = make("tbody");
  for (const cells of rows) body.append(make("tr", "", ...cells.map((cell) => make("td", cell))));
  return make("table", "", body);
}

function fields(spec, schema, depth = 0, prefix = "") {
  const found = follow(spec, schema);
  if (found.type === "array") return fields(spec, found.items, depth, prefix);
  const rows = [];
  for (const [name, inner] of Object.entries(found.properties || {})) {
    const required = (found.required || []).includes(name);
    rows.push([prefix + name, kindOf(spec, inner), required ? "required" : "", inner.description || ""]);
    if (depth < 3) rows.push(...fields(spec, inner, depth + 1, `${prefix}${name}.`));
  }
  return rows;
}

function contents(spec, label, holder) {
  const nodes = [];
  for (const [type, media] of Object.entries(holder.content || {})) {
    nodes.push(make("p", `${label}: ${type}`));
    const rows = media.schema ? fields(spec, media.schema) : [];
    if (rows.length) nodes.push(table(rows));
  }
  return nodes;
}

function operation(spec, method, path, item) {
  const node = make("details");
  const head = make("summary", "", make("b", method.toUpperCase()), make("code", path));
  node.append(make("summary", "", ...head.childNodes, " ", make("span", item.summary || "")));
  if (item.description) node.append(make("p", item.description));
  for (const need of item.security || []) node.append(make("p", `Auth: ${Object.keys(need).join(", ")}`));
  const parameters = (item.parameters || []).map((one) => follow(spec, one));
  if (parameters.length) {
    node.append(make("p", "Parameters"), table(parameters.map((one) => [
      one.name, one.in, kindOf(spec, one.schema || {}), one.required ? "required" : "", one.description || "",
    ])));
  }
  if (item.requestBody) node.append(...contents(spec, "Body", item.requestBody));
  for (const [status, answer] of Object.entries(item.responses || {})) {
    const found = follow(spec, answer);
    node.append(make("p", `${status} ${found.description || ""}`), ...contents(spec, "Answer", found));
  }
  return node;
}

async function draw() {
  const spec = await (await fetch("/openapi.json")).json();
  document.getElementById("title").textContent = spec.info.title;
  document.getElementById("about").textContent = spec.info.description || "";
  const main = document.getElementById("operations");
  for (const tag of spec.tags || []) {
    main.append(make("h2", tag.name), make("p", tag.description || ""));
    for (const [path, methods] of Object.entries(spec.paths)) {
      const shared = methods.parameters || [];
      for (const method of METHODS.filter((name) => methods[name])) {
        const item = { ...methods[method], parameters: shared.concat(methods[method].parameters || []) };
        if ((item.tags || []).includes(tag.name)) main.append(operation(spec, method, path, item));
      }
    }
  }
}

draw();
