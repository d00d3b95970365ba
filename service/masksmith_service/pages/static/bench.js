// Starts a benchmark of the masks of a job.
import { ROOT, problemMessage } from "./wire.js";

const byId = (id) => document.getElementById(id);

byId("bench").addEventListener("submit", async (event) => {
  event.preventDefault();
  const request = {
    kind: "benchmark",
    masks_of: byId("measure").dataset.job,
    batches: byId("batches").value.split(/[\s,]+/).filter(Boolean).map(Number),
    device: byId("device").value,
    dtypes: [byId("dtype").value],
  };
  byId("bench-error").hidden = true;
  try {
    const response = await fetch(`${ROOT}v1/jobs`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
    const text = await response.text();
    if (!response.ok) throw new Error(problemMessage(text, response.status));
    location.assign(`${ROOT}jobs/${JSON.parse(text).id}`);
  } catch (error) {
    byId("bench-error").textContent = error.message;
    byId("bench-error").hidden = false;
  }
});
