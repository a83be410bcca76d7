// What both pages use. Text from nodes only ever becomes text nodes: nothing here parses HTML.

export const STATES = ["failed", "silent", "degraded", "booting", "fetching", "done"];
export const STAGES = ["DHCP", "shim", "GRUB", "kernel", "initrd", "ISO", "agent", "artifacts", "units", "done"];
// Beside its colour and its word each state has a sign of its own.
export const SIGNS = { failed: "✗", silent: "?", degraded: "!", booting: "↑", fetching: "↓", done: "✓" };

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child ?? ""))));
  return made;
}

export function stateBadge(state) {
  return element("span", { class: `state ${state}` }, element("span", { "aria-hidden": "true" }, SIGNS[state]), ` ${state}`);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function bytes(count) {
  if (!count) return "0 B";
  const power = Math.min(Math.floor(Math.log2(count) / 10), 5);
  return `${(count / 1024 ** power).toLocaleString(undefined, { maximumFractionDigits: power ? 1 : 0 })} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
}

export async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.json();
}

// Calls `changed` with the summary each time something has changed, and shows whether the collector answers.
export function follow(changed) {
  const shown = byId("connection");
  const source = new EventSource("/events");
  source.onmessage = (event) => {
    shown.textContent = "Live";
    shown.classList.remove("lost");
    changed(JSON.parse(event.data));
  };
  source.onerror = () => {
    shown.textContent = "The collector does not answer; this page shows the last state that it had.";
    shown.classList.add("lost");
  };
}

// A function that runs `work`, never twice at once; what is asked for meanwhile runs once afterwards.
export function single(work) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      do {
        again = false;
        await work();
      } while (again);
    } catch (error) {
      console.error(error);
    } finally {
      running = false;
    }
  };
}
