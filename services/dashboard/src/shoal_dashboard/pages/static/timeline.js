// What ran when, on a canvas: the server sends cells for the window, and single tasks where they are few. What is there
// is moved and stretched at once; what it lacks then comes a moment later.
const box = document.querySelector("[data-timeline]");
const canvas = box.querySelector("canvas");
const said = document.getElementById("timeline-said");
const whole = document.getElementById("timeline-whole");
const draw = canvas.getContext("2d");
const GUTTER = 150;
const AXIS = 22;
const LEAST_MS = 20;
const EVERY_MS = 3_000;
const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 18e5, 36e5, 108e5, 432e5, 864e5];
const job = box.dataset.job;

// The window, in milliseconds since 1970, the first lane that is shown, and where the cursor is.
const view = { from: 0, to: 1, top: 0 };
const cursor = { lane: 0, at: null };
let sheet = null;
let image = null;
let colours = [];
let following = true;
let asking = null;
let wanted = false;
let due = false;

function palette() {
  const style = getComputedStyle(box);
  const read = (name) => style.getPropertyValue(name).trim();
  colours = Array.from({ length: 8 }, (_, kind) => read(`--kind-${kind}`));
  return { ground: read("--ground"), text: read("--text"), faint: read("--faint"), line: read("--line"), bad: read("--bad"), accent: read("--accent") };
}

let ink = palette();

function channels(colour) {
  const digits = colour.replace("#", "");
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
}

function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const cells = head.lanes.length * head.columns;
  const shares = new Uint8Array(buffer, 4 + length, cells);
  const kinds = new Uint8Array(buffer, 4 + length + cells, cells);
  return { ...head, shares, kinds };
}

// A pixel a cell; stretched when it is drawn.
function paint() {
  if (!sheet || !sheet.lanes.length) return null;
  const picture = new OffscreenCanvas(sheet.columns, sheet.lanes.length);
  const context = picture.getContext("2d");
  const data = context.createImageData(sheet.columns, sheet.lanes.length);
  const pixels = data.data;
  const rgb = colours.map(channels);
  const failed = channels(ink.bad);
  for (let cell = 0; cell < sheet.shares.length; cell++) {
    const share = sheet.shares[cell];
    const bad = sheet.kinds[cell] & 0x80;
    if (!share && !bad) continue;
    const [red, green, blue] = bad ? failed : rgb[sheet.kinds[cell] & 0x7f];
    pixels[4 * cell] = red;
    pixels[4 * cell + 1] = green;
    pixels[4 * cell + 2] = blue;
    pixels[4 * cell + 3] = bad ? 255 : 70 + 0.725 * share;
  }
  context.putImageData(data, 0, 0);
  return picture;
}

function laneHeight() {
  const room = size().height - AXIS;
  return sheet ? Math.max(6, Math.min(26, room / Math.max(1, sheet.lanes.length))) : 26;
}

function size() {
  return { width: canvas.clientWidth, height: canvas.clientHeight };
}

const x = (ms) => GUTTER + ((ms - view.from) / (view.to - view.from)) * (size().width - GUTTER);
const time = (px) => view.from + ((px - GUTTER) / (size().width - GUTTER)) * (view.to - view.from);

function frame() {
  due = false;
  const { width, height } = size();
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  draw.setTransform(scale, 0, 0, scale, 0, 0);
  draw.fillStyle = ink.ground;
  draw.fillRect(0, 0, width, height);
  draw.font = "12px system-ui, sans-serif";
  draw.textBaseline = "middle";
  if (sheet) {
    axis(width, height);
    const high = laneHeight();
    draw.save();
    draw.beginPath();
    draw.rect(GUTTER, AXIS, width - GUTTER, height - AXIS);
    draw.clip();
    const single = sheet.marks && high / Math.max(1, ...sheet.rows) >= 3;
    if (single) marks(high, width, height);
    else if (image) {
      draw.imageSmoothingEnabled = false;
      const left = x(sheet.start_ms);
      const wide = x(sheet.start_ms + sheet.columns * sheet.column_ms) - left;
      draw.drawImage(image, left, AXIS - view.top * high, wide, sheet.lanes.length * high);
      draw.fillStyle = ink.ground;
      if (high > 8) for (let lane = 1; lane <= sheet.lanes.length; lane++) draw.fillRect(GUTTER, AXIS + (lane - view.top) * high - 1, width, 1.5);
    }
    draw.restore();
    names(high, height);
    if (document.activeElement === canvas && cursor.at !== null) cross(high, width, height);
  }
}

function axis(width, height) {
  const least = ((view.to - view.from) / Math.max(1, width - GUTTER)) * 90;
  const step = NICE.find((each) => each >= least) ?? NICE.at(-1);
  draw.textAlign = "left";
  for (let at = Math.ceil(view.from / step) * step; at < view.to; at += step) {
    const px = Math.round(x(at)) + 0.5;
    draw.strokeStyle = ink.line;
    draw.beginPath();
    draw.moveTo(px, AXIS - 6);
    draw.lineTo(px, height);
    draw.stroke();
    draw.fillStyle = ink.faint;
    draw.fillText(clock(at, step), px + 3, AXIS / 2);
  }
}

function clock(at, step = 1) {
  const text = new Date(at).toISOString();
  return step >= 864e5 ? text.slice(0, 10) : text.slice(11, step >= 6e4 ? 16 : step >= 1e3 ? 19 : 23);
}

function names(high, height) {
  draw.textAlign = "left";
  const every = Math.max(1, Math.ceil(14 / high));
  for (let lane = Math.ceil(view.top / every) * every; lane < sheet.lanes.length; lane += every) {
    const y = AXIS + (lane - view.top + 0.5) * high;
    if (y > height) break;
    if (y < AXIS) continue;
    draw.fillStyle = ink.faint;
    draw.fillText(sheet.lanes[lane].name, 6, y, GUTTER - 12);
  }
}

// Tasks of a lane that run at the same time lie below one another.
function marks(high, width, height) {
  for (const [lane, kind, start, end, name, failed] of sheet.placed) {
    const tall = high / Math.max(1, sheet.rows[lane]);
    const top = AXIS + (lane - view.top) * high + name.row * tall;
    if (top > height || top + tall < AXIS) continue;
    const left = Math.max(GUTTER, x(start));
    const right = Math.min(width, x(end));
    if (right < GUTTER || left > width) continue;
    const wide = Math.max(1, right - left - (right - left > 4 ? 1 : 0));
    const inner = Math.max(1, tall - (tall > 4 ? 1 : 0));
    draw.fillStyle = colours[kind];
    draw.fillRect(left, top, wide, inner);
    if (failed) {
      draw.fillStyle = ink.bad;
      draw.fillRect(left, top, wide, Math.max(2, inner / 3));
    }
    if (wide > 48 && inner > 12) {
      draw.save();
      draw.beginPath();
      draw.rect(left, top, wide, inner);
      draw.clip();
      draw.fillStyle = dark(colours[kind]) ? "#fff" : "#000";
      draw.fillText(name.text, left + 4, top + inner / 2 + (failed ? 2 : 0));
      draw.restore();
    }
  }
}

function dark(colour) {
  const [red, green, blue] = channels(colour);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}

function cross(high, width, height) {
  const px = x(cursor.at);
  const y = AXIS + (cursor.lane - view.top) * high;
  draw.strokeStyle = ink.accent;
  draw.lineWidth = 2;
  draw.strokeRect(GUTTER, y, width - GUTTER, high);
  draw.beginPath();
  draw.moveTo(px, AXIS);
  draw.lineTo(px, height);
  draw.stroke();
  draw.lineWidth = 1;
}

// Rows within lanes, once for each sheet.
function place() {
  if (!sheet.marks) return;
  const free = new Map();
  sheet.rows = new Array(sheet.lanes.length).fill(0);
  sheet.placed = sheet.marks.map(([lane, kind, start, end, name, failed]) => {
    const rows = free.get(lane) ?? [];
    free.set(lane, rows);
    let row = rows.findIndex((until) => until <= start);
    if (row < 0) row = rows.length;
    rows[row] = end;
    sheet.rows[lane] = Math.max(sheet.rows[lane], rows.length);
    return [lane, kind, start, end, { text: sheet.names[name], row }, failed];
  });
}

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(frame);
}

// One question at a time; what is asked for meanwhile is asked when it is answered.
async function ask() {
  if (asking) {
    wanted = true;
    return;
  }
  wanted = false;
  const span = view.to - view.from;
  const query = new URLSearchParams({ columns: String(Math.min(2_000, Math.round((size().width - GUTTER) * 1.5)) || 1_000) });
  if (job) query.set("job_id", job);
  if (sheet) {
    query.set("start_ms", String(Math.floor(view.from - span / 4)));
    query.set("end_ms", String(Math.ceil(view.to + span / 4)));
  }
  asking = fetch(`${box.dataset.sheet}?${query}`, { redirect: "error" });
  try {
    const answer = await asking;
    if (!answer.ok) throw new Error(await answer.text());
    const first = !sheet;
    sheet = decode(await answer.arrayBuffer());
    box.removeAttribute("aria-busy");
    place();
    image = paint();
    document.body.classList.remove("away");
    if (first) everything();
    else if (following && sheet.running) view.to = sheet.last_ms + (view.to - view.from) * 0.02;
    redraw();
  } catch {
    document.body.classList.add("away");
  } finally {
    asking = null;
    if (wanted) ask();
  }
}

function everything() {
  const span = Math.max(LEAST_MS, sheet.last_ms - sheet.first_ms);
  set(sheet.first_ms - span * 0.01, sheet.last_ms + span * 0.02);
  view.top = 0;
  following = true;
}

function set(from, to) {
  const span = Math.max(LEAST_MS, to - from);
  view.from = from;
  view.to = from + span;
  following = Boolean(sheet) && view.to >= sheet.last_ms;
  redraw();
}

function moved() {
  redraw();
  ask();
}

function pan(share, lanes = 0) {
  const span = view.to - view.from;
  set(view.from + share * span, view.to + share * span);
  const shown = (size().height - AXIS) / laneHeight();
  view.top = Math.max(0, Math.min(sheet.lanes.length - shown, view.top + lanes));
  moved();
}

function zoom(factor, at) {
  const span = Math.min((view.to - view.from) * factor, 4 * Math.max(LEAST_MS, sheet.last_ms - sheet.first_ms));
  const share = (at - view.from) / (view.to - view.from);
  set(at - share * span, at + (1 - share) * span);
  moved();
}

function point(lane, at) {
  cursor.lane = Math.max(0, Math.min(sheet.lanes.length - 1, lane));
  cursor.at = at;
  const shown = Math.floor((size().height - AXIS) / laneHeight());
  if (cursor.lane < view.top) view.top = cursor.lane;
  if (cursor.lane >= view.top + shown) view.top = cursor.lane - shown + 1;
  redraw();
  say(cursor.lane, at);
}

function say(lane, at) {
  const there = sheet.lanes[lane];
  if (!there) return;
  const mark = sheet.placed?.find((each) => each[0] === lane && each[2] <= at && at <= each[3]);
  let what = "nothing ran";
  if (mark) what = `${mark[4].text}, ${(mark[3] - mark[2]).toLocaleString("en")} ms${mark[5] ? ", failed" : ""}`;
  else {
    const column = Math.floor((at - sheet.start_ms) / sheet.column_ms);
    const cell = lane * sheet.columns + column;
    if (column >= 0 && column < sheet.columns && sheet.shares[cell]) {
      const kind = sheet.kinds[cell];
      what = `${Math.round(sheet.shares[cell] / 2.55)} % busy, most with ${sheet.functions[kind & 0x7f] ?? "other functions"}${kind & 0x80 ? "; something failed" : ""}`;
    }
  }
  said.textContent = `${there.name}, ${clock(at)} UTC: ${what}`;
}

function open(lane, at) {
  const there = sheet.lanes[lane];
  if (!there) return;
  const near = ((view.to - view.from) / size().width) * 4;
  const query = new URLSearchParams({ [there.worker_id ? "worker_id" : "node_id"]: there.worker_id || there.node_id, at_ms: String(Math.round(at)), near_ms: String(Math.ceil(near)) });
  if (job) query.set("job_id", job);
  location.assign(`${box.dataset.at}?${query}`);
}

function under(event) {
  const frame = canvas.getBoundingClientRect();
  const lane = Math.floor((event.clientY - frame.top - AXIS) / laneHeight() + view.top);
  return { lane, at: time(event.clientX - frame.left) };
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = { x: event.clientX, y: event.clientY, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!sheet) return;
  if (!drag) {
    const { lane, at } = under(event);
    if (lane >= 0 && lane < sheet.lanes.length) say(lane, at);
    return;
  }
  const [across, down] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved && Math.abs(across) + Math.abs(down) < 4) return;
  pan(-across / Math.max(1, size().width - GUTTER), -down / laneHeight());
  drag = { x: event.clientX, y: event.clientY, moved: true };
});
canvas.addEventListener("pointerup", (event) => {
  const was = drag;
  drag = null;
  if (!sheet || !was || was.moved) return;
  const { lane, at } = under(event);
  if (lane >= 0) open(lane, at);
});
canvas.addEventListener("wheel", (event) => {
  if (!sheet) return;
  event.preventDefault();
  if (event.shiftKey) pan(0, Math.sign(event.deltaY) * 3);
  else if (event.deltaX && Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / size().width);
  else zoom(1.2 ** Math.sign(event.deltaY), under(event).at);
}, { passive: false });

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => point(cursor.lane - 1, cursor.at),
  ArrowDown: () => point(cursor.lane + 1, cursor.at),
  "+": () => zoom(0.5, cursor.at),
  "=": () => zoom(0.5, cursor.at),
  "-": () => zoom(2, cursor.at),
  PageUp: () => pan(-0.5),
  PageDown: () => pan(0.5),
  Home: () => (everything(), moved()),
  Enter: () => open(cursor.lane, cursor.at),
};

function step(pixels) {
  const at = cursor.at + (pixels * (view.to - view.from)) / 100;
  if (at < view.from) pan(-0.25);
  if (at > view.to) pan(0.25);
  point(cursor.lane, at);
}

canvas.addEventListener("keydown", (event) => {
  if (!sheet || !KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  cursor.at ??= (view.from + view.to) / 2;
  KEYS[event.key]();
});
canvas.addEventListener("focus", () => {
  if (sheet) cursor.at ??= (view.from + view.to) / 2;
  redraw();
});
canvas.addEventListener("blur", redraw);
whole.addEventListener("click", () => sheet && (everything(), moved()));
new ResizeObserver(redraw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  ink = palette();
  image = paint();
  redraw();
});
document.addEventListener("visibilitychange", () => !document.hidden && ask());
setInterval(() => !document.hidden && (!sheet || (sheet.running && following)) && ask(), EVERY_MS);
whole.hidden = false;
box.setAttribute("aria-busy", "true");
ask();
