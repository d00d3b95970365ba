// The form that starts a job: lists the tensors of the chosen files, uploads the files, and opens the job's page.
import { countText, sizeText } from "./quantities.js";
import { droppedFiles, globs, listTensors, readTensors, weightFiles } from "./selection.js";
import { Sender } from "./sending.js";
import { ROOT } from "./wire.js";

const byId = (id) => document.getElementById(id);
let files = [];
let contents = null;

function show(id, message) {
  byId(id).textContent = message ?? "";
  byId(id).hidden = !message;
}

/** Show which tensors the job would mask. */
function updateList() {
  if (contents) listTensors(contents, () => ({ query: query(), calibration: byId("calibration").files[0] }));
}

const totalSize = (someFiles) => someFiles.reduce((sum, file) => sum + file.size, 0);

/** Take the checkpoint among files that the user has chosen or dropped, and list its tensors. */
async function choose(candidates) {
  if (!candidates.length) return;
  files = [];
  contents = null;
  byId("contents").hidden = true;
  show("file-error");
  const chosen = weightFiles(candidates);
  try {
    if (!chosen.length) throw new Error("None of the files is a .safetensors file.");
    contents = await readTensors(chosen);
    files = chosen;
    byId("file-name").textContent = chosen.length === 1 ? chosen[0].name : `${countText(chosen.length)} files`;
    byId("file-size").textContent = sizeText(totalSize(chosen));
    byId("contents").hidden = false;
    byId("drop").classList.add("full");
    document.querySelector(".drop-title").textContent = "Choose other files";
    byId("chosen").textContent = `${countText(contents.tensors.size)} tensors`;
    updateList();
  } catch (error) {
    show("file-error", error.message);
  }
}

let pending = null;
/** Show how the service reads the pattern. */
async function preview() {
  const query = new URLSearchParams({ pattern: byId("pattern").value, axis: byId("axis").value, ragged: byId("ragged").value });
  pending?.abort();
  pending = new AbortController();
  try {
    const response = await fetch(`${ROOT}pattern?${query}`, { signal: pending.signal });
    const parsed = new DOMParser().parseFromString(await response.text(), "text/html");
    if (response.ok) byId("preview").replaceChildren(...parsed.body.childNodes);
  } catch { /* aborted by a later request, or the service is unavailable, which Start reports */ }
}

function setPattern(text) {
  byId("pattern").value = text;
  byId("fill").value = text.includes("<=") ? "most" : "exact";
  preview();
}

/** Add or remove the `<=` before n:m, as the field `fill` demands; patterns without n:m can only be exact. */
function setFill() {
  const match = byId("pattern").value.match(/^\s*(transposable\s+)?(<=\s*)?(\d+:\d+(?!:).*)$/i);
  if (!match) { byId("fill").value = "exact"; return; }
  const text = `${match[1] ?? ""}${byId("fill").value === "most" ? "<=" : ""}${match[3]}`;
  byId("pattern").value = text;
  markChoice();
  preview();
}

/** Check the radio button of the pattern in the text field, if it has one. */
function markChoice() {
  for (const radio of document.querySelectorAll("[name=choice]")) radio.checked = radio.value === byId("pattern").value.trim();
}

/** A job's default name: subject and pattern, without the characters that the service refuses in a name. */
function jobName(subject) {
  return `${subject.slice(0, 98)}, ${byId("pattern").value.trim()}`.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "\ufffd");
}

function nameOfFiles() {
  const subject = files.length === 1 ? files[0].name : (files[0].webkitRelativePath.split("/")[0] || `${files.length} files`);
  return jobName(subject);
}

const lines = (id) => byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);

/** The job's options as query parameters. `prefix` is that of the fields of globs, `defaultName` a function. */
function query(prefix = "", defaultName = nameOfFiles) {
  const query = new URLSearchParams();
  for (const id of ["pattern", "axis", "ragged", "scores", "update", "budget", "solver", "time_limit_s"]) {
    if (byId(id).value) query.set(id, byId(id).value);
  }
  for (const pattern of lines("patterns")) query.append("pattern", pattern);
  for (const id of ["layers", "exclude"]) for (const glob of globs(byId(prefix + id).value)) query.append(id, glob);
  query.set("name", byId("name").value.trim() || defaultName());
  for (const label of byId("labels").value.split(/\s+/).filter(Boolean)) query.append("label", label);
  return query;
}

/** Upload calibration and all files but the first, then the first with the job's options, which starts the job. */
async function upload(sender) {
  const options = query();
  const calibration = byId("calibration").files[0];
  if (calibration) options.set("calibration", (await sender.post(`${ROOT}v1/tensors`, calibration)).digest);
  for (const file of files.slice(1)) options.append("also", (await sender.post(`${ROOT}v1/tensors`, file)).digest);
  return sender.post(`${ROOT}v1/masks?${options}`, files[0]);
}

const isByReference = () => byId("referenced")?.open && (byId("model").value.trim() || byId("output").value.trim());

/** Upload the calibration, and start a job that reads the model in its root and writes the output. */
async function prune(sender) {
  const [model, output] = ["model", "output"].map((id) => byId(id).value.trim());
  if (!model || !output) throw new Error("Name both the model and the output directory.");
  const options = query("model-", () => jobName(model.split("/").filter(Boolean).pop() ?? model));
  options.set("model", model);
  options.set("output", output);
  const calibration = byId("calibration").files[0];
  if (calibration) options.set("calibration", (await sender.post(`${ROOT}v1/tensors`, calibration)).digest);
  return sender.post(`${ROOT}v1/outputs?${options}`, new Blob());
}

/** Start a job by the function `start`, which uploads `sources` and the calibration; show the progress, then the job. */
async function send(start, sources) {
  const total = totalSize([...sources, ...byId("calibration").files]);
  const sender = new Sender((sent) => {
    byId("sent").value = sent / total;
    byId("sent-text").textContent = `${sizeText(Math.min(sent, total))} of ${sizeText(total)}`;
  });
  byId("stop").onclick = () => sender.stop();
  byId("sent").value = 0;
  byId("sent-text").textContent = "";
  byId("sending").hidden = !total;
  byId("go").disabled = true;
  show("start-error");
  try {
    location.assign(`${ROOT}jobs/${(await start(sender)).id}`);
  } catch (error) {
    show("start-error", error.message);
  }
  byId("sending").hidden = true;
  byId("go").disabled = false;
}

byId("start").addEventListener("submit", (event) => {
  event.preventDefault();
  if (isByReference()) { send(prune, []); return; }
  if (files.length) { send(upload, files); return; }
  if (byId("file-error").hidden) show("file-error", "Choose a .safetensors file first.");
  byId("file").focus();
});
for (const id of ["file", "folder"]) byId(id).addEventListener("change", () => choose([...byId(id).files]));
byId("start").addEventListener("input", updateList);
for (const radio of document.querySelectorAll("[name=choice]")) radio.addEventListener("change", () => setPattern(radio.value));
byId("pattern").addEventListener("input", () => { markChoice(); byId("fill").value = byId("pattern").value.includes("<=") ? "most" : "exact"; preview(); });
byId("fill").addEventListener("change", setFill);
for (const id of ["axis", "ragged"]) byId(id).addEventListener("change", preview);

const drop = byId("drop");
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); droppedFiles(event.dataTransfer).then(choose); });
preview();
