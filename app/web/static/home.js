// The city's figures on the first page, from the public API.
import { AREAS, grouped, make, mass, read, row } from "./dom.js";

const put = (id, ...children) => document.getElementById(id).replaceChildren(...children);

async function figures() {
  const city = await read("/api/v1/figures");
  const [amount, unit] = mass(city.reduction_mg);
  put("reduction", amount, make("small", {}, ` ${unit}`));
  put("entries", grouped(city.log_size));
  const sealed = city.sealed_at;
  put("sealed", sealed ? sealed.slice(0, 19).replace("T", " ") : "尚无");
  const most = Math.max(1, ...city.areas.map((one) => Number(one.reduction_mg)));
  put("areas", ...city.areas.flatMap((one) => [
    make("b", {}, AREAS[one.area]),
    make("progress", { max: most, value: Number(one.reduction_mg), ariaLabel: AREAS[one.area] }),
    make("span", { className: "number" }, mass(one.reduction_mg).join(" ")),
  ]));
}

async function budgets() {
  const { items } = await read("/api/v1/budgets");
  const total = items.reduce((sum, one) => sum + BigInt(one.issued_points), 0n);
  put("points", grouped(total));
  document.querySelector("#budgets tbody").replaceChildren(...items.map((one) => {
    const scope = one.scope === "*" ? "其他场景" : AREAS[one.scope] ?? one.scope;
    const name = make("span", {}, one.name, make("small", {}, ` ${scope}`));
    const points = ["funded", "issued", "left", "waiting"].map((what) => grouped(one[`${what}_points`]));
    return row([name, ...points], 1);
  }));
}

async function scenarios() {
  const { items } = await read("/api/v1/scenarios");
  put("scenarios", String(items.filter((one) => one.enabled).length));
}

await Promise.allSettled([figures(), budgets(), scenarios()]);
