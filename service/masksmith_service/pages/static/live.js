// Live updates: replaces elements with data-live by those of a new copy of the page, which the server renders.

import { countText } from "./quantities.js";

const PAUSE_MS = 700;
const POLL_MS = 3000;
let latestRequest = 0;

/** Fetch an address and update the live elements; the response to an earlier request is ignored. */
async function refresh(address = location.href) {
  const request = ++latestRequest;
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (!response.ok || request !== latestRequest) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (request !== latestRequest) return;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other) morph(part, other);
  }
  document.title = fresh.title;
}

/** Update an element to equal another one, changing only what differs, so that focus and pressed buttons are kept. */
function morph(current, updated) {
  if (current.isEqualNode(updated)) return;
  if (current.nodeName !== updated.nodeName) { current.replaceWith(document.importNode(updated, true)); return; }
  if (current.nodeType !== Node.ELEMENT_NODE) { current.nodeValue = updated.nodeValue; return; }
  for (const { name } of [...current.attributes]) if (!updated.hasAttribute(name)) current.removeAttribute(name);
  for (const { name, value } of updated.attributes) if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  const [mine, other] = [[...current.childNodes], [...updated.childNodes]];
  other.forEach((node, place) => (place < mine.length ? morph(mine[place], node) : current.append(document.importNode(node, true))));
  for (const node of mine.slice(other.length)) node.remove();
}

/** Throttle: call at once, then at most once per PAUSE_MS. */
function throttle(action) {
  let timer = null;
  let again = false;
  const run = () => {
    if (timer) { again = true; return; }
    action();
    timer = setTimeout(() => { timer = null; if (again) { again = false; run(); } }, PAUSE_MS);
  };
  return run;
}

function follow(address) {
  const events = new EventSource(address);
  const spoken = document.getElementById("spoken");
  const update = throttle(() => refresh().catch(() => {}));
  let tenths = 0;
  events.addEventListener("progress", (event) => {
    const { done, total } = JSON.parse(event.data);
    const bar = document.querySelector("#head progress");
    if (bar) { bar.max = total; bar.value = done; }
    const counted = document.getElementById("counted");
    if (counted) counted.textContent = `${countText(done)} of ${countText(total)} ${counted.dataset.unit}`;
    if (spoken && Math.floor((10 * done) / total) > tenths) {
      tenths = Math.floor((10 * done) / total);
      spoken.textContent = `${10 * tenths} percent done`;
    }
    update();
  });
  events.addEventListener("state", (event) => {
    const { state } = JSON.parse(event.data);
    if (spoken) spoken.textContent = `The job is ${state}`;
    if (["succeeded", "failed", "canceled"].includes(state)) events.close();
    update();
  });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  refresh();
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-swap]")) return;
  event.preventDefault();
  history.pushState(null, "", `?${new URLSearchParams(new FormData(form))}`);
  refresh();
});
document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-swap] select")) event.target.form.requestSubmit();
});
addEventListener("popstate", () => refresh());

const stream = document.querySelector("[data-events]")?.dataset.events;
if (stream) follow(stream);
setInterval(() => {
  if (document.querySelector("[data-poll], [data-repeat]") && !document.hidden) refresh().catch(() => {});
}, POLL_MS);
