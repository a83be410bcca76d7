// A line of bytes a second over time, as SVG, with its numbers as text for those who do not see it.
import { bytes } from "/static/common.js";

const WIDTH = 900;
const HEIGHT = 140;
const INTERVAL = 10; // seconds of a point, as the collector has it
const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function plot(place, text, { points, seconds, time }) {
  const start = time - seconds;
  const complete = points.filter(([at]) => at <= time - INTERVAL); // the current one has not got all of its bytes yet
  const values = new Map(complete);
  const largest = Math.max(1, ...values.values());
  const line = [];
  // An interval in which nothing came is 0, not a gap.
  for (let at = Math.ceil(start / INTERVAL) * INTERVAL; at <= time - INTERVAL; at += INTERVAL) {
    const x = ((at - start) / seconds) * WIDTH;
    const y = HEIGHT - 4 - ((values.get(at) ?? 0) / largest) * (HEIGHT - 12);
    line.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  place.replaceChildren(
    shape("line", { x1: 0, y1: HEIGHT - 4, x2: WIDTH, y2: HEIGHT - 4, class: "axis" }),
    shape("polyline", { points: line.join(" "), class: "line", "vector-effect": "non-scaling-stroke" }));
  const last = values.get(Math.floor(time / INTERVAL - 1) * INTERVAL) ?? 0;
  text.textContent = complete.length
    ? `Last ${Math.round(seconds / 60)} minutes: now ${bytes(last)}/s, at most ${bytes(largest)}/s`
    : `No node has received anything in the last ${Math.round(seconds / 60)} minutes`;
}
