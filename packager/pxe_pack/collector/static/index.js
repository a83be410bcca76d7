import { SIGNS, STAGES, STATES, byId, bytes, element, follow, get, single, span, stateBadge } from "/static/common.js";
import { plot } from "/static/plot.js";

const SIZE = 100; // rows of a page
const COLUMNS = [
  ["name", "Node"], ["state", "State"], ["stage", "Stage"], ["since", "Since"], ["seen", "Last seen"], ["bytes", "Received"],
  ["cause", "Cause"], ["address", "Address"], [null, "Message"],
];
// What is shown is in the address of the page, so that it can be kept and sent.
const query = new URLSearchParams(location.search);
const page = () => Number(query.get("page")) || 1;
const isGrid = () => query.get("view") === "grid";
let pages = 1;

function change(values) {
  for (const [name, value] of Object.entries({ page: "", ...values })) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  showTools();
  if (summary) showCounts();
  refresh();
}

// Shows `children` in `place`. Elements that stay are not touched: they keep the focus, and a click that has begun.
function place(children, parent) {
  if (children.length !== parent.children.length || children.some((one, at) => one !== parent.children[at])) {
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    parent.replaceChildren(...children);
    if (focused && parent.contains(focused)) focused.focus();
  }
}

const buttons = new Map(); // `kind=value` -> a button and its count
function countButton(kind, value, count, sign) {
  const key = `${kind}=${value}`;
  if (!buttons.has(key)) {
    const number = element("b");
    const words = sign ? [element("span", { "aria-hidden": "true" }, `${sign} `)] : [];
    const made = element("button", { type: "button", class: sign ? `state ${value}` : "count" }, ...words, `${value} `, number);
    made.addEventListener("click", () => change({ [kind]: query.get(kind) === value ? "" : value }));
    buttons.set(key, { made, number });
  }
  const { made, number } = buttons.get(key);
  made.setAttribute("aria-pressed", String(query.get(kind) === value));
  number.textContent = count.toLocaleString();
  return made;
}

let summary = null;
function showCounts() {
  byId("total").textContent = `${summary.total.toLocaleString()} nodes`;
  place(STATES.map((one) => countButton("state", one, summary.states[one], SIGNS[one])), byId("states"));
  place(STAGES.map((one) => countButton("stage", one, summary.stages[one])), byId("stages"));
  const causes = Object.entries(summary.causes).filter(([one]) => one).sort((a, b) => b[1] - a[1]);
  place(causes.map(([one, count]) => countButton("cause", one, count)), byId("causes"));
}

function showTools() {
  byId("search").value = query.get("q") ?? "";
  byId("sort").value = query.get("sort") ?? "state";
  byId("descending").checked = query.get("order") === "descending";
  for (const one of document.getElementsByName("view")) one.checked = one.value === (isGrid() ? "grid" : "table");
  byId("table-view").hidden = isGrid();
  byId("grid").hidden = !isGrid();
  const sort = query.get("sort") ?? "state";
  const headings = COLUMNS.map(([name, label]) => {
    if (!name) return element("th", { scope: "col" }, label);
    const descending = query.get("order") === "descending";
    const sorted = name === sort ? (descending ? "descending" : "ascending") : null;
    const button = element("button", { type: "button" }, label, sorted ? element("span", { "aria-hidden": "true" }, descending ? " ▼" : " ▲") : "");
    button.dataset.key = name;
    button.addEventListener("click", () => change({ sort: name, order: name === sort && !descending ? "descending" : "" }));
    return element("th", { scope: "col", "aria-sort": sorted }, button);
  });
  const focused = byId("headings").contains(document.activeElement) ? document.activeElement.dataset.key : null;
  byId("headings").replaceChildren(...headings);
  if (focused) headings.map((one) => one.querySelector("button")).find((one) => one?.dataset.key === focused)?.focus();
}

const rows = new Map(); // node -> its row and its link
function row(node) {
  if (!rows.has(node.id)) {
    const link = element("a", { href: `/nodes/${node.id}` });
    const mac = element("span", { class: "mac" });
    rows.set(node.id, { made: element("tr", {}, element("th", { scope: "row" }, link, " ", mac)), link, mac });
  }
  const { made, link, mac } = rows.get(node.id);
  link.textContent = node.name;
  mac.textContent = node.name === node.mac ? "" : node.mac; // nodes of one image often have one name
  const percent = node.percent === null || node.stage === "done" ? "" : ` ${node.percent} %`;
  const cells = [
    ["", stateBadge(node.state)], ["number text", node.stage + percent], ["number", span(node.stage_seconds)],
    ["number", span(node.seen_seconds)], ["number", bytes(node.bytes)], ["free", node.cause], ["number text", node.address],
    ["message", node.message],
  ];
  while (made.children.length > 1) made.lastChild.remove();
  made.append(...cells.map(([kind, content]) => element("td", { class: kind || null }, content)));
  return made;
}

async function showTable() {
  const found = await get(`/api/nodes?${new URLSearchParams([...query, ["size", SIZE]])}`);
  pages = Math.max(1, Math.ceil(found.total / SIZE));
  if (page() > pages) return change({ page: String(pages) });
  place(found.nodes.map(row), byId("rows"));
  const shown = new Set(found.nodes.map((one) => one.id));
  for (const id of rows.keys()) if (!shown.has(id)) rows.delete(id);
  byId("shown").textContent = `${found.total.toLocaleString()} nodes match`;
  byId("page").textContent = `Page ${page()} of ${pages}`;
  byId("previous").disabled = page() <= 1;
  byId("next").disabled = page() >= pages;
}

const cells = new Map();
async function showGrid() {
  const found = await get(`/api/grid?${query}`);
  const here = new Set();
  const grid = byId("grid");
  let position = null; // the cell before
  for (const [id, name, state, stage] of found) {
    here.add(id);
    let cell = cells.get(id);
    if (!cell) {
      const link = element("a", { href: `/nodes/${id}` });
      cell = { item: element("li", {}, link), link, shown: "" };
      cells.set(id, cell);
    }
    const label = `${name}: ${state}, ${stage}`;
    if (cell.shown !== label) {
      cell.shown = label;
      cell.link.className = `cell ${state}`;
      cell.link.textContent = SIGNS[state];
      cell.link.title = label;
      cell.link.setAttribute("aria-label", label);
    }
    const expected = position ? position.nextSibling : grid.firstChild;
    if (expected !== cell.item) grid.insertBefore(cell.item, expected);
    position = cell.item;
  }
  for (const [id, cell] of cells) {
    if (!here.has(id)) {
      cell.item.remove();
      cells.delete(id);
    }
  }
  byId("shown").textContent = `${found.length.toLocaleString()} nodes match`;
}

const refresh = single(() => (isGrid() ? showGrid() : showTable()));
const refreshPlot = single(async () => plot(byId("throughput"), byId("throughput-text"), await get("/api/throughput?seconds=1800")));

for (const [name, label] of COLUMNS) if (name) byId("sort").append(element("option", { value: name }, label));
byId("tools").addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => change({ q: byId("search").value.trim() }), 200);
});
byId("sort").addEventListener("change", () => change({ sort: byId("sort").value }));
byId("descending").addEventListener("change", () => change({ order: byId("descending").checked ? "descending" : "" }));
for (const one of document.getElementsByName("view")) {
  one.addEventListener("change", () => change({ view: one.value === "grid" ? "grid" : "" }));
}
byId("previous").addEventListener("click", () => change({ page: String(page() - 1) }));
byId("next").addEventListener("click", () => change({ page: String(page() + 1) }));

showTools();
refresh();
follow((now) => {
  summary = now;
  showCounts();
  refresh();
  refreshPlot();
});
