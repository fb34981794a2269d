// The page of assets: asks /api/v1/assets every two seconds, and /api/v1/series for the one that is chosen.
"use strict";

const PERIOD_MS = 2000;
const STEPS = 140;
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 48, RIGHT = 552, TOP = 12, BOTTOM = 204;
const SEVERITY_STATES = { critical: "bad", high: "bad", medium: "warn", low: "warn" };
const ALARM_STATES = { unacknowledged: "bad", acknowledged: "warn", returned: "warn" };
const PARTS = ["body.remaining.smoothed", "body.remaining.lower", "body.remaining.upper"];

let chosen = null;
let spanS = 3600;

const keyOf = (asset) => `${asset.device}/${asset.asset}`;

function draw(name, attributes, content) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (content !== undefined) made.textContent = content;
  return made;
}

// ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function lifeOf(remaining) {
  if (!remaining) return "–";
  if (typeof remaining.remaining !== "number") return `unknown: ${text(remaining.reason)}`;
  const middle = typeof remaining.smoothed === "number" ? remaining.smoothed : remaining.remaining;
  return `${number(middle, 1)} ${text(remaining.unit)} (${number(remaining.lower, 1)} to ${number(remaining.upper, 1)})`;
}

function driftOf(drifts) {
  const found = drifts.filter((d) => d.drifting);
  return found.length ? chip(`${found.reduce((sum, d) => sum + d.count, 0)} columns`, "warn") : "no";
}

function scoreOf(anomaly) {
  if (!anomaly) return "–";
  if (typeof anomaly.score !== "number") return `unknown: ${text(anomaly.reason)}`;
  return `${number(anomaly.score)} / ${number(anomaly.threshold)}`;
}

function assetRow(asset) {
  const row = document.createElement("tr");
  const choose = element("button", asset.asset);
  choose.addEventListener("click", () => { chosen = keyOf(asset); refresh(); });
  row.setAttribute("aria-selected", String(keyOf(asset) === chosen));
  row.append(
    element("td", choose),
    element("td", asset.device),
    element("td", asset.severity ? chip(asset.severity, SEVERITY_STATES[asset.severity]) : chip("none", "good")),
    element("td", scoreOf(asset.anomaly), "number"),
    element("td", lifeOf(asset.remaining)),
    element("td", driftOf(asset.drift)),
    element("td", number(asset.operating_h, 1), "number"),
    element("td", time(asset.wall_ns)),
  );
  return row;
}

function alarmRow(alarm) {
  const row = document.createElement("tr");
  const severity = element("td", alarm.severity ? chip(alarm.severity, alarm.active ? SEVERITY_STATES[alarm.severity] : "") : "–");
  severity.title = alarm.meaning;
  row.append(
    severity,
    element("td", chip(alarm.state, ALARM_STATES[alarm.state])),
    element("td", `${alarm.device}: ${alarm.alarm}`),
    element("td", time(alarm.raised_wall_ns)),
    element("td", text(alarm.reason), "reason"),
    element("td", alarm.shares.slice(0, 3).map((s) => `${s.tag} ${number(100 * s.share, 0)} %`).join(", ") || "–"),
    element("td", text(alarm.by)),
  );
  return row;
}

// ── the chosen asset ────────────────────────────────────────────────────────────────────────────────────────────────

function showShares(anomaly) {
  const rows = (anomaly?.shares ?? []).filter((s) => typeof s.share === "number").slice(0, 8).map((s) => {
    const row = element("div", "", "share");
    const bar = element("span", "", "meter");
    const filled = element("span", "");
    filled.style.width = `${Math.round(100 * Math.min(1, Math.max(0, s.share)))}%`;
    bar.append(filled);
    row.append(element("span", text(s.tag)), bar, element("span", `${number(100 * s.share, 0)} %`, "number"));
    return row;
  });
  byId("shares").replaceChildren(...(rows.length ? rows : [element("p", anomaly ? text(anomaly.reason) : "no model watches it", "quiet")]));
}

function showDrift(drifts) {
  const rows = drifts.map((d) => {
    const listed = d.columns.map((c) => `${text(c.column)} (PSI ${number(c.psi)}, KS ${number(c.ks)})`).join(", ");
    return element("p", d.drifting ? `${text(d.model)}, since ${time(d.wall_ns)}: ${d.count} columns: ${listed}` : `${text(d.model)}: none since ${time(d.wall_ns)}`);
  });
  byId("drift").replaceChildren(...(rows.length ? rows : [element("p", "none told", "quiet")]));
}

async function series(asset, field, fromNs, toNs) {
  const asked = new URLSearchParams({
    device: asset.device, stream: "telemetry", kind: `asset.${asset.asset}`, field,
    from: new Date(fromNs / 1e6).toISOString(), to: new Date(toNs / 1e6).toISOString(), step_s: String(spanS / STEPS),
  });
  return (await ask(`/api/v1/series?${asked}`)).buckets;
}

// Points of the buckets that hold values; a gap of more than `reach` empty buckets begins a new piece.
function pieces(buckets, pick, reach = 6) {
  const found = [];
  let last = -Infinity;
  buckets.forEach((bucket, i) => {
    const value = pick(bucket);
    if (typeof value !== "number") return;
    if (i - last > reach) found.push([]);
    found[found.length - 1].push([i, value]);
    last = i;
  });
  return found;
}

function scales(count, least, most) {
  const room = most - least || 1;
  return {
    x: (i) => LEFT + ((RIGHT - LEFT) * i) / Math.max(1, count - 1),
    y: (value) => BOTTOM - ((BOTTOM - TOP) * (Math.min(most, Math.max(least, value)) - least)) / room,
  };
}

function frame(least, most, fromNs, toNs) {
  const { y } = scales(2, least, most);
  const drawn = [draw("line", { x1: LEFT, y1: BOTTOM, x2: RIGHT, y2: BOTTOM, class: "axis" })];
  for (const value of [least, (least + most) / 2, most]) {
    drawn.push(draw("line", { x1: LEFT, y1: y(value), x2: RIGHT, y2: y(value), class: "axis" }));
    drawn.push(draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, most < 10 ? 1 : 0)));
  }
  drawn.push(draw("text", { x: LEFT, y: 222 }, new Date(fromNs / 1e6).toLocaleTimeString()));
  drawn.push(draw("text", { x: RIGHT, y: 222, "text-anchor": "end" }, new Date(toNs / 1e6).toLocaleTimeString()));
  return drawn;
}

const path = (points, { x, y }) => points.map(([i, value], n) => `${n ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
const line = (points, scale, className) =>
  points.length === 1
    ? draw("circle", { cx: scale.x(points[0][0]), cy: scale.y(points[0][1]), r: 2.5, class: `${className} dot` })
    : draw("path", { d: path(points, scale), class: className });

function showScore(asset, buckets, fromNs, toNs) {
  const found = pieces(buckets, (b) => b.max);
  const threshold = asset.anomaly?.threshold;
  if (!found.length) return byId("score").replaceChildren(), void (byId("score-text").textContent = "no score in this time");
  const values = found.flat().map(([, value]) => value);
  const most = Math.max(...values, (threshold ?? 0) * 1.3) || 1;
  const scale = scales(buckets.length, Math.min(0, ...values), most);
  const drawn = frame(Math.min(0, ...values), most, fromNs, toNs);
  if (typeof threshold === "number") drawn.push(draw("line", { x1: LEFT, y1: scale.y(threshold), x2: RIGHT, y2: scale.y(threshold), class: "limit" }));
  drawn.push(...found.map((points) => line(points, scale, "trace")));
  byId("score").replaceChildren(...drawn);
  byId("score-text").textContent = `Anomaly score (largest in each step); the dashed line is the threshold ${number(threshold)}.`;
}

function showLife(asset, [middle, lower, upper], fromNs, toNs) {
  const bounds = lower.map((low, i) => ({ low: low.mean, high: upper[i].mean }));
  const whole = pieces(bounds, (b) => (typeof b.low === "number" && typeof b.high === "number" ? b.low : null));
  const traced = pieces(middle, (b) => b.mean);
  if (!whole.length && !traced.length) return byId("life").replaceChildren(), void (byId("life-text").textContent = "no remaining life in this time");
  const tops = [...bounds.map((b) => b.high), ...traced.flat().map(([, value]) => value)].filter((v) => typeof v === "number");
  const most = Math.max(...tops) || 1;
  const scale = scales(middle.length, 0, most);
  const drawn = frame(0, most, fromNs, toNs);
  for (const points of whole) {
    const back = points.map(([i]) => [i, bounds[i].high]).reverse();
    drawn.push(draw("path", { d: `${path(points, scale)}${path(back, scale).replace("M", "L")}Z`, class: "band" }));
  }
  drawn.push(...traced.map((points) => line(points, scale, "trace")));
  byId("life").replaceChildren(...drawn);
  byId("life-text").textContent = `Remaining life in ${text(asset.remaining?.unit)}, smoothed, with the interval of each row.`;
}

async function showChosen(asset) {
  byId("chosen").hidden = false;
  byId("chosen-title").textContent = `${asset.asset} on ${asset.device}`;
  showShares(asset.anomaly);
  showDrift(asset.drift);
  const toNs = Date.now() * 1e6;
  const fromNs = toNs - spanS * 1e9;
  const [score, ...life] = await Promise.all(["body.anomaly.score", ...PARTS].map((field) => series(asset, field, fromNs, toNs)));
  if (keyOf(asset) !== chosen) return;
  showScore(asset, score, fromNs, toNs);
  showLife(asset, life, fromNs, toNs);
}

async function refresh() {
  const [assets, alarms] = await Promise.all(["/api/v1/assets", "/api/v1/alarms"].map(ask));
  if (!assets.some((asset) => keyOf(asset) === chosen)) chosen = assets.length ? keyOf(assets[0]) : null;
  fill("assets", assets.map(assetRow), 8, "none yet");
  fill("alarms", alarms.map(alarmRow), 7, "none");
  const asset = assets.find((one) => keyOf(one) === chosen);
  if (asset) await showChosen(asset);
}

for (const button of byId("spans").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    spanS = Number(button.dataset.spanS);
    for (const other of byId("spans").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    refresh();
  });
}

follow(refresh, PERIOD_MS);
