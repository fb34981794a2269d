// The page of the audit log: newest first, filtered, page by page; a releaser may have the chain checked.
"use strict";

const PERIOD_MS = 5000;
const PAGE = 50;
const OUTCOMES = { done: "good", refused: "warn", failed: "bad" };
const FILTERS = ["actor", "did", "subject"];

let more = 1;

function auditRow(item) {
  const detail = JSON.stringify(item.detail);
  return row(
    element("td", String(item.seq), "number"), time(item.at_ns), `${item.actor} (${text(item.via)})`, text(item.role), item.action,
    text(item.subject), chip(item.outcome, OUTCOMES[item.outcome]), text(item.address), element("td", detail === "{}" ? "–" : detail, "reason"),
  );
}

async function refresh() {
  const query = new URLSearchParams({ limit: String(PAGE) });
  for (const name of FILTERS) if (byId(name).value.trim()) query.set(name, byId(name).value.trim());
  const found = [];
  let before = null;
  for (let page = 0; page < more; page += 1) {
    if (before) query.set("before", String(before));
    const answer = await ask(`/api/v1/audit?${query}`);
    found.push(...answer.items);
    before = answer.next_before;
    if (!before) break;
  }
  fill("rows", found.map(auditRow), 9, "nothing yet");
  byId("older").hidden = !before;
}

byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  more = 1;
  refresh();
});
byId("older").addEventListener("click", () => { more += 1; refresh(); });
byId("verify").addEventListener("click", async () => {
  const report = await ask("/api/v1/audit/verify").catch(() => null);
  if (!report) byId("told").textContent = "could not be checked";
  else if (report.whole) byId("told").textContent = `whole: ${report.rows} rows, signed up to ${report.signed}` +
    (report.archived ? `; rows up to ${report.archived} are in an archive` : "");
  else byId("told").textContent = `broken: ${report.findings.join("; ")}`;
});
gudgeon.ready.then((session) => { byId("verify").hidden = !["releaser", "admin"].includes(session.role); });
follow(refresh, PERIOD_MS);
