// Sign-in and sign-out: exchanges the key for a session cookie, which scripts cannot read.
import { ROOT, problemMessage } from "./wire.js";

const byId = (id) => document.getElementById(id);
const isLoginPage = !("problem" in byId("login").dataset);
const ADDRESS = `${ROOT}v1/session`;

function fail(message) {
  byId("login-error").textContent = message;
  byId("login-error").hidden = false;
  byId("token").select();
}

async function show() {
  const response = await fetch(ADDRESS);
  const known = response.ok ? await response.json() : null;
  byId("login").hidden = known !== null;
  byId("leave").hidden = !known?.key;
  if (known) byId("who").textContent = known.key ? `Signed in as ${known.name} (${known.role}).` : "No key is needed here.";
  else byId("who").textContent = "This service requires a key.";
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = JSON.stringify({ token: byId("token").value.trim() });
    const response = await fetch(ADDRESS, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!response.ok) fail(problemMessage(await response.text(), response.status));
    else if (isLoginPage) location.assign(ROOT);
    else location.reload();
  } catch {
    fail(problemMessage(""));
  }
});
byId("leave").addEventListener("click", async () => {
  await fetch(ADDRESS, { method: "DELETE" });
  location.assign(`${ROOT}login`);
});
if (isLoginPage) show();
else byId("token").focus();
