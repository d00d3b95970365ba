// Addresses, safetensors files and problem documents of the service.

/** Relative path from the page to the installation's root, such as `../`, so that a proxy may add a prefix. */
export const ROOT = document.documentElement.dataset.root;
const TYPES = { F32: Float32Array, I32: Int32Array };
const MAX_HEADER_BYTES = 16 * 2 ** 20;

/** Read a safetensors file's header from its first bytes: its text, and its tensors; throws an Error for the user. */
export async function readHeader(file) {
  if (file.size < 10) throw new Error("This is not a safetensors file: it is too short.");
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  if (length < 2 || length > MAX_HEADER_BYTES || length + 8 > file.size)
    throw new Error("This is not a safetensors file: it does not begin with the length of a header.");
  const text = await file.slice(8, 8 + length).text();
  let header;
  try {
    header = JSON.parse(text);
  } catch {
    throw new Error("This is not a safetensors file: its header is not JSON.");
  }
  delete header.__metadata__;
  return { text, header };
}

/** Fetch one of the service's small safetensors files: its tensors by name, and its metadata. */
export async function fetchTensors(address, signal) {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(problemMessage(await response.text(), response.status));
  const buffer = await response.arrayBuffer();
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = { metadata: header.__metadata__ ?? {} };
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [first, last] = entry.data_offsets;
    const data = buffer.slice(8 + length + first, 8 + length + last);
    tensors[name] = { shape: entry.shape, data: new TYPES[entry.dtype](data) };
  }
  return tensors;
}

/** Message for the user from a problem document. */
export function problemMessage(text, status) {
  try {
    const problem = JSON.parse(text);
    return `${problem.detail} (${problem.code})`;
  } catch {
    return status ? `The service answered with status ${status}.` : "The service does not respond.";
  }
}
