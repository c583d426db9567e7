// Where messages are written: the box, attachments, where answers come from, and the line that says what it costs.

import { h, icon, iconButton, toast } from "./dom.js";
import { messages } from "./tree.js";
import { money } from "./turns.js";

const TEXT_LIMIT = 400_000; // characters of a file that go into a question as they are
const SOURCES = [
  ["model", "Model"],
  ["documents", "Documents"],
  ["library", "Library"],
];

export class Composer {
  constructor(element, app) {
    this.app = app;
    this.files = [];
    this.entry = h("textarea", {
      id: "entry",
      rows: 1,
      placeholder: "Write a message",
      "aria-label": "Message",
      on: { input: () => this.#typed(), keydown: (event) => this.#key(event), paste: (event) => this.#pasted(event) },
    });
    this.input = h("input", {
      type: "file",
      multiple: true,
      class: "hidden",
      tabindex: "-1",
      "aria-hidden": "true",
      id: "attach",
    });
    this.input.addEventListener("change", () => this.attach([...this.input.files]).then(() => (this.input.value = "")));
    this.chips = h("ul", { class: "chips", "aria-label": "Files to send" });
    this.button = iconButton("send", "Send", () => (app.running() ? app.stop() : this.send()), { class: "send" });
    this.source = h("div", { class: "segments", role: "group", "aria-label": "Where answers come from" });
    this.guard = h("span", { class: "guard" });
    this.fill = h("span", { class: "filled" });
    this.meter = h(
      "span",
      { class: "meter", role: "meter", "aria-label": "Context used", "aria-valuemin": "0" },
      h("span", { class: "bar" }, this.fill),
      (this.count = h("span")),
    );
    this.cost = h("span", { class: "cost" });
    const box = h(
      "div",
      { class: "box" },
      this.chips,
      this.entry,
      h(
        "div",
        { class: "line" },
        iconButton("attach", "Attach files", () => this.input.click()),
        this.input,
        this.source,
        h("span", { class: "space" }),
        this.button,
      ),
    );
    element.append(box, h("div", { class: "state" }, this.guard, this.meter, this.cost));
    for (const [event, over] of [
      ["dragover", true],
      ["dragleave", false],
      ["drop", false],
    ]) {
      box.addEventListener(event, (dropped) => {
        dropped.preventDefault();
        box.classList.toggle("over", over);
        if (event === "drop") this.attach([...dropped.dataTransfer.files]);
      });
    }
  }

  focus() {
    this.entry.focus();
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  #pasted(event) {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length) return;
    event.preventDefault();
    this.attach(files);
  }

  #typed() {
    this.entry.style.height = "auto";
    this.entry.style.height = `${Math.min(this.entry.scrollHeight, window.innerHeight * 0.4)}px`;
    this.app.draft(this.entry.value);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.measure(), 350);
  }

  set(text) {
    this.entry.value = text;
    this.#typed();
  }

  send() {
    const text = this.entry.value.trim();
    if ((!text && !this.files.length) || this.app.running()) return;
    const files = this.files;
    this.files = [];
    this.set("");
    this.drawFiles();
    this.app.ask(text, files);
  }

  /** Takes files in: texts are read here, and others by the server, into a library. */
  async attach(files) {
    for (const file of files) {
      const text = await asText(file);
      try {
        const kept = await this.app.api.maybe(this.app.upload(file));
        if (text === null) await this.#intoLibrary(file, kept);
        else this.files.push({ name: file.name, text: text.slice(0, TEXT_LIMIT), id: kept?.id });
        if (text !== null && text.length > TEXT_LIMIT)
          toast(`Only the first ${TEXT_LIMIT.toLocaleString()} characters of ${file.name} are sent.`);
      } catch (error) {
        toast(`${file.name}: ${error.message}`);
      }
    }
    this.drawFiles();
    this.measure();
  }

  async #intoLibrary(file, kept) {
    const { api, current } = this.app;
    if (!kept) throw new Error("it is no text, and this server keeps no files.");
    current.settings.store ||= (await api.post("/v1/vector_stores", { name: "From the chat" })).id;
    await api.post(`/v1/vector_stores/${current.settings.store}/files`, { file_id: kept.id });
    current.settings.source = "library";
    this.app.changedSettings();
    toast(`${file.name} is read into the library, from which questions are answered now.`);
  }

  drawFiles() {
    this.chips.replaceChildren(
      ...this.files.map((file) =>
        h(
          "li",
          { class: "chip" },
          icon("attach"),
          file.name,
          iconButton("close", `Take ${file.name} out`, () => {
            this.files = this.files.filter((other) => other !== file);
            this.drawFiles();
          }),
        ),
      ),
    );
  }

  draw() {
    const { app } = this;
    const running = app.running();
    this.button.replaceChildren(icon(running ? "stop" : "send"));
    this.button.setAttribute("aria-label", running ? "Stop" : "Send");
    this.button.title = running ? "Stop (Esc)" : "Send (Enter)";
    const { settings } = app.current;
    const now = settings.source === "documents" && app.world.reader === false ? "model" : settings.source || "model";
    const shown = SOURCES.filter(([name]) => name !== "documents" || app.world.reader !== false);
    this.source.replaceChildren(
      ...shown.map(([name, label]) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(now === name), on: { click: () => app.setSource(name) } },
          label,
        ),
      ),
    );
    const { shields } = app.world;
    this.guard.replaceChildren(icon("shield"), shields.length ? `Guard: ${shields.join(", ")}` : "No guard");
    this.guard.title = shields.length
      ? "Every message and answer is judged before it is shown"
      : "Nothing judges what is asked and answered here";
    this.guard.classList.toggle("on", shields.length > 0);
    const spent = Object.values(app.current.nodes)
      .map((node) => node.cost)
      .filter(Number.isFinite);
    const sum = spent.reduce((total, cost) => total + cost, 0);
    this.cost.textContent = spent.length ? (sum ? `${money(sum)} so far` : "No cost so far") : "";
  }

  /** How much of the model's context the conversation and the draft take. */
  async measure() {
    const { app } = this;
    const { current } = app;
    const model = app.world.model(app.model());
    this.meter.hidden = !model;
    if (!model) return;
    const draft = this.entry.value + this.files.map((file) => file.text).join("");
    const lists = [messages(current), draft ? [{ role: "user", content: draft }] : []];
    const costs = await Promise.all(lists.map((list) => app.turns.counter.all(app.model(), list)));
    if (current !== app.current) return;
    const used = costs.flat().reduce((sum, cost) => sum + cost, 0);
    const about = app.turns.counter.exact ? "" : "≈ ";
    this.meter.hidden = !used;
    const share = model?.context ? used / model.context : 0;
    this.fill.style.width = `${Math.min(share, 1) * 100}%`;
    this.meter.classList.toggle("full", share > 0.85);
    this.meter.setAttribute("aria-valuenow", String(used));
    this.meter.setAttribute("aria-valuemax", String(model?.context || used));
    this.count.textContent = `${about}${used.toLocaleString()}${model?.context ? ` of ${model.context.toLocaleString()}` : ""} tokens`;
  }
}

/** A file's text; null for what is no UTF-8 text. */
async function asText(file) {
  const bytes = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") || text.startsWith("%PDF-") ? null : text;
  } catch {
    return null;
  }
}
