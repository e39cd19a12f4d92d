// Building pages out of data. What comes from data goes in as text, never as markup.

/** An element with properties and children; a string child is text. */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Text whose `backticked` parts are code. */
export function prose(text) {
  return text.split("`").map((part, n) => (n % 2 ? make("code", {}, part) : part));
}

/** A row of cells; those from the column `numbers` on stand to the right. */
export function row(cells, numbers = cells.length) {
  return make("tr", {}, ...cells.map((cell, n) =>
    make("td", n < numbers ? {} : { className: "number" }, cell)));
}

export async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

export const AREAS = {
  clothing: "衣", food: "食", housing: "住", travel: "行", banking: "银", shopping: "购", tourism: "游",
};

/** Amounts are strings of whole numbers, at times beyond what a Number can hold. */
export function grouped(text) {
  return BigInt(text).toLocaleString("zh-CN");
}

/** Milligrams as kilograms or, from ten tonnes on, as tonnes. */
export function mass(mg) {
  const kg = Number(BigInt(mg) / 1000n) / 1000;
  const large = kg >= 10_000;
  const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
  return [(large ? kg / 1000 : kg).toLocaleString("zh-CN", digits), large ? "吨" : "kg"];
}
