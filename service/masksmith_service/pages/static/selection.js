// The chosen files of a checkpoint: their tensors, and which of them a job masks.
import { countText } from "./quantities.js";
import { readHeader } from "./wire.js";

const byId = (id) => document.getElementById(id);
const FLOATS = ["F64", "F32", "F16", "BF16"];
const LISTED = 1000;

/** Match names against globs in the service's syntax: * ? [seq] [!seq], over the whole name. */
export function matcher(text) {
  const globs = text.split(/[\s,]+/).filter(Boolean);
  const forms = globs.map((glob) => {
    const body = glob.replace(/\[(!?)([^\]]+)\]|[.*+?^${}()|[\]\\]/g, (sign, not, set) =>
      set ? `[${not ? "^" : ""}${set.replace(/\\/g, "\\\\")}]` : sign === "*" ? ".*" : sign === "?" ? "." : `\\${sign}`);
    try {
      return new RegExp(`^${body}$`, "s");
    } catch {
      return /(?!)/; // such as [z-a]: it matches no name, and Start reports it
    }
  });
  return { globs, matches: (name) => forms.some((form) => form.test(name)) };
}

/** Masks, hidden files, and the same model in another format; as in masksmith_wire.model_files. */
const NOT_WEIGHTS = /^(masks\.safetensors|\.|consolidated)/;

/** The checkpoint's safetensors files among those of a directory; of other files nothing is read. */
export function weightFiles(files) {
  const all = [...files].filter((file) => file.name.endsWith(".safetensors"));
  const own = all.filter((file) => !NOT_WEIGHTS.test(file.name));
  const chosen = own.length ? own : all;
  return chosen.length || files.length !== 1 ? chosen.sort((a, b) => (a.name < b.name ? -1 : 1)) : [...files];
}

/** Read the headers of files into a Map of tensors by name; throws an Error with a message for the user. */
export async function readTensors(files) {
  const tensors = new Map();
  for (const file of files) {
    const header = await readHeader(file).catch((error) => { throw new Error(`${file.name}: ${error.message}`); });
    for (const [name, entry] of Object.entries(header)) {
      if (tensors.has(name)) throw new Error(`${file.name}: a tensor named ${name} is in another of the files, too.`);
      tensors.set(name, entry);
    }
  }
  return tensors;
}

/** List the tensors, with what fields of the form select. */
export function listTensors(tensors) {
  const layers = matcher(byId("layers").value);
  const exclude = matcher(byId("exclude").value);
  const rows = [...tensors].map(([name, { dtype, shape }]) => {
    const fits = shape.length >= 2 && shape.length <= 4 && !shape.includes(0);
    const selected = layers.globs.length ? layers.matches(name) : FLOATS.includes(dtype);
    return { name, dtype, shape, masked: fits && selected && !exclude.matches(name) };
  });
  const chosen = rows.filter((row) => row.masked);
  const weights = chosen.reduce((sum, row) => sum + row.shape.reduce((a, b) => a * b, 1), 0);
  byId("chosen").textContent = `${countText(chosen.length)} of ${countText(rows.length)} tensors will be masked: ${countText(weights)} weights`;
  byId("tensors").replaceChildren(...rows.slice(0, LISTED).map((row) => {
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
