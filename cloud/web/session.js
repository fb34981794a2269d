// Who is signed in, for every page. `gudgeon.ready` is the answer of /api/v1/session; `gudgeon.send` writes, with the CSRF token.
"use strict";

const gudgeon = (() => {
  const ask = async () => {
    const answer = await fetch("/api/v1/session");
    return answer.ok ? answer.json() : { name: null, required: false };
  };

  async function send(method, path, body) {
    const session = await gudgeon.ready;
    const headers = { "x-csrf-token": session.csrf ?? "" };
    if (body !== undefined) headers["content-type"] = "application/json";
    const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const told = answer.status === 204 ? null : await answer.json().catch(() => null);
    if (!answer.ok) throw new Error(told?.detail ? String(told.detail) : `${answer.status} ${answer.statusText}`);
    return told;
  }

  function toLogin() {
    location.replace(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }

  async function signOut() {
    await send("POST", "/api/v1/logout").catch(() => null);
    toLogin();
  }

  function show(session) {
    const place = document.getElementById("session");
    if (!place) return;
    if (session.name) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "sign out";
      button.addEventListener("click", signOut);
      place.replaceChildren(`${session.name} (${session.role}) `, button);
    } else {
      const link = document.createElement("a");
      link.href = "/login";
      link.textContent = "sign in";
      place.replaceChildren(link);
    }
  }

  const ready = ask();
  ready.then((session) => {
    if (session.required && !session.name && location.pathname !== "/login") toLogin();
    else show(session);
  });
  return { ready, send, toLogin };
})();
