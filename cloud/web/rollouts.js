// The page of rollouts: the list every two seconds; the chosen one from its stream, as it goes.
"use strict";

const PERIOD_MS = 2000;
const PARTS_SHOWN = 200;
const STATES = { running: "good", finished: "good", paused: "warn", waiting_approval: "warn", aborting: "bad", aborted: "bad" };
const GROUP_STATES = { done: "good", soaking: "good", failed: "bad", open: "warn" };
const PART_STATES = { confirmed: "good", failed: "bad", silent: "bad", working: "warn", offered: "warn", retry: "warn" };
const BAR = [["confirmed", "good"], ["working", "busy"], ["offered", "busy"], ["retry", "warn"], ["failed", "bad"], ["silent", "bad"]];
// what may be asked for in each state
const ACTIONS = {
  draft: ["start", "abort"], waiting_approval: ["approve", "abort"], running: ["pause", "abort"], paused: ["resume", "abort"],
  finished: ["abort"],
};
const RELEASERS = ["releaser", "admin"];

let chosen = new URLSearchParams(location.search).get("rollout");
let stream = null;
let only = "";

const words = (state) => state.replaceAll("_", " ");

function bar(counts, members) {
  const made = element("span", "", "stack");
  for (const [name, kind] of BAR) {
    if (!counts[name]) continue;
    const piece = element("span", "");
    piece.dataset.kind = kind;
    piece.style.width = `${(100 * counts[name]) / Math.max(1, members)}%`;
    piece.title = `${counts[name]} ${name}`;
    made.append(piece);
  }
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", BAR.filter(([name]) => counts[name]).map(([name]) => `${counts[name]} ${name}`).join(", ") || "nothing yet");
  return made;
}

function sum(groups) {
  const counts = {};
  for (const group of groups) for (const [state, count] of Object.entries(group.counts)) counts[state] = (counts[state] ?? 0) + count;
  return counts;
}

function rolloutRow(rollout) {
  const members = rollout.groups.reduce((total, group) => total + group.members, 0);
  const made = row(
    chooser(rollout.id, rollout.id === chosen, () => choose(rollout.id)), chip(words(rollout.state), STATES[rollout.state]), rollout.target,
    rollout.slot_set, bar(sum(rollout.groups), members), element("td", number(rollout.exposed), "number"),
    element("td", number(rollout.in_flight), "number"), element("td", number(rollout.confirmed), "number"),
    element("td", number(rollout.failed), "number"), rollout.approved_by ? `${rollout.created_by}, ${rollout.approved_by}` : text(rollout.created_by),
  );
  made.setAttribute("aria-selected", String(rollout.id === chosen));
  return made;
}

// ── the chosen rollout ──────────────────────────────────────────────────────────────────────────────────────────────

function groupRow(group) {
  const count = (value) => element("td", number(value), "number");
  return row(
    group.name, chip(words(group.state), GROUP_STATES[group.state]), bar(group.counts, group.members), count(group.members),
    count(group.needed), count(group.counts.confirmed ?? 0), count((group.counts.failed ?? 0) + (group.counts.silent ?? 0)),
    count(group.absent), time(group.since_ns),
  );
}

async function act(id, action) {
  byId("told").textContent = "";
  try {
    const body = action === "pause" || action === "abort" ? { reason: "from the page" } : undefined;
    await gudgeon.send("POST", `/api/v1/rollouts/${encodeURIComponent(id)}/${action}`, body);
    await refresh();
  } catch (error) {
    byId("told").textContent = error.message;
  }
}

async function showActions(rollout) {
  const session = await gudgeon.ready;
  if (rollout.id !== chosen) return;
  const allowed = RELEASERS.includes(session.role) ? ACTIONS[rollout.state] ?? [] : [];
  byId("actions").replaceChildren(...allowed.flatMap((action) => {
    const button = element("button", action);
    button.type = "button";
    button.id = action;
    button.addEventListener("click", () => act(rollout.id, action));
    return [button, " "];
  }));
}

async function showParts(rollout) {
  const counts = sum(rollout.groups);
  byId("states").replaceChildren(...["", ...Object.keys(counts).filter((state) => counts[state])].flatMap((state) => {
    const button = element("button", state ? `${state} ${counts[state]}` : "all");
    button.type = "button";
    button.setAttribute("aria-pressed", String(state === only));
    button.addEventListener("click", () => { only = state; showParts(rollout); });
    return [button, " "];
  }));
  const asked = new URLSearchParams({ limit: String(PARTS_SHOWN), ...(only ? { state: only } : {}) });
  const page = await ask(`/api/v1/rollouts/${encodeURIComponent(rollout.id)}/devices?${asked}`);
  if (rollout.id !== chosen) return;
  fill("parts", page.items.map((part) => row(
    part.device, text(rollout.groups[part.group]?.name), chip(part.state, PART_STATES[part.state]), element("td", number(part.tries), "number"),
    time(part.changed_ns), element("td", text(part.reason), "reason"),
  )), 6, "none");
}

function showChosen(rollout) {
  if (rollout.id !== chosen) return;
  byId("chosen").hidden = false;
  byId("chosen-title").textContent = `${rollout.id}: ${words(rollout.state)}`;
  byId("why").textContent = text(rollout.reason);
  fill("groups", rollout.groups.map(groupRow), 9, "none");
  showActions(rollout);
  showParts(rollout).catch(() => {});
}

function choose(id) {
  chosen = id;
  stream?.close();
  stream = new EventSource(`/api/v1/rollouts/${encodeURIComponent(id)}/stream`);
  stream.addEventListener("rollout", (event) => {
    const rollout = JSON.parse(event.data);
    showChosen(rollout);
    if (rollout.state === "aborted") stream.close();
  });
  refresh().catch(() => {});
}

async function refresh() {
  const rollouts = await ask("/api/v1/rollouts");
  fill("rollouts", rollouts.map(rolloutRow), 10, "none yet");
  if (!chosen && rollouts.length) choose(rollouts[0].id);
}

if (chosen) choose(chosen);
follow(refresh, PERIOD_MS);
