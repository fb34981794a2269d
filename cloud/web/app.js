// The live page: listens to /api/v1/stream and shows what it tells.
"use strict";

const ROWS_SHOWN = 12;
const DEADLINE_MS = 20;
const RETRY_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";
const RESULT_STATES = { reject: "bad", review: "warn", fault: "bad" };
const HEALTH_STATES = { nominal: "good", degraded: "warn", safe: "bad" };
const LINE_STATES = { Execute: "good", Aborted: "bad", Aborting: "bad", Stopped: "warn", Held: "warn", Suspended: "warn" };

const exact = (value, digits = 0) =>
  typeof value === "number" ? value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–";
const percent = (value) => (typeof value === "number" ? `${(100 * value).toFixed(1)} %` : "–");
const milliseconds = (value) => (typeof value === "number" ? `${value.toFixed(1)} ms` : "–");

function show(id, value) {
  const place = byId(id);
  if (place.textContent !== value) place.textContent = value;
}

// ── last parts taken out ────────────────────────────────────────────────────────────────────────────────────────────

// The stream begins with the last parts after each connection, so the table begins anew, too.
function clearRejects() {
  const line = document.createElement("tr");
  line.append(element("td", "none yet", "quiet"));
  line.cells[0].colSpan = 6;
  byId("rejects").replaceChildren(line);
}

function showReject(row) {
  const body = byId("rejects");
  body.querySelector("td.quiet")?.parentNode.remove();
  const line = document.createElement("tr");
  const part = row.part_seq === null ? "–" : `${text(row.part_epoch)}:${row.part_seq}`;
  line.append(
    element("td", new Date(row.wall_ns / 1e6).toLocaleTimeString()),
    element("td", row.serial === null ? part : `${part} (serial ${row.serial})`),
    element("td", chip(text(row.result_name), RESULT_STATES[row.result_name])),
    element("td", typeof row.score === "number" ? row.score.toFixed(3) : "–", "number"),
    element("td", text(row.reason), "reason"),
    element("td", row.device),
  );
  body.prepend(line);
  while (body.rows.length > ROWS_SHOWN) body.lastElementChild.remove();
}

// ── latency histogram ───────────────────────────────────────────────────────────────────────────────────────────────

function draw(name, attributes, content) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (content !== undefined) made.textContent = content;
  return made;
}

function quantile(buckets, total, share) {
  let sum = 0;
  for (const bucket of buckets) {
    sum += bucket.count;
    if (sum >= share * total) return bucket.upto_ms === null ? "over 100 ms" : `at most ${bucket.upto_ms} ms`;
  }
  return "–";
}

function showLatency(buckets) {
  const total = buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  if (!total) return;
  const most = Math.max(...buckets.map((bucket) => bucket.count));
  const step = 420 / buckets.length;
  const drawn = [draw("line", { x1: 0, y1: 196, x2: 420, y2: 196, class: "axis" })];
  buckets.forEach((bucket, i) => {
    const height = (172 * bucket.count) / most;
    const late = bucket.upto_ms === null || bucket.upto_ms > DEADLINE_MS;
    drawn.push(draw("rect", { x: i * step + 2, y: 196 - height, width: step - 4, height, rx: 2, class: late ? "late" : "bar" }));
    drawn.push(draw("text", { x: (i + 0.5) * step, y: 212 }, bucket.upto_ms === null ? "more" : String(bucket.upto_ms)));
    if (bucket.count) drawn.push(draw("text", { x: (i + 0.5) * step, y: 190 - height }, String(bucket.count)));
  });
  byId("latency").replaceChildren(...drawn);
  show("latency-text", `Trigger seen to answer written, ms (upper edges), ${exact(total)} decisions: half ${quantile(buckets, total, 0.5)}, 99 % ${quantile(buckets, total, 0.99)}. Over ${DEADLINE_MS} ms in red.`);
}

// ── devices and numbers ─────────────────────────────────────────────────────────────────────────────────────────────

function deviceRow(device) {
  const row = document.createElement("tr");
  const engine = device.engine ? `${device.engine} ${text(device.variant)}` : "–";
  row.append(
    element("td", device.device),
    element("td", device.place),
    element("td", chip(device.online ? "online" : "offline", device.online ? "good" : "bad")),
    element("td", device.health ? chip(String(device.health), HEALTH_STATES[device.health]) : "–"),
    element("td", text(device.line_state_name)),
    element("td", exact(device.outbox_depth), "number"),
    element("td", engine),
    element("td", device.bundle_digest ? String(device.bundle_digest).slice(0, 12) : "–"),
  );
  return row;
}

function showTruth(stats) {
  byId("truth").hidden = !stats;
  if (!stats) return;
  const latency = stats.trigger_to_answer_ms || {};
  show("sim-recall", percent(stats.recall));
  show("sim-overkill", percent(stats.overkill));
  show("sim-escape", percent(stats.escape));
  show("sim-unanswered", exact(stats.unanswered));
  show("sim-p50", milliseconds(latency.p50));
  show("sim-p99", milliseconds(latency.p99));
}

function showLine(name) {
  const label = text(name);
  const place = byId("line-state");
  if (place.textContent !== label) place.replaceChildren(chip(label, LINE_STATES[label]));
}

function showSummary(summary) {
  showLine(summary.line_state_name ?? summary.simulator?.line_state_name);
  show("parts-per-min", exact(summary.parts_per_min));
  show("parts", exact(summary.parts));
  for (const name of ["reject", "review", "fault"]) show(`result-${name}`, exact(summary.results[name]));
  show("outbox-depth", exact(summary.outbox_depth));
  show("devices-online", `${summary.devices_online} / ${summary.devices.length}`);
  showTruth(summary.simulator);
  showLatency(summary.latency_ms);
  if (summary.devices.length) byId("devices").replaceChildren(...summary.devices.map(deviceRow));
  show("ledger", `${exact(summary.events_in_cloud)} decisions in the cloud, ${exact(summary.unrecorded)} unrecorded, ${exact(summary.duplicates_in_cloud)} duplicates, ${exact(summary.rejected_messages)} unreadable messages.`);
  showConnection(summary.broker_connected ? "live" : "no broker", summary.broker_connected ? "good" : "bad");
}

function listen() {
  const source = new EventSource("/api/v1/stream");
  source.addEventListener("open", clearRejects);
  source.addEventListener("summary", (event) => showSummary(JSON.parse(event.data)));
  source.addEventListener("reject", (event) => showReject(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    showConnection("no connection to the cloud; trying again", "bad");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS); // the browser itself has given up
  });
}

listen();
