// Charts of the last hour: fetched once, then what has come since; read by pointer or by arrow keys.
const box = document.querySelector("[data-charts]");
const EVERY_MS = 5_000;
const [WIDE, HIGH, LEFT, BOTTOM, TOP] = [420, 150, 62, 18, 8];
const SVG = "http://www.w3.org/2000/svg";
// Of the hour, at least so many steps are drawn: a dashboard that has just begun knows of few.
const LEAST = 120;
let known = null;
let drawn = LEAST;
let figures = [];

function element(name, attributes = {}, parent = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function shown(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit !== "bytes") return value >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  let at = 0;
  for (; value >= 1024 && at < 4; at++) value /= 1024;
  return `${Number(value.toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
}

function ceiling(most, unit) {
  if (!(most > 0)) return 1;
  if (unit === "bytes") return 2 ** Math.ceil(Math.log2(most));
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= most);
}

function figure(chart) {
  const made = document.createElement("figure");
  const title = document.createElement("figcaption");
  const said = document.createElement("p");
  const svg = element("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, tabindex: "0", role: "img" });
  title.textContent = chart.title;
  said.className = "said";
  made.append(title, svg, said);
  box.append(made);
  const one = { chart, svg, said, at: null };
  const point = (event) => {
    const frame = svg.getBoundingClientRect();
    const share = ((event.clientX - frame.left) / frame.width * WIDE - LEFT) / (WIDE - LEFT);
    one.at = Math.max(0, Math.min(drawn - 1, Math.round(share * (drawn - 1))));
    draw(one);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerleave", () => ((one.at = null), draw(one)));
  svg.addEventListener("blur", () => ((one.at = null), draw(one)));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -60, PageDown: 60 }[event.key];
    if (!step) return;
    event.preventDefault();
    one.at = Math.max(0, Math.min(drawn - 1, (one.at ?? drawn - 1) + step));
    draw(one);
  });
  return one;
}

function draw(one) {
  const { chart, svg, said } = one;
  const lines = Object.entries(chart.lines).map(([name, called]) => ({ called, values: (known.series[name] ?? []).slice(-drawn) }));
  const most = ceiling(Math.max(0, ...lines.flatMap((line) => line.values.map((value) => value ?? 0))), chart.unit);
  const x = (at) => LEFT + (at / (drawn - 1)) * (WIDE - LEFT - 2);
  const y = (value) => TOP + (1 - value / most) * (HIGH - TOP - BOTTOM);
  svg.replaceChildren();
  for (const share of [0, 0.5, 1]) {
    element("line", { class: "grid", x1: LEFT, x2: WIDE, y1: y(share * most), y2: y(share * most) }, svg);
    element("text", { x: LEFT - 5, y: y(share * most) + 4, "text-anchor": "end" }, svg).textContent = shown(share * most, chart.unit);
  }
  for (const share of [0, 1 / 3, 2 / 3, 1]) {
    const minutes = Math.round(((1 - share) * drawn * known.step_s) / 60);
    const anchor = ["start", "middle", "middle", "end"][Math.round(share * 3)];
    element("text", { x: x(share * (drawn - 1)), y: HIGH - 4, "text-anchor": anchor }, svg).textContent = minutes ? `−${minutes} min` : "now";
  }
  lines.forEach((line, number) => {
    const missing = drawn - line.values.length;
    let path = "";
    line.values.forEach((value, at) => {
      if (value === null) return;
      const begins = at === 0 || line.values[at - 1] === null;
      path += `${begins ? "M" : "L"}${x(at + missing).toFixed(1)} ${y(value).toFixed(1)}`;
      if (begins && (at === line.values.length - 1 || line.values[at + 1] === null)) path += "h1";
    });
    if (path) element("path", { class: `line line-${number}`, d: path }, svg);
  });
  if (one.at !== null) element("line", { class: "cursor", x1: x(one.at), x2: x(one.at), y1: TOP, y2: HIGH - BOTTOM }, svg);
  const at = one.at ?? drawn - 1;
  const ago = ((drawn - 1 - at) * known.step_s) / 60;
  const values = lines.map((line) => `${line.called} ${shown(line.values[at - drawn + line.values.length], chart.unit)}`).join(", ");
  svg.setAttribute("aria-label", `${chart.title}: ${values}`);
  said.textContent = `${one.at === null ? "now" : `${ago.toFixed(1)} min ago`}: ${values}`;
}

async function ask() {
  const url = new URL(box.dataset.charts, location.href);
  if (known) url.searchParams.set("after", String(known.newest));
  try {
    const answer = await fetch(url, { redirect: "error" });
    if (!answer.ok) return;
    const now = await answer.json();
    for (const [name, values] of Object.entries(now.series)) {
      now.series[name] = [...(known?.series[name] ?? []), ...values].slice(-now.steps);
    }
    known = now;
    const told = Object.values(known.series).map((values) => values.length - values.findIndex((value) => value !== null));
    drawn = Math.min(known.steps, Math.max(LEAST, ...told.filter((steps) => steps <= known.steps)));
    if (!figures.length) figures = now.charts.map(figure);
    figures.forEach(draw);
  } catch {
    // The page itself says that its server is away.
  }
}

setInterval(() => !document.hidden && ask(), EVERY_MS);
document.addEventListener("visibilitychange", () => !document.hidden && ask());
if (box) ask();
