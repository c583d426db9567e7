// The panel at the right: a conversation's settings, the library of documents, or the source of a citation.

import { h, iconButton, toast } from "./dom.js";

const SAMPLING = [
  ["temperature", "Temperature", "0 takes the likeliest word", { min: 0, max: 2, step: 0.05 }],
  ["top_p", "Top p", "smallest set of words with this probability", { min: 0.01, max: 1, step: 0.01 }],
  ["top_k", "Top k", "so many likeliest words; 0 for all", { min: 0, max: 1000, step: 1 }],
  ["min_p", "Min p", "share of the likeliest word's probability", { min: 0, max: 0.99, step: 0.01 }],
  ["max_tokens", "Max tokens", "longest answer", { min: 1, max: 131072, step: 1 }],
  ["seed", "Seed", "the same seed, the same answer", { min: 0, max: 2147483647, step: 1 }],
];

export class Drawer {
  constructor(element, app) {
    this.element = element;
    this.app = app;
    this.showing = "";
  }

  #open(showing, title, ...children) {
    if (!this.showing) this.before = document.activeElement;
    this.showing = showing;
    this.element.hidden = false;
    document.body.classList.add("with-drawer");
    const heading = h("h2", { tabindex: "-1" }, title);
    this.element.replaceChildren(
      h(
        "div",
        { class: "drawer-head" },
        heading,
        iconButton("close", "Close this panel", () => this.close()),
      ),
      h("div", { class: "drawer-body" }, ...children),
    );
    heading.focus();
  }

  close() {
    if (!this.showing) return false;
    this.showing = "";
    this.element.hidden = true;
    document.body.classList.remove("with-drawer");
    this.before?.focus();
    return true;
  }

  toggle(showing, open) {
    if (this.showing === showing) this.close();
    else open();
  }

  settings() {
    const { app } = this;
    const { settings } = app.current;
    const set = (name, value) => {
      if (value === undefined || value === "" || Number.isNaN(value)) delete settings[name];
      else settings[name] = value;
      app.changedSettings();
    };
    const numbers = SAMPLING.map(([name, label, hint, bounds]) => {
      const input = h("input", {
        type: "number",
        inputmode: "decimal",
        ...bounds,
        value: settings[name] ?? "",
        placeholder: "default",
        "aria-describedby": `hint-${name}`,
        on: {
          change: () =>
            input.checkValidity()
              ? set(name, input.value === "" ? undefined : Number(input.value))
              : input.reportValidity(),
        },
      });
      return h("label", { class: "field" }, h("span", {}, label, h("small", { id: `hint-${name}` }, hint)), input);
    });
    const system = h("textarea", {
      rows: 5,
      value: settings.system || "",
      placeholder: "Who the assistant is, and how it answers",
      on: { change: () => set("system", system.value) },
    });
    const stop = h("input", {
      type: "text",
      value: (settings.stop || []).join(" | "),
      placeholder: "END | ###",
      on: { change: () => set("stop", stop.value ? stop.value.split(" | ") : undefined) },
    });
    const tools = h("textarea", {
      rows: 4,
      class: "mono",
      spellcheck: "false",
      value: settings.tools || "",
      placeholder: '[{"type": "function", "function": {…}}]',
      on: {
        change: () => {
          try {
            if (tools.value && !Array.isArray(JSON.parse(tools.value))) throw new Error("they are no list");
            tools.setCustomValidity("");
            set("tools", tools.value);
          } catch (error) {
            tools.setCustomValidity(`The tools are not JSON: ${error.message}`);
            tools.reportValidity();
          }
        },
      },
    });
    const logprobs = this.#check("Ask for the probabilities of tokens", Boolean(settings.logprobs), (on) =>
      set("logprobs", on || undefined),
    );
    this.#open(
      "settings",
      "Settings",
      h("label", { class: "field tall" }, h("span", {}, "System prompt"), system),
      h(
        "fieldset",
        {},
        h("legend", {}, "Sampling"),
        numbers,
        h("label", { class: "field" }, h("span", {}, "Stop at", h("small", {}, "texts, parted by |")), stop),
      ),
      h(
        "label",
        { class: "field tall" },
        h("span", {}, "Tools", h("small", {}, "functions that the model may call, as JSON")),
        tools,
      ),
      logprobs,
      this.#page(),
    );
  }

  #check(label, on, act) {
    const input = h("input", { type: "checkbox", checked: on, on: { change: () => act(input.checked) } });
    return h("label", { class: "check" }, input, h("span", {}, label));
  }

  #page() {
    const { app } = this;
    const key = h("input", {
      type: "password",
      autocomplete: "off",
      value: app.key(),
      placeholder: "none",
      on: { change: () => app.setKey(key.value.trim()) },
    });
    return h(
      "fieldset",
      {},
      h("legend", {}, "This page"),
      this.#check("Keep my ratings and edits on the server, to train with", app.prefs.consent === "yes", (on) =>
        app.setPref("consent", on ? "yes" : "no"),
      ),
      h("label", { class: "field" }, h("span", {}, "API key", h("small", {}, "kept until this tab is closed")), key),
    );
  }

  /** The library: vector stores and their files. */
  async library() {
    const { app } = this;
    this.#open("library", "Library", h("p", { class: "faint" }, "…"));
    const page = await app.api.maybe(app.api.get("/v1/vector_stores?limit=100")).catch((error) => toast(error.message));
    if (this.showing !== "library") return;
    if (!page) return this.#open("library", "Library", h("p", {}, "This server keeps no libraries of documents."));
    const { settings } = app.current;
    const choose = h(
      "select",
      { "aria-label": "Library", on: { change: () => this.#choose(choose.value) } },
      h("option", { value: "" }, "None"),
      page.data.map((store) =>
        h("option", { value: store.id, selected: store.id === settings.store }, store.name || store.id),
      ),
    );
    const name = h("input", { type: "text", "aria-label": "Name of a new library", placeholder: "Name" });
    const make = async () => {
      try {
        await this.#choose((await app.api.post("/v1/vector_stores", { name: name.value.trim() || "Library" })).id);
      } catch (error) {
        toast(error.message);
      }
    };
    const files = h("ul", { class: "files" });
    const input = h("input", {
      type: "file",
      multiple: true,
      "aria-label": "Documents to add",
      on: { change: () => this.#upload([...input.files], files) },
    });
    this.#open(
      "library",
      "Library",
      h(
        "p",
        { class: "faint" },
        "Questions are asked with the passages of these documents that fit best, and the answer names them.",
      ),
      h("label", { class: "field tall" }, h("span", {}, "Ask with"), choose),
      settings.store ? [files, h("label", { class: "field tall" }, h("span", {}, "Add documents"), input)] : "",
      h(
        "fieldset",
        {},
        h("legend", {}, "New library"),
        h("div", { class: "line" }, name, h("button", { type: "button", on: { click: make } }, "Make")),
      ),
    );
    if (settings.store) await this.#files(files);
  }

  #choose(id) {
    const { app } = this;
    if (id) Object.assign(app.current.settings, { store: id, source: "library" });
    else {
      delete app.current.settings.store;
      if (app.current.settings.source === "library") app.current.settings.source = "model";
    }
    app.changedSettings();
    return this.library();
  }

  async #files(list) {
    const { app } = this;
    const store = app.current.settings.store;
    try {
      const page = await app.api.get(`/v1/vector_stores/${store}/files?limit=100`);
      const rows = await Promise.all(
        page.data.map(async (file) => {
          const about = await app.api.get(`/v1/files/${file.id}`).catch(() => ({ filename: file.id }));
          const drop = async () => {
            await app.api.delete(`/v1/vector_stores/${store}/files/${file.id}`).catch((error) => toast(error.message));
            await this.#files(list);
          };
          return h(
            "li",
            {},
            h("span", { class: "where" }, about.filename),
            h(
              "small",
              {},
              file.last_error?.message || { completed: "ready", in_progress: "is read" }[file.status] || file.status,
            ),
            iconButton("close", `Take ${about.filename} out`, drop),
          );
        }),
      );
      list.replaceChildren(...(rows.length ? rows : [h("li", { class: "faint" }, "No documents yet.")]));
      if (page.data.some((file) => file.status === "in_progress") && list.isConnected)
        setTimeout(() => this.#files(list), 800);
    } catch (error) {
      toast(error.message);
    }
  }

  async #upload(files, list) {
    for (const file of files) {
      try {
        const kept = await this.app.upload(file);
        await this.app.api.post(`/v1/vector_stores/${this.app.current.settings.store}/files`, { file_id: kept.id });
      } catch (error) {
        toast(`${file.name}: ${error.message}`);
      }
    }
    await this.#files(list);
  }

  /** Opens a cited document at the cited place. */
  async source(cited) {
    this.#open("source", cited.source, h("p", { class: "faint" }, "…"));
    let text = null;
    try {
      text = await this.#text(cited);
    } catch (error) {
      toast(error.message);
    }
    if (this.showing !== "source") return;
    const span = text === null ? null : place(text, cited);
    const note = span
      ? `The cited words stand here, from character ${cited.start ?? span.start} on.`
      : "The cited words were not found in the document as it is now.";
    const shown = span
      ? [
          text.slice(0, span.from),
          h("mark", { id: "cited", tabindex: "-1" }, text.slice(span.from, span.to)),
          text.slice(span.to),
        ]
      : [text ?? cited.text];
    this.#open(
      "source",
      cited.source,
      cited.heading && h("p", { class: "heading" }, cited.heading),
      h("p", { class: span ? "checked" : "failure", role: "note" }, note),
      h("pre", { class: "document", tabindex: "0" }, shown),
    );
    this.element.querySelector("#cited")?.scrollIntoView({ block: "center" });
  }

  async #text(cited) {
    const { api } = this.app;
    if (cited.file) {
      const content = await api.get(`/v1/vector_stores/${cited.store}/files/${cited.file}/content`);
      return (content.data || content.content).map((part) => part.text).join("\n");
    }
    return (await api.get(`/v1alpha/reader/document?source=${encodeURIComponent(cited.source)}`)).text;
  }
}

/** Where a citation stands in a text. The server counts characters as Python does, JavaScript counts UTF-16 units. */
export function place(text, { start, end, text: cited }) {
  if (Number.isInteger(start) && Number.isInteger(end)) {
    const from = units(text, start);
    const to = from + units(text.slice(from), end - start);
    if (!cited || folded(text.slice(from, to)) === folded(cited)) return { from, to, start };
  }
  const from = cited ? text.indexOf(cited) : -1;
  return from < 0 ? null : { from, to: from + cited.length, start: [...text.slice(0, from)].length };
}

/** An answer has blanks where the document has line breaks. */
function folded(text) {
  return text.split(/\s+/).join(" ").trim();
}

function units(text, characters) {
  let at = 0;
  for (let left = characters; left > 0 && at < text.length; left -= 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}
