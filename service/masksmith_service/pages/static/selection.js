// The chosen files of a checkpoint: their tensors, and which of them a job masks, as the service says from their headers.
import { countText } from "./quantities.js";
import { problemMessage, readHeader, ROOT } from "./wire.js";

const byId = (id) => document.getElementById(id);
const LISTED = 1000;
const PAUSE_MS = 300;
const JSON_BODY = { "Content-Type": "application/json" };

/** The names and globs of a field. */
export const globs = (text) => text.split(/[\s,]+/).filter(Boolean);

/** Masks, hidden files, and the same model in another format; as in masksmith_wire.model_files. */
const NOT_WEIGHTS = /^(masks\.safetensors|\.|consolidated)/;

/** The checkpoint's safetensors files among those of a directory; of other files nothing is read. */
export function weightFiles(files) {
  const all = [...files].filter((file) => file.name.endsWith(".safetensors"));
  const own = all.filter((file) => !NOT_WEIGHTS.test(file.name));
  const chosen = own.length ? own : all;
  return chosen.length || files.length !== 1 ? chosen.sort((a, b) => (a.name < b.name ? -1 : 1)) : [...files];
}

/** Read a file's header; errors have the file's name. */
const readNamed = (file) => readHeader(file).catch((error) => { throw new Error(`${file.name}: ${error.message}`); });

/** Read the headers of files: their texts, and a Map of tensors by name; throws an Error with a message for the user. */
export async function readTensors(files) {
  const headers = [];
  const tensors = new Map();
  for (const file of files) {
    const { text, header } = await readNamed(file);
    headers.push(text);
    for (const [name, entry] of Object.entries(header)) {
      if (tensors.has(name)) throw new Error(`${file.name}: a tensor named ${name} is in another of the files, too.`);
      tensors.set(name, entry);
    }
  }
  return { headers, tensors };
}

let latest = null;
let running = Promise.resolve();
/**
 * List the tensors of the chosen files, and say which of them a job masks, and why not the others.
 *
 * The service is asked once the form has not been changed for a moment, by one request at a time, since it computes
 * each answer to its end. `job` then returns the job's options as query parameters, and its calibration file, if any.
 */
export async function listTensors(contents, job) {
  const own = (latest = Symbol());
  await new Promise((done) => { setTimeout(done, PAUSE_MS); });
  await running;
  if (own === latest) running = showSelection(contents, job(), () => own === latest);
}

async function showSelection({ headers, tensors }, job, isLatest) {
  let text, maskedText;
  try {
    const { masked, entries, skipped } = await select(headers, job);
    const reasons = new Map(skipped.map(({ name, reason }) => [name, reason]));
    text = `${countText(masked.length)} of ${countText(tensors.size)} tensors will be masked: ${countText(entries)} weights`;
    maskedText = (name) => (reasons.has(name) ? `no: ${reasons.get(name)}` : "yes");
  } catch (error) {
    text = error.message;
    maskedText = () => "";
  }
  if (!isLatest()) return;
  byId("chosen").textContent = text;
  fillTable(tensors, maskedText);
}

/** Return which tensors of these headers the service would mask; throws an Error with a message for the user. */
async function select(headers, { query, calibration }) {
  const calibrationHeader = calibration && (await readNamed(calibration)).text;
  const body = JSON.stringify({ headers, calibration: calibrationHeader });
  const response = await fetch(`${ROOT}v1/selection?${query}`, { method: "POST", headers: JSON_BODY, body })
    .catch(() => { throw new Error(problemMessage("", 0)); });
  if (!response.ok) throw new Error(problemMessage(await response.text(), response.status));
  return response.json();
}

function fillTable(tensors, maskedText) {
  byId("tensors").replaceChildren(...[...tensors].slice(0, LISTED).map(([name, { dtype, shape }]) => {
    const line = document.createElement("tr");
    const masked = maskedText(name);
    for (const [text, kind] of [[name, "name"], [shape.join(" × "), "num"], [dtype, ""], [masked, masked === "yes" ? "" : "muted"]]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      cell.className = kind;
      line.append(cell);
    }
    return line;
  }));
}

/** All files that were dropped, those of directories included. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return entries.length ? (await Promise.all(entries.map(filesBelow))).flat() : [...transfer.files];
}

async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const part = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!part.length) return (await Promise.all(found.map(filesBelow))).flat();
    found.push(...part);
  }
}
