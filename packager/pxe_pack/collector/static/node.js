import { byId, bytes, element, follow, get, single, span, stateBadge } from "/static/common.js";

const number = location.pathname.split("/").pop();
const moment = (seconds) => new Date(seconds * 1000).toLocaleString();

function rows(place, entries, empty) {
  const columns = place.closest("table").tHead.rows[0].cells.length;
  const made = entries.map((cells) => element("tr", {}, ...cells.map((one, at) => element(at ? "td" : "th", at ? { class: "free" } : { scope: "row" }, one))));
  place.replaceChildren(...(made.length ? made : [element("tr", {}, element("td", { colspan: columns }, empty))]));
}

// Text with `commands` in it, as the journal's catalog has it.
const marked = (text) => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));

function showState(node) {
  document.title = `${node.name} – pxe-pack`;
  byId("name").textContent = node.name;
  const percent = node.percent === null || node.stage === "done" ? "" : `, ${node.percent} %`;
  byId("now").replaceChildren(element("p", { class: "now" }, stateBadge(node.state), `${node.state === "done" ? "" : ` at ${node.stage}${percent}`}, for ${span(node.stage_seconds)}; last seen ${span(node.seen_seconds)} ago`));
  const error = byId("error");
  error.hidden = !(node.message || node.advice) || !["failed", "degraded", "silent", "booting"].includes(node.state);
  error.replaceChildren(
    ...(node.message ? [element("h2", {}, node.state === "failed" ? "Why it failed" : "What was said last"), element("p", { class: "said" }, node.message)] : []),
    ...(node.cause ? [element("p", {}, "Cause: ", element("code", {}, node.cause), node.exit_code === null ? "" : ` (exit code ${node.exit_code})`)] : []),
    ...(node.advice ? [element("h2", {}, "What to do"), element("p", {}, ...marked(node.advice))] : []));
}

function showFacts(node) {
  const report = node.report;
  const ahead = node.clock_offset;
  const facts = {
    "MAC address": node.mac, "UUID": node.uuid, "Host name": node.hostname, "Address": node.address, "Layout": node.layout, "Version": node.version,
    "Architecture": report?.node.arch, "Agent": report?.agent, "Configuration": report?.config.path_or_url,
    "Configuration's SHA-256": report?.config.sha256, "Failed runs in a row": report?.failures || "",
    "Clock": ahead === null || Math.abs(ahead) < 5 ? "" : `${span(Math.abs(ahead))} ${ahead > 0 ? "ahead" : "behind"}`,
  };
  byId("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

const show = single(async () => {
  const node = await get(`/api/nodes/${number}`);
  showState(node);
  showFacts(node);
  byId("timeline").replaceChildren(...node.timeline.map((one) => element("li", {},
    element("time", { datetime: new Date(one.time * 1000).toISOString() }, moment(one.time)), " ",
    stateBadge(one.state), " ", element("b", {}, one.stage), ` ${one.text}`)));
  rows(byId("artifacts"), (node.report?.artifacts ?? []).map((one) => [
    one.required ? one.name : `${one.name} (optional)`, one.phase, one.total ? `${bytes(one.bytes)} of ${bytes(one.total)}` : bytes(one.bytes),
    one.attempts, one.seconds, one.final_url || one.url, one.error]), "none so far");
  rows(byId("units"), (node.report?.units ?? []).map((one) => [one.name, one.artifact, one.result, one.message]), "none so far");
  rows(byId("runs"), node.runs.map((one) => [
    one.run.slice(0, 8), moment(one.first_seen), one.version, one.final ? `${one.phase} (${one.exit_code})` : one.phase, bytes(one.bytes), one.message]), "none so far");
  const journal = node.report?.journal ?? [];
  byId("journal-section").hidden = !journal.length;
  byId("journal").textContent = journal.join("\n");
});

follow(show);
