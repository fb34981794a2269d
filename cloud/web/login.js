// The page to sign in: name and password to /api/v1/login; then on to where one came from, on this server only.
"use strict";

const wanted = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.origin);
const onward = wanted.origin === location.origin ? wanted.pathname + wanted.search : "/";

gudgeon.ready.then((session) => {
  document.getElementById("oidc").hidden = !session.oidc;
});

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [told, enter, password] = ["told", "enter", "password"].map((id) => document.getElementById(id));
  told.textContent = "";
  enter.disabled = true;
  try {
    await gudgeon.send("POST", "/api/v1/login", { name: document.getElementById("name").value, password: password.value });
    location.replace(onward);
  } catch (error) {
    told.textContent = error.message;
    password.value = "";
    password.focus();
  } finally {
    enter.disabled = false;
  }
});
