// What both pages use: requests, elements, and words for errors.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (a function is a listener) and children (texts or elements). */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in a picture. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const READ_LIMIT_MS = 120_000; // a search may take longer, what is only read does not

/** The answer to a request as JSON; null: nothing new. With a body it is a POST. */
export async function ask(path, body) {
  const options = body === undefined ? { signal: AbortSignal.timeout(READ_LIMIT_MS) } : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new RequestError(0, "the server does not answer");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new RequestError(answer.status, told?.error || `the server answers ${answer.status}`);
  if (told === null) throw new RequestError(answer.status, "the server's answer is cut off");
  return told;
}

export const byId = (id) => document.getElementById(id);

/** A number for people: 12.3 M, 4,560, 0.512. */
export function readable(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${trim(value / 1e9)} G`;
  if (size >= 1e6) return `${trim(value / 1e6)} M`;
  if (size >= 1e4) return `${trim(value / 1e3)} k`;
  return size >= 100 ? String(Math.round(value)) : trim(value);
}

const trim = (value) => String(Number(value.toPrecision(3)));

/** Calls a function again and again while the page is seen; it may take its time. */
export function repeat(work, everyMs) {
  const run = async () => {
    try {
      if (!document.hidden) await work();
    } catch (error) {
      reportError(error); // in the browser's console; the page goes on
    }
    setTimeout(run, everyMs);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) work(); });
  run();
}
