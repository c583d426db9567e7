// Elements without markup. What a model, a file or a server says becomes text nodes and never tags: no module of this
// page uses innerHTML, and the page's Content-Security-Policy forbids it as well.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  plus: "M10 4v12M4 10h12",
  search: "M9 4a5 5 0 1 0 0 10a5 5 0 0 0 0-10M12.8 12.8L16.5 16.5",
  menu: "M3.5 6h13M3.5 10h13M3.5 14h13",
  settings: "M4 6h7M15 6h1M4 14h1M9 14h7M13 4v4M7 12v4",
  compare: "M4 4.5h5v11H4zM11 4.5h5v11h-5z",
  send: "M10 16V4.5M5 9.5L10 4.5L15 9.5",
  stop: "M6 6h8v8H6z",
  attach:
    "M14.5 9.5L9.7 14.3a3.2 3.2 0 0 1-4.5-4.5l5.6-5.6a2.2 2.2 0 0 1 3.1 3.1l-5.5 5.5a1.1 1.1 0 0 1-1.6-1.6l4.6-4.6",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  edit: "M4.5 15.5l.8-3.2L13 4.6l2.4 2.4l-7.7 7.7zM11.5 6.1l2.4 2.4",
  again: "M15.5 10a5.5 5.5 0 1 1-1.7-4M15.5 3.5V6.5H12.5",
  up: "M7 16V9l3-5.2c1 0 1.7.8 1.5 1.8L11 8.5h4.2c.8 0 1.3.7 1.1 1.4l-1.3 5c-.2.6-.7 1.1-1.4 1.1zM7 9H4v7h3",
  down: "M13 4v7l-3 5.2c-1 0-1.7-.8-1.5-1.8l.5-2.9H4.800c-.8 0-1.300-.7-1.100-1.400l1.300-5c.2-.6.7-1.100 1.400-1.100zM13 11h3V4h-3",
  left: "M12 5L7 10L12 15",
  right: "M8 5L13 10L8 15",
  close: "M5 5l10 10M15 5L5 15",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  bars: "M4 16V9M8 16V5M12 16v-5M16 16V7",
  book: "M10 6c-1.500-1.300-3.500-1.500-6-1.500v10c2.500 0 4.500.2 6 1.500c1.500-1.300 3.500-1.500 6-1.500v-10c-2.500 0-4.500.2-6 1.500zM10 6v10",
  shield: "M10 3.500l5.500 2v4.300c0 3.200-2.300 5.500-5.500 6.700c-3.200-1.200-5.500-3.500-5.500-6.700V5.500z",
  tool: "M12.500 4.200a3.500 3.500 0 0 0-4.300 4.500L4 13l3 3l4.300-4.200a3.500 3.500 0 0 0 4.500-4.300l-2.300 2.200l-2.200-.500l-.500-2.200z",
};

/** An element: `h("p", {class: "x", on: {click}}, "text", child)`. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in PROPERTIES) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}
const PROPERTIES = { value: 1, checked: 1, disabled: 1, selected: 1, hidden: 1, textContent: 1 };

/** One of the page's own line drawings. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with a drawing; its label is what a screen reader says and what is shown on hover. */
export function iconButton(name, label, click, props = {}) {
  return h(
    "button",
    { type: "button", class: "quiet", "aria-label": label, title: label, on: { click }, ...props },
    icon(name),
  );
}

/** Shows a dialog, and waits for the value of the button that closes it ("" for Escape). */
export function ask(title, body, buttons) {
  const heading = h("h2", { id: "ask-title" }, title);
  const form = h("form", { method: "dialog" }, heading, body);
  form.append(
    h(
      "div",
      { class: "buttons" },
      buttons.map(([value, label, kind]) => h("button", { value, class: kind || "" }, label)),
    ),
  );
  const dialog = h("dialog", { "aria-labelledby": "ask-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue);
      dialog.remove();
    });
  });
}

/** Gives a file to the browser's downloads. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

let toastTimer = 0;
/** A short message at the page's foot, which a screen reader says too. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => place.classList.remove("shown"), 4000);
}
