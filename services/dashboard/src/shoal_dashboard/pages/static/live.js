// Follows the page that is open: the server sends it again when it has changed, and what differs is put in its place.
// What the reader has typed, selected, scrolled to and focused stays. Elements with data-own belong to a script.
const AGAIN_MS = 10_000;
const main = document.querySelector("main");
let stream = null;
let held = null;

function alike(now, then) {
  return now.nodeType === then.nodeType && now.nodeName === then.nodeName && now.dataset?.key === then.dataset?.key;
}

function patch(now, then) {
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.nodeValue !== then.nodeValue) now.nodeValue = then.nodeValue;
    return;
  }
  if (now.dataset.own !== undefined) return;
  for (const { name } of [...now.attributes]) if (!then.hasAttribute(name)) now.removeAttribute(name);
  for (const { name, value } of then.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  patchChildren(now, then);
}

function patchChildren(now, then) {
  const keyed = new Map([...now.children].filter((each) => each.dataset.key).map((each) => [each.dataset.key, each]));
  let at = now.firstChild;
  for (const next of [...then.childNodes]) {
    const same = keyed.get(next.dataset?.key) ?? at;
    if (!same || !alike(same, next)) {
      now.insertBefore(next, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else now.insertBefore(same, at);
    patch(same, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function selecting() {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && main.contains(selection.anchorNode);
}

function show(text) {
  held = text;
  if (selecting()) return;
  held = null;
  const page = new DOMParser().parseFromString(`<main>${text}</main>`, "text/html");
  patchChildren(main, page.querySelector("main"));
  document.dispatchEvent(new Event("shoal:shown"));
}

function away(is) {
  document.body.classList.toggle("away", is);
}

function follow() {
  stream?.close();
  stream = null;
  if (document.hidden) return;
  const mine = (stream = new EventSource(location.href));
  mine.addEventListener("page", (event) => {
    away(false);
    show(event.data);
  });
  mine.addEventListener("away", () => away(true));
  mine.onerror = () => {
    away(true);
    // Another status than 200: it does not try again by itself.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => mine === stream && follow(), AGAIN_MS);
  };
}

document.addEventListener("selectionchange", () => held !== null && show(held));
document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => stream?.close());
addEventListener("pageshow", (event) => event.persisted && follow());
follow();
