// Keeps a page true: parts marked data-live are taken anew from the server, whose templates remain the only ones.

const PAUSE_MS = 700;
const POLL_MS = 3000;
let asked = 0;

/** Fetch an address and put its live parts in the place of ours; a later request beats an earlier one. */
async function refresh(address = location.href) {
  const turn = ++asked;
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (!response.ok || turn !== asked) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (turn !== asked) return;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other) assimilate(part, other);
  }
  document.title = fresh.title;
}

/** Make our element like another, touching only what differs: a button that is being pressed stays the same button. */
function assimilate(ours, theirs) {
  if (ours.isEqualNode(theirs)) return;
  if (ours.nodeName !== theirs.nodeName) { ours.replaceWith(document.importNode(theirs, true)); return; }
  if (ours.nodeType !== Node.ELEMENT_NODE) { ours.nodeValue = theirs.nodeValue; return; }
  for (const { name } of [...ours.attributes]) if (!theirs.hasAttribute(name)) ours.removeAttribute(name);
  for (const { name, value } of theirs.attributes) if (ours.getAttribute(name) !== value) ours.setAttribute(name, value);
  const [mine, other] = [[...ours.childNodes], [...theirs.childNodes]];
  other.forEach((node, place) => (place < mine.length ? assimilate(mine[place], node) : ours.append(document.importNode(node, true))));
  for (const node of mine.slice(other.length)) node.remove();
}

/** Call at once, then at most once in a while. */
function calmly(action) {
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
  const update = calmly(() => refresh().catch(() => {}));
  let tenths = 0;
  events.addEventListener("progress", (event) => {
    const { done, total } = JSON.parse(event.data);
    const bar = document.querySelector("#head progress");
    if (bar) { bar.max = total; bar.value = done; }
    const counted = document.getElementById("counted");
    if (counted) counted.textContent = `${done} of ${total} shards`;
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
  if (document.querySelector("[data-poll]") && !document.hidden) refresh().catch(() => {});
}, POLL_MS);
