// The form that starts a job: reads the headers of the files, uploads them, and shows the progress.
import { countText, sizeText } from "./quantities.js";
import { droppedFiles, listTensors, matcher, readTensors, weightFiles } from "./selection.js";
import { Sender } from "./sending.js";
import { ROOT } from "./wire.js";

const at = (id) => document.getElementById(id);
let files = [];
let tensors = null;

function show(id, message) {
  at(id).textContent = message ?? "";
  at(id).hidden = !message;
}

const list = () => { if (tensors) listTensors(tensors); };
const size = (chosen) => chosen.reduce((sum, file) => sum + file.size, 0);

async function choose(given) {
  if (!given.length) return;
  files = [];
  tensors = null;
  at("contents").hidden = true;
  show("file-error");
  const chosen = weightFiles(given);
  try {
    if (!chosen.length) throw new Error("There is no .safetensors file in it.");
    tensors = await readTensors(chosen);
    files = chosen;
    at("file-name").textContent = chosen.length === 1 ? chosen[0].name : `${countText(chosen.length)} files`;
    at("file-size").textContent = sizeText(size(chosen));
    at("contents").hidden = false;
    at("drop").classList.add("full");
    document.querySelector(".drop-title").textContent = "Choose other files";
    list();
  } catch (error) {
    show("file-error", error.message);
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

/** Subject and pattern, without the characters that the service refuses in a name. */
function cleaned(subject) {
  return `${subject.slice(0, 98)}, ${at("pattern").value.trim()}`.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "\ufffd");
}

function defaultName() {
  const subject = files.length === 1 ? files[0].name : (files[0].webkitRelativePath.split("/")[0] || `${files.length} files`);
  return cleaned(subject);
}

const lines = (id) => at(id).value.split("\n").map((line) => line.trim()).filter(Boolean);

function query(prefix = "", subject = defaultName) {
  const query = new URLSearchParams();
  for (const id of ["pattern", "axis", "ragged", "scores", "update", "budget", "solver", "time_limit_s"]) {
    if (at(id).value) query.set(id, at(id).value);
  }
  for (const pattern of lines("patterns")) query.append("pattern", pattern);
  for (const id of ["layers", "exclude"]) for (const glob of matcher(at(prefix + id).value).globs) query.append(id, glob);
  query.set("name", at("name").value.trim() || subject());
  for (const label of at("labels").value.split(/\s+/).filter(Boolean)) query.append("label", label);
  return query;
}

/** Upload calibration and all files but the first, then the first with the options of the job. */
async function upload(sender) {
  const options = query();
  const calibration = at("calibration").files[0];
  if (calibration) options.set("calibration", (await sender.post(`${ROOT}v1/tensors`, calibration)).digest);
  for (const file of files.slice(1)) options.append("also", (await sender.post(`${ROOT}v1/tensors`, file)).digest);
  return sender.post(`${ROOT}v1/masks?${options}`, files[0]);
}

const referenced = () => at("referenced")?.open && (at("model").value.trim() || at("output").value.trim());

/** Upload the calibration, and start a job that reads the model in its root and writes the output. */
async function prune(sender) {
  const [model, output] = ["model", "output"].map((id) => at(id).value.trim());
  if (!model || !output) throw new Error("Name both the model and the output directory.");
  const options = query("model-", () => cleaned(model.split("/").filter(Boolean).pop() ?? model));
  options.set("model", model);
  options.set("output", output);
  const calibration = at("calibration").files[0];
  if (calibration) options.set("calibration", (await sender.post(`${ROOT}v1/tensors`, calibration)).digest);
  return sender.post(`${ROOT}v1/outputs?${options}`, new Blob());
}

async function send(start, sources) {
  const total = size([...sources, ...at("calibration").files]);
  const sender = new Sender((sent) => {
    at("sent").value = sent / total;
    at("sent-text").textContent = `${sizeText(Math.min(sent, total))} of ${sizeText(total)}`;
  });
  at("stop").onclick = () => sender.stop();
  at("sent").value = 0;
  at("sent-text").textContent = "";
  at("sending").hidden = !total;
  at("go").disabled = true;
  show("start-error");
  try {
    location.assign(`${ROOT}jobs/${(await start(sender)).id}`);
  } catch (error) {
    show("start-error", error.message);
  }
  at("sending").hidden = true;
  at("go").disabled = false;
}

at("start").addEventListener("submit", (event) => {
  event.preventDefault();
  if (referenced()) { send(prune, []); return; }
  if (files.length) { send(upload, files); return; }
  if (at("file-error").hidden) show("file-error", "Choose a .safetensors file first.");
  at("file").focus();
});
for (const id of ["file", "folder"]) at(id).addEventListener("change", () => choose([...at(id).files]));
for (const id of ["layers", "exclude"]) at(id).addEventListener("input", list);
for (const radio of document.querySelectorAll("[name=choice]")) radio.addEventListener("change", () => setPattern(radio.value));
at("pattern").addEventListener("input", () => { markChoice(); at("fill").value = at("pattern").value.includes("<=") ? "most" : "exact"; preview(); });
at("fill").addEventListener("change", setFill);
for (const id of ["axis", "ragged"]) at(id).addEventListener("change", preview);

const drop = at("drop");
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); droppedFiles(event.dataTransfer).then(choose); });
preview();
