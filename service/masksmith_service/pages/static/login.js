// Sign-in and sign-out: exchanges the key for a session cookie, which scripts cannot read.
import { ROOT, problemMessage } from "./wire.js";

const at = (id) => document.getElementById(id);
const isLoginPage = !("problem" in at("login").dataset);
const ADDRESS = `${ROOT}v1/session`;

function fail(message) {
  at("login-error").textContent = message;
  at("login-error").hidden = false;
  at("token").select();
}

async function show() {
  const response = await fetch(ADDRESS);
  const known = response.ok ? await response.json() : null;
  at("login").hidden = known !== null;
  at("leave").hidden = !known?.key;
  if (known) at("who").textContent = known.key ? `Signed in as ${known.name} (${known.role}).` : "No key is needed here.";
  else at("who").textContent = "This service requires a key.";
}

at("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = JSON.stringify({ token: at("token").value.trim() });
    const response = await fetch(ADDRESS, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!response.ok) fail(problemMessage(await response.text(), response.status));
    else if (isLoginPage) location.assign(ROOT);
    else location.reload();
  } catch {
    fail(problemMessage(""));
  }
});
at("leave").addEventListener("click", async () => {
  await fetch(ADDRESS, { method: "DELETE" });
  location.assign(`${ROOT}login`);
});
if (isLoginPage) show();
else at("token").focus();
