// The chat page: what is shown, and what happens when something is pressed. State lives in `App`; the other modules draw
// parts of it and hand back what the user wants.

import { Api, ApiError } from "./api.js";
import { Composer } from "./composer.js";
import { h, icon, iconButton, toast } from "./dom.js";
import { Drawer } from "./drawer.js";
import { Feedback } from "./feedback.js";
import { fromServer, Local, Remote } from "./keep.js";
import { help, listen } from "./keys.js";
import { Side } from "./side.js";
import { Thread } from "./thread.js";
import { add, newConversation, path, select, siblings, titleOf } from "./tree.js";
import { Turns } from "./turns.js";
import { dark, described, read, settled } from "./world.js";

const SAVE_EVERY = 700; // milliseconds between two savings of a growing answer
const $ = (id) => document.getElementById(id);

class App {
  constructor() {
    this.prefs = read(localStorage, "puna-prefs");
    this.conversations = new Map();
    this.world = {
      models: [],
      shields: [],
      reader: undefined,
      model: (id) => this.world.models.find((one) => one.id === id),
    };
    this.api = new Api(() => this.key());
    this.turns = new Turns(this.api, this.world, (conversation, node) => this.#grown(conversation, node));
    this.feedback = new Feedback(this);
    this.current = newConversation(this.#settings());
  }

  // Start ------------------------------------------------------------------------------------------------------------

  async start() {
    this.#theme();
    this.local = await Local.open();
    this.remote = new Remote(this.api, this.local);
    for (const conversation of await this.local.all()) this.conversations.set(conversation.id, settled(conversation));
    const foot = [
      iconButton("book", "Library (Alt L)", () => this.drawer.toggle("library", () => this.drawer.library())),
      h(
        "button",
        { type: "button", class: "quiet small", on: { click: () => this.setPref("theme", dark() ? "light" : "dark") } },
        "Dark or light",
      ),
      h("button", { type: "button", class: "quiet small", on: { click: help } }, "Keys"),
    ];
    this.side = new Side($("side"), this, foot);
    this.drawer = new Drawer($("drawer"), this);
    this.thread = new Thread($("thread"), {
      edit: (node, text) => this.edit(node, text),
      again: (node) => this.again(node),
      rate: (node, rating) => this.rate(node, rating),
      show: (id) => this.show(id),
      source: (cited) => this.drawer.source(cited),
      resume: (node, call, text) => this.resume(node, call, text),
      keep: (node) => this.keep(node),
      askModel: (node) => this.askModel(node),
    });
    this.composer = new Composer($("composer"), this);
    this.#keys();
    const wanted = this.conversations.get(location.hash.slice(1)) || this.conversations.get(this.prefs.current);
    if (wanted) this.current = wanted;
    this.toggleSide(this.prefs.side !== false && window.innerWidth > 860);
    this.composer.set(this.drafted());
    this.draw();
    this.composer.focus();
    await this.#connect();
    document.body.dataset.ready = "true";
  }

  /** Asks the server what there is; the page works as far as it goes. */
  async #connect() {
    try {
      const [models, shields] = await Promise.all([
        this.api.get("/v1/models"),
        this.api.maybe(this.api.get("/v1/shields")),
      ]);
      this.world.models = models.data
        .filter((model) => (model.custom_metadata?.model_type || "llm") === "llm")
        .map(described);
      this.world.shields = (shields?.data || []).map((shield) => shield.identifier);
      this.offline = "";
    } catch (error) {
      this.offline = error.status === 401 ? "This server wants an API key: write it into the settings." : error.message;
      this.draw();
      return;
    }
    await this.#findReader();
    this.draw();
    this.composer.measure();
    await this.#fromServer();
  }

  async #findReader() {
    try {
      await this.api.get("/v1alpha/reader/document");
      this.world.reader = true;
    } catch (error) {
      this.world.reader = !error.absent && error.status !== 0; // it asks for a source where there is one to ask
    }
    if (this.world.reader && !this.current.settings.source) this.current.settings.source = "documents";
  }

  async #fromServer() {
    const listed = await this.remote.list().catch(() => null);
    const known = new Map([...this.conversations.values()].filter((one) => one.remote).map((one) => [one.remote, one]));
    for (const one of listed || []) {
      const conversation = known.get(one.id);
      if (!conversation) {
        const found = fromServer(one);
        this.conversations.set(found.id, found);
      } else if (Number(one.metadata.updated) > conversation.updated) conversation.hollow = true;
    }
    this.side.draw();
    if (this.current.hollow || this.current.remote) await this.#pull(this.current);
  }

  async #pull(conversation) {
    try {
      const grown = await this.remote.pull(conversation);
      delete conversation.hollow;
      if (!grown) return;
      await this.local.put(conversation);
      if (conversation === this.current) this.draw();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.absent) this.remote.forget(conversation);
    }
  }

  // State ------------------------------------------------------------------------------------------------------------

  key() {
    return sessionStorage.getItem("puna-key") || "";
  }
  setKey(key) {
    sessionStorage.setItem("puna-key", key);
    this.#connect();
  }
  setPref(name, value) {
    this.prefs[name] = value;
    localStorage.setItem("puna-prefs", JSON.stringify(this.prefs));
    if (name === "theme") this.#theme();
  }
  #theme() {
    document.documentElement.dataset.theme = this.prefs.theme || "";
  }
  #settings() {
    const { store, ...rest } = this.prefs.settings || {};
    return rest.source === "library" ? { ...rest, source: "model" } : rest;
  }
  model() {
    const wanted = this.current.settings.model;
    return (this.world.model(wanted) || this.world.model(this.prefs.model) || this.world.models[0])?.id || wanted || "";
  }
  models() {
    const second = this.prefs.compare && this.world.model(this.prefs.second)?.id;
    return second ? [this.model(), second] : [this.model()];
  }
  /** What was written and not sent, for a conversation; all that have not begun share one. */
  drafted(conversation = this.current) {
    return this.prefs.drafts?.[conversation.order.length ? conversation.id : "new"] || "";
  }
  draft(text) {
    const drafts = { ...this.prefs.drafts };
    const name = this.current.order.length ? this.current.id : "new";
    if (text) drafts[name] = text;
    else delete drafts[name];
    this.setPref("drafts", drafts);
  }
  changedSettings() {
    this.setPref("settings", this.current.settings);
    if (this.current.order.length) this.save(this.current);
    this.#drawAround();
    this.composer.measure();
  }
  setSource(source) {
    if (source === "library" && !this.current.settings.store) this.drawer.library();
    else {
      this.current.settings.source = source;
      this.changedSettings();
    }
  }
  running() {
    return this.turns.running(this.current);
  }
  stop() {
    this.turns.stop(this.current);
  }

  /** Keeps a conversation here and on the server. */
  save(conversation) {
    if (conversation.gone) return;
    this.conversations.set(conversation.id, conversation);
    this.local
      .put(conversation)
      .catch((error) => toast(`This browser did not keep the conversation: ${error.message}`));
    this.remote
      .push(conversation)
      .then((grown) => {
        if (grown && conversation === this.current) this.draw();
        return conversation.gone ? undefined : this.local.put(conversation);
      })
      .catch((error) => toast(error.message));
    this.side.draw();
  }

  #grown(conversation, node) {
    const now = Date.now();
    if (node.state !== "streaming") this.save(conversation);
    else if (now - (this.saved || 0) > SAVE_EVERY) {
      this.saved = now;
      this.local.put(conversation).catch(() => {});
    }
    if (conversation !== this.current) return;
    if (node.state === "streaming" && $("thread").querySelector(`[data-id="${node.id}"]`)) this.thread.update(node);
    else this.draw();
    if (node.state !== "streaming") this.composer.measure();
  }

  // What the user does -----------------------------------------------------------------------------------------------

  create() {
    if (!this.current.order.length) return this.composer.focus();
    this.#leave(newConversation(this.#settings()));
    if (this.world.reader) this.current.settings.source = "documents";
    this.composer.focus();
  }

  open(conversation) {
    this.#leave(conversation);
    if (conversation.hollow || conversation.remote) this.#pull(conversation);
    if (window.innerWidth <= 860) this.toggleSide(false);
  }

  #leave(conversation) {
    this.current = conversation;
    this.setPref("current", conversation.id);
    history.replaceState(null, "", conversation.order.length ? `#${conversation.id}` : location.pathname);
    this.drawer.close();
    this.thread.follow = true;
    this.composer.set(this.drafted());
    this.draw();
    this.thread.bottom();
    this.composer.measure();
  }

  add(conversation) {
    this.save(conversation);
    this.open(conversation);
  }

  async remove(conversation) {
    this.turns.stop(conversation);
    this.conversations.delete(conversation.id);
    await this.local.delete(conversation.id);
    await this.remote.delete(conversation).catch((error) => toast(error.message));
    if (conversation === this.current) this.#leave(newConversation(this.#settings()));
    this.side.draw();
  }

  ask(text, files) {
    const node = add(this.current, this.current.leaf, { role: "user", text, ...(files.length && { files }) });
    this.setPref("current", this.current.id);
    history.replaceState(null, "", `#${this.current.id}`);
    return this.#answer(node);
  }

  async #answer(asked) {
    const conversation = this.current;
    this.thread.follow = true;
    this.save(conversation);
    this.draw();
    const documents = conversation.settings.source === "documents" && this.world.reader !== false;
    if (!this.model() && !documents) return toast("There is no model to answer.");
    await this.#files(conversation);
    const models = documents ? [this.model()] : this.models();
    await this.turns.answer(conversation, asked, models);
    if (conversation === this.current) this.draw();
    return undefined;
  }

  /** Files of messages that came from the server are read from it. */
  async #files(conversation) {
    for (const file of path(conversation).flatMap((node) => node.files || [])) {
      if (file.text !== undefined || !file.id) continue;
      file.text = await this.api.send("GET", `/v1/files/${file.id}/content`).then(
        (response) => response.text(),
        () => "",
      );
    }
  }

  edit(node, text) {
    const { id, parent, role, files } = node;
    if (role === "user") return this.#answer(add(this.current, parent, { role, text, ...(files && { files }) }));
    const better = add(this.current, parent, { role, text, model: node.model, edited: id });
    this.save(this.current);
    this.draw();
    return this.feedback.edited(this.current, better, node);
  }

  again(node) {
    if (this.running()) return;
    this.current.leaf = node.parent;
    this.#answer(this.current.nodes[node.parent]);
  }

  askModel(node) {
    this.current.settings.source = "model";
    this.changedSettings();
    this.again(node);
  }

  resume(node, call, text) {
    const given = add(this.current, node.id, { role: "tool", call: call.id, text });
    const open = node.calls.filter((one) => !path(this.current).some((turn) => turn.call === one.id));
    if (!open.length) return this.#answer(given);
    this.save(this.current);
    return this.draw();
  }

  rate(node, rating) {
    node.rating = node.rating === rating ? undefined : rating;
    this.save(this.current);
    this.draw();
    this.feedback.rate(this.current, node);
  }

  keep(node) {
    select(this.current, node.id);
    this.save(this.current);
    this.draw();
    this.feedback.kept(
      this.current,
      node,
      siblings(this.current, node).filter((other) => other !== node && other.together === node.together),
    );
  }

  show(id) {
    select(this.current, id);
    this.save(this.current);
    this.draw();
  }

  upload(file) {
    const form = new FormData();
    form.append("purpose", "assistants");
    form.append("file", file, file.name);
    return this.api.send("POST", "/v1/files", form).then((response) => response.json());
  }

  // Drawing ----------------------------------------------------------------------------------------------------------

  draw() {
    this.thread.draw(this.current, this.world, () => this.#welcome());
    this.#drawAround();
    this.side.draw();
  }

  #drawAround() {
    document.title = this.current.order.length ? `${titleOf(this.current)} · Puna` : "Puna";
    const pick = (label, value, change) =>
      h(
        "select",
        { "aria-label": label, on: { change: (event) => change(event.target.value) } },
        this.world.models.length
          ? this.world.models.map((model) =>
              h("option", { value: model.id, selected: model.id === value }, model.label),
            )
          : h("option", {}, this.offline ? "no server" : "no model"),
      );
    const first = pick("Model", this.model(), (id) => {
      this.current.settings.model = id;
      this.setPref("model", id);
      this.changedSettings();
    });
    const comparing = this.prefs.compare && this.world.models.length > 1;
    $("top").replaceChildren(
      this.current.order.length ? h("h1", { class: "unseen" }, titleOf(this.current)) : "",
      iconButton("menu", "Show or hide the list (Alt B)", () => this.toggleSide(), {
        "aria-expanded": String(!document.body.classList.contains("no-side")),
        "aria-controls": "side",
      }),
      first,
      ...(comparing
        ? [
            h("span", { class: "against" }, "beside"),
            pick("Second model", this.prefs.second, (id) => this.setPref("second", id)),
          ]
        : []),
      h("span", { class: "space" }),
      iconButton("compare", "Two models side by side (Alt C)", () => this.compare(), {
        "aria-pressed": String(Boolean(comparing)),
        disabled: this.world.models.length < 2,
      }),
      iconButton("settings", "Settings (Alt S)", () => this.drawer.toggle("settings", () => this.drawer.settings())),
    );
    this.composer.draw();
  }

  #welcome() {
    const { reader, shields } = this.world;
    const ready = Boolean(document.body.dataset.ready || this.world.models.length);
    const says =
      this.offline ||
      (reader
        ? "Answers are quoted from your documents, each with its place."
        : "Everything you write stays on this server.");
    return h(
      "div",
      { class: "welcome" },
      h("img", { src: "/assets/mark.svg", alt: "", width: 76, height: 76 }),
      h("h1", {}, "What would you like to know?"),
      h("p", { class: this.offline ? "failure" : "" }, says),
      ready &&
        !this.offline &&
        h(
          "p",
          { class: "faint" },
          [
            `${this.world.models.length} model${this.world.models.length === 1 ? "" : "s"}`,
            shields.length ? `guarded by ${shields.join(", ")}` : "no guard",
          ].join(" · "),
          h("span", { class: "with-keys" }, " · press ? for the keys"),
        ),
    );
  }

  compare() {
    if (this.world.models.length < 2) return toast("There is only one model.");
    this.setPref("compare", !this.prefs.compare);
    if (!this.world.model(this.prefs.second) || this.prefs.second === this.model())
      this.setPref("second", this.world.models.find((model) => model.id !== this.model()).id);
    return this.#drawAround();
  }

  toggleSide(shown = document.body.classList.contains("no-side")) {
    document.body.classList.toggle("no-side", !shown);
    $("side").inert = !shown;
    this.setPref("side", shown);
    $("top").querySelector("[aria-controls=side]")?.setAttribute("aria-expanded", String(shown));
  }

  #keys() {
    const last = (role) => path(this.current).findLast((node) => node.role === role);
    const step = (by) => {
      const node = [...path(this.current)].reverse().find((one) => siblings(this.current, one).length > 1);
      const same = node ? siblings(this.current, node) : [];
      const next = same[same.indexOf(node) + by];
      if (next) this.show(next.id);
    };
    listen({
      create: () => this.create(),
      help,
      focus: () => this.composer.focus(),
      compare: () => this.compare(),
      side: () => this.toggleSide(),
      search: () => (this.toggleSide(true), this.side.search.focus()),
      edit: () => last("user") && this.thread.edit(last("user")),
      again: () => last("assistant") && this.again(last("assistant")),
      earlier: () => step(-1),
      later: () => step(1),
      settings: () => this.drawer.toggle("settings", () => this.drawer.settings()),
      library: () => this.drawer.toggle("library", () => this.drawer.library()),
      theme: () => this.setPref("theme", dark() ? "light" : "dark"),
      escape: () => (this.running() ? this.stop() : this.drawer.close() || this.composer.focus()),
    });
  }
}

const app = new App();
app.start().catch((error) => {
  document.body.dataset.ready = "failed";
  $("thread").replaceChildren(
    h("p", { class: "failure", role: "alert" }, icon("close"), `The page could not start: ${error.message}`),
  );
});
