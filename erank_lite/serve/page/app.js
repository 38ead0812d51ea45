"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const results = byId("results");
let running = null; // AbortController of the request under way
let documents = []; // {text, where, heading, sentences}
let searching = false; // files, not texts
let found = new Map(); // index → result

// Documents: lines, or paragraphs where there are empty lines between them.
function split(text) {
  const parts = /\n\s*\n/.test(text.trim()) ? text.split(/\n\s*\n/) : text.split("\n");
  return parts.map((part) => part.trim()).filter(Boolean);
}

function request() {
  const body = { query: byId("query").value.trim() };
  if (searching) {
    body.candidates = Number(byId("candidates").value) || 20;
    if (byId("folder").value) body.folder = byId("folder").value;
  } else {
    body.documents = split(byId("documents").value);
  }
  const instruction = byId("instruction").value.trim();
  if (instruction) body.instruction = instruction;
  const thinking = byId("thinking").value;
  if (thinking) body.thinking = thinking;
  for (const name of ["within", "depth"]) {
    const value = byId(name).value;
    if (value) body[name] = Number(value);
  }
  return body;
}

function headers() {
  const key = byId("key").value;
  const found = { "Content-Type": "application/json" };
  if (key) found.Authorization = `Bearer ${key}`;
  return found;
}

// The order: by rank score or estimate, then unread ones, then failures, as the server sorts.
function value(result) {
  return result.rank_score ?? result.estimate;
}

function compare(a, b) {
  const [x, y] = [found.get(a), found.get(b)];
  const place = (r) => (!r ? 1 : value(r) !== null ? 0 : r.failure ? 2 : 1);
  if (place(x) !== place(y)) return place(x) - place(y);
  if (place(x) === 0) {
    if (value(x) !== value(y)) return value(y) - value(x);
    const [e, f] = [x.expected_score, y.expected_score];
    if (e !== null && f !== null && e !== f) return f - e;
  }
  return a - b;
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function marked(parent, text, sentences) {
  let at = 0;
  for (const sentence of sentences) {
    const start = text.indexOf(sentence, at);
    if (start < 0) continue;
    parent.append(text.slice(at, start), element("mark", "", sentence));
    at = start + sentence.length;
  }
  parent.append(text.slice(at));
}

const items = new Map(); // index → its list item, kept so that open details stay open

function item(index) {
  if (!items.has(index)) {
    const li = element("li", "waiting");
    const head = element("div", "head");
    const track = element("div", "track");
    track.append(element("div", "bar"));
    head.append(element("span", "place"), element("span", "number"), track, element("span", "note"));
    const { text, where, heading, sentences } = documents[index];
    const shown = element("p", "text");
    marked(shown, text, sentences);
    if (text.length > 400) shown.classList.add("long");
    li.append(head);
    if (where) {
      const line = element("p", "where");
      line.append(element("b", "", where), heading ? `  ${heading}` : "");
      li.append(line);
    }
    li.append(shown);
    items.set(index, li);
  }
  return items.get(index);
}

function describe(result) {
  if (!result) return "waiting";
  if (result.failure) return result.failure;
  if (result.level === null) return "not read";
  if (result.level !== "full") return `stopped after ${result.level} tokens`;
  const marks = [];
  if (result.score !== null) {
    marks.push(`${result.score} with ${Math.round(100 * result.probability)} %`);
  }
  if (result.truncated) marks.push("truncated");
  return marks.join(", ");
}

function update(index, place) {
  const li = item(index);
  const result = found.get(index);
  const number = result ? value(result) : null;
  li.classList.toggle("waiting", !result || result.level === null);
  li.querySelector(".place").textContent = result ? `${place}.` : "";
  const shown = number === null ? "–" : (result.estimate !== null ? "~" : "") + number.toFixed(2);
  li.querySelector(".number").textContent = shown;
  li.querySelector(".bar").style.width = `${10 * (number ?? 0)}%`;
  const note = li.querySelector(".note");
  note.textContent = describe(result);
  note.classList.toggle("failure", Boolean(result?.failure));
  if (result?.reasoning && !li.querySelector("details")) {
    const details = element("details", "reasoning");
    details.append(element("summary", "", "Reasoning"), element("p", "", result.reasoning));
    li.append(details);
  }
}

function show() {
  const order = [...documents.keys()].sort(compare);
  order.forEach((index, place) => {
    update(index, place + 1);
    const li = item(index);
    if (results.children[place] !== li) results.insertBefore(li, results.children[place] ?? null);
  });
  byId("empty").hidden = documents.length > 0;
}

function status(text, bad) {
  byId("status").textContent = text;
  byId("status").className = bad ? "error" : "";
}

function take(line, begun) {
  if (line.error) throw new Error(line.error);
  if (line.model !== undefined) {
    byId("model").textContent = line.model ?? "";
    if (line.passages) begin(line.passages.map(passage));
    if (line.unread) byId("model").textContent += `; ${line.unread} files could not be read`;
  } else if (line.order) {
    const seconds = (performance.now() - begun) / 1000;
    const what = searching ? "passages" : "documents";
    status(found.size ? `${found.size} ${what} in ${seconds.toFixed(1)} s` : "nothing was found");
  } else {
    found.set(line.index, line);
    byId("progress").value = found.size;
    status(`${found.size} of ${documents.length}`);
  }
}

function passage({ path, unit, number, heading, text, sentences }) {
  const place = number === null ? "" : unit === "line" ? `:${number}` : `, ${unit} ${number}`;
  return { text, where: path + place, heading, sentences };
}

function begin(those) {
  documents = those;
  found = new Map();
  items.clear();
  results.replaceChildren();
  show();
  const progress = byId("progress");
  progress.max = documents.length || 1;
  progress.value = 0;
}

async function rank() {
  const body = request();
  begin((body.documents ?? []).map((text) => ({ text, where: "", heading: "", sentences: [] })));
  running = new AbortController();
  busy(true);
  status(searching ? "searching" : `0 of ${documents.length}`);
  const begun = performance.now();
  try {
    const response = await fetch(searching ? "erank/search" : "erank/stream", {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal,
    });
    if (!response.ok) {
      const error = await response.json();
      if (response.status === 401) byId("key").closest("details").open = true;
      throw new Error(error.message);
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value: text, done } = await reader.read();
      if (done) break;
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      lines.forEach((line) => take(JSON.parse(line), begun));
      show();
    }
  } catch (error) {
    if (error.name === "AbortError") status(`stopped: ${found.size} of ${documents.length}`);
    else status(error.message, true);
  } finally {
    busy(false);
    running = null;
  }
}

function busy(is) {
  byId("go").disabled = is;
  byId("stop").hidden = !is;
  byId("progress").hidden = !is;
}

function curl() {
  if (searching) return;
  const path = byId("dialect").value;
  const { documents: texts, ...body } = request();
  const sent = path === "/rerank" ? { ...body, texts } : { ...body, documents: texts };
  const json = JSON.stringify(sent, null, 1).replaceAll("'", "'\\''");
  const key = byId("key").value ? " \\\n  -H 'Authorization: Bearer KEY'" : "";
  const address = new URL(`.${path}`, location.href);
  byId("curl").textContent =
    `curl ${address} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'`;
}

function count() {
  const number = split(byId("documents").value).length;
  byId("count").textContent = number ? `${number} document${number === 1 ? "" : "s"}` : "";
  curl();
}

// A file is a document; of lines of JSON and of tables, each row is one.
function rows(name, text) {
  if (/\.jsonl$/i.test(name)) {
    return text.split("\n").filter((line) => line.trim()).map((line) => {
      const row = JSON.parse(line);
      return typeof row === "string" ? row : row.content ?? row.text ?? line;
    });
  }
  if (/\.json$/i.test(name)) {
    const value = JSON.parse(text);
    const list = Array.isArray(value) ? value : [value];
    return list.map((row) =>
      typeof row === "string" ? row : row.content ?? row.text ?? JSON.stringify(row));
  }
  return [text];
}

async function add(files) {
  const area = byId("documents");
  const parts = area.value.trim() ? split(area.value) : [];
  for (const file of files) {
    try {
      parts.push(...rows(file.name, await file.text()).map((t) => t.replace(/\n\s*\n/g, "\n").trim()));
    } catch {
      status(`${file.name} cannot be read as JSON`, true);
    }
  }
  area.value = parts.filter(Boolean).join("\n\n") + "\n\n";
  count();
}

// The second tab is there where the server searches folders.
function choose(files) {
  if (running) return;
  searching = files;
  byId("tab-texts").setAttribute("aria-selected", String(!files));
  byId("tab-files").setAttribute("aria-selected", String(files));
  byId("texts-part").hidden = files;
  byId("files-part").hidden = !files;
  byId("curl-part").hidden = files;
  byId("documents").required = !files;
  byId("go").textContent = files ? "Search" : "Rank";
  status("");
  begin([]);
}

async function folders() {
  if (!byId("key").value) return; // a server of folders has one
  try {
    const response = await fetch("erank/folders", { headers: headers() });
    if (!response.ok) return;
    const names = (await response.json()).folders;
    byId("tabs").hidden = names.length === 0;
    byId("folder").replaceChildren(new Option("all", ""), ...names.map((n) => new Option(n, n)));
  } catch {
    // told by the request for its health
  }
}

byId("tab-texts").addEventListener("click", () => choose(false));
byId("tab-files").addEventListener("click", () => choose(true));
byId("tabs").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  choose(!searching);
  byId(searching ? "tab-files" : "tab-texts").focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) rank();
});
form.addEventListener("input", count);
byId("stop").addEventListener("click", () => running?.abort());
byId("pick").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
const area = byId("documents");
area.addEventListener("dragover", (event) => {
  event.preventDefault();
  area.classList.add("over");
});
area.addEventListener("dragleave", () => area.classList.remove("over"));
area.addEventListener("drop", (event) => {
  area.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});
byId("dialect").addEventListener("change", curl);
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("curl").textContent);
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});
byId("key").value = sessionStorage.getItem("key") ?? "";
byId("key").addEventListener("change", (event) => {
  sessionStorage.setItem("key", event.target.value);
  folders();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

fetch("health").then((response) => {
  if (!response.ok) byId("model").textContent = "the model is being loaded";
}).catch(() => status("the server does not answer", true));
folders();
count();
