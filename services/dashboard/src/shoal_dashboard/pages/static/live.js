// Reads the page again while somebody looks at it, and puts what has changed in the place of what was there.
const EVERY_MS = 3000;

function busy() {
  const selection = document.getSelection();
  const live = document.querySelector("[data-live]");
  return document.hidden || !live || (selection && !selection.isCollapsed) || live.contains(document.activeElement);
}

async function refresh() {
  if (busy()) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok || busy()) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [now, then] = [document.querySelector("[data-live]"), page.querySelector("[data-live]")];
    if (now && then && now.innerHTML !== then.innerHTML) now.replaceChildren(...then.childNodes);
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away");
  }
}

setInterval(refresh, EVERY_MS);
