// The list of conversations: found by words, opened, renamed, exported, deleted.

import { ask, download, h, icon, iconButton, toast } from "./dom.js";
import { fromJson, matches, titleOf, toJson, toMarkdown } from "./tree.js";

const DAY = 86_400_000;

function age(time) {
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / DAY);
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : days < 8 ? "This week" : "Earlier";
}

function fileName(conversation) {
  return (
    titleOf(conversation)
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 60) || "conversation"
  );
}

export class Side {
  /** @param app open, create, save, remove, add, and the conversations */
  constructor(element, app, foot) {
    this.app = app;
    this.search = h("input", {
      type: "search",
      id: "search",
      placeholder: "Search",
      "aria-label": "Search conversations",
      on: { input: () => this.draw() },
    });
    this.list = h("div", { class: "list" });
    element.append(
      h(
        "div",
        { class: "brand" },
        h("img", { src: "/assets/mark.svg", alt: "", width: 30, height: 30 }),
        h("strong", {}, "Puna"),
        iconButton("close", "Close the list", () => app.toggleSide(false), { class: "quiet narrow" }),
      ),
      h(
        "button",
        { type: "button", class: "new", on: { click: () => app.create() } },
        icon("plus"),
        "New conversation",
      ),
      h("div", { class: "find" }, icon("search"), this.search),
      this.list,
      h("div", { class: "foot" }, foot, this.#import()),
    );
  }

  #import() {
    const input = h("input", {
      type: "file",
      accept: ".json,application/json",
      class: "hidden",
      tabindex: "-1",
      "aria-hidden": "true",
    });
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.value = "";
      if (!file) return;
      try {
        this.app.add(fromJson(await file.text()));
      } catch (error) {
        toast(`${file.name} was not read: ${error.message}`);
      }
    });
    return [input, h("button", { type: "button", class: "quiet small", on: { click: () => input.click() } }, "Import")];
  }

  draw() {
    const found = [...this.app.conversations.values()]
      .filter((one) => one.order.length || one.hollow)
      .filter((one) => matches(one, this.search.value))
      .sort((a, b) => b.updated - a.updated);
    const parts = [];
    let group = "";
    for (const conversation of found) {
      if (age(conversation.updated) !== group) {
        group = age(conversation.updated);
        parts.push(h("h2", {}, group), h("ul"));
      }
      parts[parts.length - 1].append(this.#row(conversation));
    }
    if (!parts.length)
      parts.push(h("p", { class: "none" }, this.search.value ? "Nothing has these words." : "No conversations yet."));
    this.list.replaceChildren(...parts);
  }

  #row(conversation) {
    const title = titleOf(conversation);
    const here = conversation === this.app.current;
    return h(
      "li",
      { class: here ? "here" : "" },
      h(
        "button",
        {
          type: "button",
          class: "open",
          "aria-current": here ? "true" : null,
          title,
          on: { click: () => this.app.open(conversation) },
        },
        title,
      ),
      iconButton("more", `More about “${title}”`, () => this.menu(conversation)),
    );
  }

  async menu(conversation) {
    const chosen = await ask(
      titleOf(conversation),
      h("p", { class: "faint" }, `${conversation.order.length} messages`),
      [
        ["rename", "Rename"],
        ["markdown", "Export as Markdown"],
        ["json", "Export as JSON"],
        ["delete", "Delete", "danger"],
        ["", "Cancel"],
      ],
    );
    if (chosen === "rename") await this.rename(conversation);
    else if (chosen === "markdown") download(`${fileName(conversation)}.md`, "text/markdown", toMarkdown(conversation));
    else if (chosen === "json") download(`${fileName(conversation)}.json`, "application/json", toJson(conversation));
    else if (chosen === "delete") {
      const sure = await ask(
        "Delete this conversation?",
        h("p", {}, `“${titleOf(conversation)}” is deleted here and on the server.`),
        [
          ["", "Keep it"],
          ["yes", "Delete", "danger"],
        ],
      );
      if (sure === "yes") await this.app.remove(conversation);
    }
  }

  async rename(conversation) {
    const entry = h("input", {
      type: "text",
      value: titleOf(conversation),
      "aria-label": "Title",
      autofocus: true,
      maxlength: 120,
    });
    const done = await ask("Rename", entry, [
      ["yes", "Rename", "main"],
      ["", "Cancel"],
    ]);
    if (done !== "yes" || !entry.value.trim()) return;
    conversation.title = entry.value.trim();
    this.app.save(conversation);
  }
}
