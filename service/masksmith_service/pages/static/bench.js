// Starts a benchmark of the masks of a job.
import { ROOT, problemMessage } from "./wire.js";

const at = (id) => document.getElementById(id);

at("bench").addEventListener("submit", async (event) => {
  event.preventDefault();
  const request = {
    kind: "benchmark",
    masks_of: at("measure").dataset.job,
    batches: at("batches").value.split(/[\s,]+/).filter(Boolean).map(Number),
    device: at("device").value,
    dtypes: [at("dtype").value],
  };
  at("bench-error").hidden = true;
  try {
    const response = await fetch(`${ROOT}v1/jobs`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
    const text = await response.text();
    if (!response.ok) throw new Error(problemMessage(text, response.status));
    location.assign(`${ROOT}jobs/${JSON.parse(text).id}`);
  } catch (error) {
    at("bench-error").textContent = error.message;
    at("bench-error").hidden = false;
  }
});
