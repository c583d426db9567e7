// The messages of the shown branch. Elements are kept by message, and a growing answer is drawn once a frame.

import { h, icon, iconButton, toast } from "./dom.js";
import { codeBlock, renderMarkdown } from "./render.js";
import { path, siblings } from "./tree.js";
import { costOf, money, speedOf } from "./turns.js";
import { tokenView } from "./tokens.js";

export class Thread {
  #drawn = new Map(); // message -> its element
  #waiting = new Set(); // messages to be drawn with the next frame
  #tokens = new Set(); // messages shown as tokens

  /** @param actions what the buttons do: edit, again, rate, show, source, resume, keep, model */
  constructor(element, actions) {
    this.element = element;
    this.actions = actions;
    this.follow = true;
    element.addEventListener("scroll", () => {
      this.follow = element.scrollHeight - element.scrollTop - element.clientHeight < 80;
    });
    new ResizeObserver(() => this.follow && this.bottom()).observe(element);
  }

  draw(conversation, world, welcome) {
    this.conversation = conversation;
    this.world = world;
    const nodes = path(conversation);
    const shown = nodes.map((node) => {
      const beside = node.together
        ? siblings(conversation, node).filter((one) => one.together === node.together)
        : [node];
      if (beside.length === 1) return this.#turn(node);
      return h(
        "div",
        { class: "beside", role: "group", "aria-label": "Two answers side by side" },
        beside.map((one) => this.#turn(one, node)),
      );
    });
    const left = nodes.findLast((node) => node.leftOut)?.leftOut;
    if (left)
      shown.splice(
        Math.min(left, shown.length - 1),
        0,
        h("p", { class: "cut", role: "note" }, "What stands above was not sent any more: the model's context is full."),
      );
    this.element.replaceChildren(...(shown.length ? shown : [welcome()]));
    if (!this.follow) return;
    this.bottom();
    requestAnimationFrame(() => this.bottom()); // once more when the browser knows the heights
  }

  /** Draws one message anew with the next frame. */
  update(node) {
    if (!this.#waiting.size) requestAnimationFrame(() => this.#frame());
    this.#waiting.add(node);
  }

  #frame() {
    for (const node of this.#waiting) {
      const element = this.#drawn.get(node.id);
      if (element?.isConnected && this.conversation.nodes[node.id] === node) this.#fill(element, node);
    }
    this.#waiting.clear();
    if (this.follow) this.bottom();
  }

  bottom() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  #turn(node, chosen = node) {
    let element = this.#drawn.get(node.id);
    if (!element) {
      element = h("article", { class: `turn ${node.role}`, data: { id: node.id } });
      this.#drawn.set(node.id, element);
    }
    element.classList.toggle("unchosen", chosen !== node);
    this.#fill(element, node, chosen);
    return element;
  }

  #fill(element, node, chosen = element.chosen || node) {
    element.chosen = chosen;
    const stamp = this.#stamp(node, chosen);
    if (element.stamp === stamp) return;
    element.stamp = stamp;
    element.setAttribute("aria-busy", String(node.state === "streaming"));
    element.setAttribute("aria-label", { user: "You", assistant: "Answer", tool: "Tool result" }[node.role]);
    if (!element.body)
      element.append(
        (element.head = h("div", { class: "head" })),
        (element.body = h("div", { class: "body" })),
        (element.rest = h("div", { class: "rest" })),
      );
    element.head.replaceChildren(...this.#head(node));
    this.#body(element, node);
    element.rest.replaceChildren(...this.#rest(node, chosen).filter(Boolean));
  }

  /** What a drawn message depends on. */
  #stamp(node, chosen) {
    const { state, text, rating, blocked, edited, cost, error, calls, verdicts, usage, citations } = node;
    const answers = calls
      ? Object.values(this.conversation.nodes).filter((other) => other.parent === node.id).length
      : 0;
    const name = this.world.model(node.model)?.label;
    const same = siblings(this.conversation, node).map((other) => other.id);
    return JSON.stringify([
      state,
      text,
      rating,
      blocked,
      edited,
      cost,
      error,
      calls,
      verdicts,
      usage,
      citations?.length,
      answers,
      name,
      same,
      chosen.id,
      this.#tokens.has(node.id),
      this.world.shields.length,
    ]);
  }

  #head(node) {
    if (node.role === "tool") return [icon("tool"), h("h2", {}, "Result of the tool")];
    if (node.role !== "assistant") return [h("h2", { class: "unseen" }, "You")];
    const name = node.reader ? "From the documents" : this.world.model(node.model)?.label || node.model || "Answer";
    return [
      h("span", { class: "dot", "aria-hidden": "true" }),
      h("h2", {}, name),
      node.edited ? h("span", { class: "tag" }, "edited by you") : "",
    ];
  }

  #body(element, node) {
    const held = node.state === "streaming" && this.world.shields.length;
    if (this.#tokens.has(node.id) && node.tokens) {
      element.body.replaceChildren(tokenView(node.tokens));
      element.body.drawn = element.body.text = undefined;
      return;
    }
    const state = `${node.state}|${node.text}|${node.blocked}|${held}`;
    if (element.body.text === state) return;
    element.body.text = state;
    if (node.state === "streaming" && (!node.text || held)) {
      element.body.drawn = undefined;
      element.body.replaceChildren(
        h("p", { class: "thinking" }, held && node.text ? "The guard reads the answer…" : "…"),
      );
    } else if (node.role === "assistant" && !node.reader) {
      if (!element.body.drawn) element.body.replaceChildren();
      renderMarkdown(element.body, node.text, (number) => this.#mark(node, number));
    } else {
      const kind = node.reader ? (node.citations?.length ? "quotation" : "plain") : "plain";
      element.body.replaceChildren(h(kind === "quotation" ? "blockquote" : "div", { class: kind }, node.text));
    }
  }

  #mark(node, number) {
    const cited = node.citations?.[number - 1];
    if (!cited) return null;
    return h(
      "button",
      {
        type: "button",
        class: "mark",
        title: cited.source,
        "aria-label": `Source ${number}: ${cited.source}`,
        on: { click: () => this.actions.source(cited) },
      },
      String(number),
    );
  }

  #rest(node, chosen) {
    if (node.state === "streaming") return [this.#calls(node)];
    return [
      node.files?.length &&
        h(
          "ul",
          { class: "chips", "aria-label": "Attached files" },
          node.files.map((file) => h("li", { class: "chip" }, icon("attach"), file.name)),
        ),
      node.reasoning &&
        h("details", { class: "fold" }, h("summary", {}, "Reasoning"), h("div", { class: "plain" }, node.reasoning)),
      this.#calls(node),
      this.#verdicts(node),
      node.state === "error" && h("p", { class: "failure", role: "alert" }, node.error),
      node.reader &&
        !node.citations?.length &&
        h(
          "button",
          { type: "button", class: "small", on: { click: () => this.actions.askModel(node) } },
          "Ask the model instead",
        ),
      this.#sources(node),
      node.role === "assistant" && h("p", { class: "facts" }, this.facts(node)),
      this.#buttons(node, chosen),
    ];
  }

  #calls(node) {
    if (!node.calls?.length) return null;
    const answered = new Set(
      Object.values(this.conversation.nodes)
        .filter((other) => other.parent === node.id)
        .map((other) => other.call),
    );
    return h(
      "div",
      { class: "calls" },
      node.calls.filter(Boolean).map((call) => {
        const entry = h("textarea", {
          rows: 2,
          "aria-label": `Result of ${call.name}`,
          placeholder: "The tool's result",
        });
        const give = () => this.actions.resume(node, call, entry.value);
        return h(
          "details",
          { class: "fold", open: !answered.has(call.id) },
          h("summary", {}, icon("tool"), `Tool call: ${call.name}`),
          codeBlock(pretty(call.arguments), "json"),
          node.state === "done" &&
            !answered.has(call.id) &&
            h(
              "div",
              { class: "give" },
              entry,
              h("button", { type: "button", on: { click: give } }, "Give this result"),
            ),
        );
      }),
    );
  }

  #verdicts(node) {
    if (!node.verdicts?.length) return null;
    return h(
      "ul",
      { class: "chips", "aria-label": "Verdicts of the guard" },
      node.verdicts.map(({ shield, level, said }) => {
        const words = level === "" ? "allowed" : level === "error" ? "blocked" : level;
        return h(
          "li",
          { class: `chip verdict ${level || "fine"}` },
          icon("shield"),
          `${shield}: ${words}${said ? `. ${said}` : ""}`,
        );
      }),
    );
  }

  #sources(node) {
    if (!node.citations?.length) return null;
    const title = node.passages ? "Passages that the model was shown" : "Where it stands";
    return h(
      "div",
      { class: "sources" },
      h("span", { class: "label" }, title),
      h(
        "ol",
        {},
        node.citations.map((cited, i) =>
          h(
            "li",
            {},
            h(
              "button",
              { type: "button", class: "source", on: { click: () => this.actions.source(cited) } },
              h("span", { class: "number" }, String(i + 1)),
              h("span", { class: "where" }, cited.source),
              cited.heading && h("span", { class: "heading" }, cited.heading),
            ),
          ),
        ),
      ),
    );
  }

  /** What an answer took, in one line. */
  facts(node) {
    const speed = speedOf(node);
    const tokens = node.usage?.completion_tokens;
    const cost = node.cost ?? costOf(node, this.world.model(node.model));
    const route = node.route;
    return [
      node.state === "stopped" && "stopped",
      node.finish === "length" && "cut off at max tokens",
      Number.isFinite(node.confidence) && `confidence ${Math.round(node.confidence * 100)} %`,
      tokens && `${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`,
      speed && `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s`,
      Number.isFinite(node.wait) && `first after ${node.wait.toFixed(1)} s`,
      Number.isFinite(cost) && (cost ? money(cost) : "no cost"),
      route?.provider && [`by ${route.provider}`, route.precision].filter(Boolean).join(", "),
    ]
      .filter(Boolean)
      .join(" · ");
  }

  #buttons(node, chosen) {
    const same = node.together
      ? siblings(this.conversation, node).filter((one) => !one.together || one === node)
      : siblings(this.conversation, node);
    const place = same.indexOf(node);
    const step = (by) => this.actions.show(same[place + by].id);
    const answer = node.role === "assistant";
    return h(
      "div",
      { class: "buttons", role: "toolbar", "aria-label": "What to do with this message" },
      same.length > 1 &&
        h(
          "span",
          { class: "switch" },
          iconButton("left", "Earlier version", () => step(-1), { disabled: place === 0 }),
          h("span", { "aria-live": "polite" }, `${place + 1} / ${same.length}`),
          iconButton("right", "Later version", () => step(1), { disabled: place === same.length - 1 }),
        ),
      iconButton("copy", "Copy", () => this.#copy(node)),
      node.role !== "tool" &&
        !node.reader &&
        iconButton("edit", answer ? "Edit this answer" : "Edit and ask again", () => this.edit(node)),
      answer && iconButton("again", "Answer again", () => this.actions.again(node)),
      answer &&
        iconButton("up", "Good answer", () => this.actions.rate(node, 1), {
          "aria-pressed": String(node.rating === 1),
        }),
      answer &&
        iconButton("down", "Bad answer", () => this.actions.rate(node, -1), {
          "aria-pressed": String(node.rating === -1),
        }),
      node.tokens &&
        iconButton("bars", "Probabilities of the tokens", () => this.#toggle(node), {
          "aria-pressed": String(this.#tokens.has(node.id)),
        }),
      node.together &&
        h(
          "button",
          { type: "button", class: "small", disabled: chosen === node, on: { click: () => this.actions.keep(node) } },
          chosen === node ? "Going on with this one" : "Go on with this one",
        ),
    );
  }

  async #copy(node) {
    try {
      await navigator.clipboard.writeText(node.text);
      toast("Copied.");
    } catch {
      toast("The browser did not allow copying.");
    }
  }

  #toggle(node) {
    if (!this.#tokens.delete(node.id)) this.#tokens.add(node.id);
    this.#again(node);
    this.#drawn.get(node.id).scrollIntoView({ block: "nearest" });
  }

  #again(node) {
    const element = this.#drawn.get(node.id);
    element.stamp = element.body.text = element.body.drawn = undefined;
    element.body.replaceChildren();
    this.#fill(element, node);
  }

  /** Turns a message into a form. */
  edit(node) {
    const element = this.#drawn.get(node.id);
    const entry = h("textarea", {
      "aria-label": "The message",
      rows: Math.min(14, node.text.split("\n").length + 1),
      value: node.text,
    });
    const close = () => this.#again(node);
    const save = () => {
      close();
      if (entry.value.trim() && entry.value !== node.text) this.actions.edit(node, entry.value);
    };
    entry.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    element.body.text = element.body.drawn = undefined;
    element.body.replaceChildren(
      h(
        "div",
        { class: "editing" },
        entry,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", on: { click: close } }, "Cancel"),
          h(
            "button",
            { type: "button", class: "main", on: { click: save } },
            node.role === "user" ? "Ask again" : "Keep as a new version",
          ),
        ),
      ),
    );
    entry.focus();
  }
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
