// The form that starts a job: reads the file's header, uploads the file, and shows the progress.
import { ROOT, problemMessage, readHeader } from "./wire.js";

const at = (id) => document.getElementById(id);
const FLOATS = ["F64", "F32", "F16", "BF16"];
const LISTED = 1000;
let file = null;
let header = null;

function show(id, message) {
  at(id).textContent = message ?? "";
  at(id).hidden = !message;
}

const inUnits = (bytes) => {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
};

/** Match names against globs in the service's syntax: * ? [seq] [!seq], over the whole name. */
function matcher(text) {
  const globs = text.split(/[\s,]+/).filter(Boolean);
  const forms = globs.map((glob) => {
    const body = glob.replace(/\[(!?)([^\]]+)\]|[.*+?^${}()|[\]\\]/g, (sign, not, set) =>
      set ? `[${not ? "^" : ""}${set.replace(/\\/g, "\\\\")}]` : sign === "*" ? ".*" : sign === "?" ? "." : `\\${sign}`);
    return new RegExp(`^${body}$`, "s");
  });
  return { globs, matches: (name) => forms.some((form) => form.test(name)) };
}

function listTensors() {
  if (!header) return;
  const layers = matcher(at("layers").value);
  const exclude = matcher(at("exclude").value);
  const rows = Object.entries(header).map(([name, { dtype, shape }]) => {
    const fits = shape.length >= 2 && shape.length <= 4 && !shape.includes(0);
    const selected = layers.globs.length ? layers.matches(name) : FLOATS.includes(dtype);
    return { name, dtype, shape, masked: fits && selected && !exclude.matches(name) };
  });
  const chosen = rows.filter((row) => row.masked);
  const weights = chosen.reduce((sum, row) => sum + row.shape.reduce((a, b) => a * b, 1), 0);
  at("chosen").textContent = `${chosen.length} of ${rows.length} tensors will be masked: ${weights.toLocaleString("en")} weights`;
  at("tensors").replaceChildren(...rows.slice(0, LISTED).map((row) => {
    const line = document.createElement("tr");
    for (const [text, kind] of [[row.name, "name"], [row.shape.join(" × "), "num"], [row.dtype, ""], [row.masked ? "yes" : "no", row.masked ? "" : "muted"]]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      cell.className = kind;
      line.append(cell);
    }
    return line;
  }));
}

async function choose(chosen) {
  file = header = null;
  at("contents").hidden = true;
  show("file-error");
  if (!chosen) return;
  try {
    header = await readHeader(chosen);
    file = chosen;
    at("file-name").textContent = chosen.name;
    at("file-size").textContent = inUnits(chosen.size);
    at("contents").hidden = false;
    at("drop").classList.add("full");
    document.querySelector(".drop-title").textContent = "Choose another file";
    listTensors();
  } catch (error) {
    show("file-error", `${chosen.name}: ${error.message}`);
  }
}

let pending = null;
async function preview() {
  const query = new URLSearchParams({ pattern: at("pattern").value, axis: at("axis").value, ragged: at("ragged").value });
  pending?.abort();
  pending = new AbortController();
  try {
    const response = await fetch(`${ROOT}pattern?${query}`, { signal: pending.signal });
    const parsed = new DOMParser().parseFromString(await response.text(), "text/html");
    if (response.ok) at("preview").replaceChildren(...parsed.body.childNodes);
  } catch { /* aborted by a later request, or the service is unavailable, which Start reports */ }
}

function setPattern(text) {
  at("pattern").value = text;
  at("fill").value = text.includes("<=") ? "most" : "exact";
  preview();
}

/** Add or remove the `<=` before n:m, as the field `fill` says. */
function setFill() {
  const match = at("pattern").value.match(/^\s*(transposable\s+)?(<=\s*)?(\d+:\d+(?!:).*)$/i);
  if (!match) { at("fill").value = "exact"; return; }
  const text = `${match[1] ?? ""}${at("fill").value === "most" ? "<=" : ""}${match[3]}`;
  at("pattern").value = text;
  markChoice();
  preview();
}

function markChoice() {
  for (const radio of document.querySelectorAll("[name=choice]")) radio.checked = radio.value === at("pattern").value.trim();
}

/** File and pattern, without the characters that the service refuses in a name. */
function defaultName() {
  return `${file.name.slice(0, 98)}, ${at("pattern").value.trim()}`.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "\ufffd");
}

function address() {
  const query = new URLSearchParams();
  for (const id of ["pattern", "axis", "ragged", "scores", "budget", "solver", "time_limit_s"]) {
    if (at(id).value) query.set(id, at(id).value);
  }
  for (const id of ["layers", "exclude"]) for (const glob of matcher(at(id).value).globs) query.append(id, glob);
  query.set("name", at("name").value.trim() || defaultName());
  for (const label of at("labels").value.split(/\s+/).filter(Boolean)) query.append("label", label);
  return `${ROOT}v1/masks?${query}`;
}

function send() {
  const request = new XMLHttpRequest();
  const end = (message) => {
    at("sending").hidden = true;
    at("go").disabled = false;
    show("start-error", message);
  };
  request.open("POST", address());
  request.upload.addEventListener("progress", (event) => {
    at("sent").value = event.loaded / event.total;
    at("sent-text").textContent = `${inUnits(event.loaded)} of ${inUnits(event.total)}`;
  });
  request.addEventListener("load", () => {
    if (request.status === 202 || request.status === 200) location.assign(`${ROOT}jobs/${JSON.parse(request.responseText).id}`);
    else end(problemMessage(request.responseText, request.status));
  });
  request.addEventListener("error", () => end("The connection was lost, or the service rejected the file during the upload. Try again."));
  request.addEventListener("abort", () => end("Upload stopped; no data was kept."));
  at("stop").onclick = () => request.abort();
  at("sent").value = 0;
  at("sent-text").textContent = "";
  at("sending").hidden = false;
  at("go").disabled = true;
  show("start-error");
  request.send(file);
}

at("start").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) { send(); return; }
  if (at("file-error").hidden) show("file-error", "Choose a .safetensors file first.");
  at("file").focus();
});
at("file").addEventListener("change", () => choose(at("file").files[0]));
for (const id of ["layers", "exclude"]) at(id).addEventListener("input", listTensors);
for (const radio of document.querySelectorAll("[name=choice]")) radio.addEventListener("change", () => setPattern(radio.value));
at("pattern").addEventListener("input", () => { markChoice(); at("fill").value = at("pattern").value.includes("<=") ? "most" : "exact"; preview(); });
at("fill").addEventListener("change", setFill);
for (const id of ["axis", "ragged"]) at(id).addEventListener("change", preview);

const drop = at("drop");
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); choose(event.dataTransfer.files[0]); });
preview();
