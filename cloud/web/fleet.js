// The page of the fleet: /api/v1/fleet/devices every two seconds, and for the chosen device its twin, certificates and history.
"use strict";

const PERIOD_MS = 2000;
const PAGE = 100;
const UPDATE_STATES = { confirmed: "good", rolled_back: "bad", refused: "bad", trial: "warn", staged: "warn", downloading: "warn" };
const HEALTH_STATES = { nominal: "good", degraded: "warn", safe: "bad" };
const CERTIFICATE_STATES = { valid: "good", expired: "bad", revoked: "bad", waiting: "warn" };
const SOON_S = 14 * 86400;

let identities = new Map();
let chosen = new URLSearchParams(location.search).get("device");
let shown = PAGE;

function certificateChip(identity) {
  if (!identity) return "–";
  const left = identity.certificate ? secondsTo(identity.certificate.not_after_ns) : 0;
  if (identity.state !== "valid") return chip(identity.state, CERTIFICATE_STATES[identity.state]);
  return chip(`valid ${span(left)}`, left < SOON_S ? "warn" : "good");
}

function lineChip(device) {
  if (!device) return "–";
  if (!device.online) return chip("offline", "bad");
  return chip(text(device.health ?? "online"), HEALTH_STATES[device.health] ?? "good");
}

const slotsOf = (device) => Object.entries(device.slots).sort(([a], [b]) => (a < b ? -1 : 1));

function updateChips(device) {
  const place = document.createDocumentFragment();
  for (const [name, slot] of slotsOf(device)) {
    const percent = slot.state === "downloading" && slot.size_bytes ? ` ${Math.floor((100 * slot.fetched_bytes) / slot.size_bytes)} %` : "";
    const made = chip(`${name}: ${slot.state.replace("_", " ")}${percent}`, UPDATE_STATES[slot.state]);
    made.title = slot.reason || slot.target;
    place.append(made, " ");
  }
  return place.childNodes.length ? place : "–";
}

function deviceRow(device, lines) {
  const tags = Object.entries(device.tags).map(([name, value]) => `${name}=${value}`).join(" ");
  const pick = (field) => slotsOf(device).map(([, slot]) => short(slot[field])).join(" ");
  const made = row(
    chooser(device.device, device.device === chosen, () => { chosen = device.device; refresh(); }),
    lineChip(lines.get(device.device)), certificateChip(identities.get(device.device)), `${text(device.hardware)} ${tags}`,
    text(pick("running")), text(pick("confirmed")), updateChips(device), ago(device.told_ns),
  );
  made.setAttribute("aria-selected", String(device.device === chosen));
  return made;
}

// ── the chosen device ───────────────────────────────────────────────────────────────────────────────────────────────

function slotRow([name, slot], assignment) {
  const item = assignment?.items[name];
  const measured = Object.entries(slot.measured).map(([key, value]) => `${key} ${number(value)}`).join(", ");
  return row(
    name, chip(slot.state.replace("_", " "), UPDATE_STATES[slot.state]), item ? `${item.target} (${item.go})` : "–",
    short(slot.installed), short(slot.running), short(slot.confirmed), text(measured), element("td", text(slot.reason), "reason"),
  );
}

function twinRows(twin) {
  const desired = twin.desired?.state ?? {}, reported = twin.reported?.state ?? {};
  return [...new Set([...Object.keys(desired), ...Object.keys(reported)])].sort().map((key) => {
    const same = JSON.stringify(desired[key]) === JSON.stringify(reported[key]);
    return row(key, text(desired[key]), same ? text(reported[key]) : chip(text(reported[key]), "warn"));
  });
}

function certificateRow(certificate) {
  const state = certificate.revoked_ns ? "revoked" : secondsTo(certificate.not_after_ns) < 0 ? "expired" : "valid";
  const made = row(short(certificate.serial), time(certificate.not_before_ns), time(certificate.not_after_ns), chip(state, CERTIFICATE_STATES[state]));
  made.title = text(certificate.reason);
  return made;
}

const historyRow = (change) =>
  row(time(change.at_ns), text(change.slot_set), text(change.rollout), chip(text(change.state)), element("td", text(change.reason), "reason"));

async function showChosen(name) {
  const path = encodeURIComponent(name);
  const [device, twin, identity] = await Promise.all([
    ask(`/api/v1/fleet/devices/${path}`), ask(`/api/v1/devices/${path}/desired`), identities.has(name) ? ask(`/api/v1/identities/${path}`) : null,
  ]);
  if (name !== chosen) return;
  byId("chosen").hidden = false;
  byId("chosen-title").textContent = `${device.device}, boot ${text(device.boot_id)}, floor ${Object.entries(device.floor).map((pair) => pair.join(" ")).join(", ") || "unknown"}`;
  fill("slots", slotsOf(device).map((entry) => slotRow(entry, device.assignment)), 8, "none");
  fill("twin", twinRows(twin), 3, "nothing asked");
  fill("certificates", (identity?.certificates ?? []).map(certificateRow), 4, "none");
  fill("history", device.history.map(historyRow), 5, "nothing yet");
}

// ── all of them ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function pages(query) {
  const found = [];
  let after = "";
  do {
    query.set("after", after);
    query.set("limit", String(Math.min(1000, shown - found.length + 1)));
    const page = await ask(`/api/v1/fleet/devices?${query}`);
    found.push(...page.items);
    after = page.next_after;
  } while (after && found.length <= shown);
  return found;
}

async function refresh() {
  const query = new URLSearchParams();
  for (const condition of byId("where").value.split(/[\s,]+/).filter(Boolean)) query.append("where", condition);
  const [found, lines, known] = await Promise.all([pages(query), ask("/api/v1/devices"), ask("/api/v1/identities")]);
  const lineOf = new Map(lines.map((line) => [line.device, line]));
  identities = new Map(known.items.map((identity) => [identity.device, identity]));
  fill("devices", found.slice(0, shown).map((device) => deviceRow(device, lineOf)), 8, "none yet");
  byId("more").hidden = found.length <= shown;
  if (chosen) await showChosen(chosen);
}

byId("filter").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("told").textContent = "";
  await refresh().catch(() => { byId("told").textContent = "expected tags such as line=7|8"; });
});
byId("more").addEventListener("click", () => { shown += PAGE; refresh(); });
follow(refresh, PERIOD_MS);
