// What the pages share: elements, times, tables, asking. Text from the server goes into a page as text only.
"use strict";

const byId = (id) => document.getElementById(id);
const number = (value, digits = 2) => (typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: digits }) : "–");
const text = (value) => (value === null || value === undefined || value === "" ? "–" : String(value));
const time = (ns) => (ns ? new Date(ns / 1e6).toLocaleString() : "–");
const short = (sha256) => (sha256 ? sha256.slice(0, 12) : "–");

function span(seconds) {
  const size = Math.abs(seconds);
  if (size < 90) return `${Math.round(size)} s`;
  if (size < 5400) return `${Math.round(size / 60)} min`;
  return size < 172800 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86400)} days`;
}

const secondsTo = (ns) => ns / 1e9 - Date.now() / 1000;
const ago = (ns) => (ns ? `${span(secondsTo(ns))} ago` : "never");

function element(name, content, className) {
  const made = document.createElement(name);
  if (content instanceof Node) made.append(content);
  else made.textContent = content;
  if (className) made.className = className;
  return made;
}

function chip(content, state) {
  const made = element("span", content, "chip");
  if (state) made.dataset.state = state;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells.map((cell) => (cell instanceof HTMLTableCellElement ? cell : element("td", cell))));
  return made;
}

function chooser(label, chosen, choose) {
  const button = element("button", label);
  button.type = "button";
  button.addEventListener("click", choose);
  const cell = element("td", button);
  cell.dataset.chosen = String(chosen);
  return cell;
}

function fill(id, rows, columns, empty) {
  if (!rows.length) {
    const line = document.createElement("tr");
    line.append(element("td", empty, "quiet"));
    line.cells[0].colSpan = columns;
    rows = [line];
  }
  byId(id).replaceChildren(...rows);
}

function showConnection(label, state) {
  byId("connection").textContent = label;
  byId("connection").dataset.state = state;
}

async function ask(path) {
  const answer = await fetch(path);
  if (answer.status === 401) gudgeon.toLogin();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// `look` again and again; the page says whether the cloud answers.
async function follow(look, periodMs) {
  try {
    await look();
    showConnection("live", "good");
  } catch {
    showConnection("no connection to the cloud; trying again", "bad");
  }
  setTimeout(follow, periodMs, look, periodMs);
}
