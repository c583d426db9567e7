// Keyboard shortcuts, and the sheet that lists them.

import { ask, h } from "./dom.js";

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const KEYS = [
  ["Enter", "Send"],
  ["Shift Enter", "New line"],
  ["Esc", "Stop the answer, or close a panel"],
  ["/", "Write a message"],
  ["Ctrl K", "Search conversations"],
  ["Alt N", "New conversation"],
  ["Alt E", "Edit the last question"],
  ["Alt R", "Answer again"],
  ["Alt ← →", "Earlier or later version"],
  ["Alt S", "Settings"],
  ["Alt L", "Library"],
  ["Alt C", "Two models side by side"],
  ["Alt B", "Show or hide the list"],
  ["Alt D", "Dark or light"],
  ["?", "This sheet"],
];

export function help() {
  if (document.querySelector("dialog[open]")) return Promise.resolve("");
  const rows = KEYS.map(([keys, what]) =>
    h(
      "div",
      { class: "key" },
      h("span", {}, what),
      h(
        "span",
        {},
        keys.split(" ").map((key) => h("kbd", {}, MAC && key === "Ctrl" ? "⌘" : key)),
      ),
    ),
  );
  return ask("Keyboard", h("div", { class: "keys" }, rows), [["", "Close", "main"]]);
}

/** @param acts by name: search, create, edit, again, earlier, later, settings, library, compare, side, theme, focus, escape */
export function listen(acts) {
  const alt = {
    KeyN: "create",
    KeyE: "edit",
    KeyR: "again",
    ArrowLeft: "earlier",
    ArrowRight: "later",
    KeyS: "settings",
    KeyL: "library",
    KeyC: "compare",
    KeyB: "side",
    KeyD: "theme",
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input, textarea, select");
    let act = "";
    if (event.altKey && !event.ctrlKey && !event.metaKey) {
      const inText = typing && ["ArrowLeft", "ArrowRight"].includes(event.code) && event.target.value;
      act = inText ? "" : alt[event.code] || "";
    } else if ((event.ctrlKey || event.metaKey) && event.code === "KeyK") act = "search";
    else if (event.key === "Escape") act = "escape";
    else if (!typing && event.key === "/") act = "focus";
    else if (!typing && event.key === "?") act = "help";
    if (!act) return;
    event.preventDefault();
    acts[act]();
  });
}
