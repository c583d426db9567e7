// A Markdown tree as elements. While an answer grows, only the blocks that changed are drawn anew.

import { h, icon, toast } from "./dom.js";
import { highlight } from "./highlight.js";
import { parse } from "./markdown.js";

/** Draws Markdown into an element; `cite(number)` gives the element for a source's number, or null. */
export function renderMarkdown(element, text, cite = () => null) {
  const blocks = parse(text);
  const drawn = element.drawn || [];
  let same = 0;
  while (same < blocks.length && same < drawn.length && drawn[same] === blocks[same].raw) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...blocks.slice(same).map((one) => block(one, cite)));
  element.drawn = blocks.map((one) => one.raw);
}

const LISTS = { true: "ol", false: "ul" };

function block(node, cite) {
  const draw = (nodes) => nodes.map((child) => inline(child, cite));
  switch (node.type) {
    case "heading":
      return h(`h${Math.min(node.level + 2, 6)}`, {}, draw(node.children));
    case "paragraph":
      return h("p", {}, draw(node.children));
    case "code":
      return codeBlock(node.text, node.lang);
    case "quote":
      return h(
        "blockquote",
        {},
        node.children.map((child) => block(child, cite)),
      );
    case "rule":
      return h("hr");
    case "table":
      return table(node, draw);
    default:
      return h(
        LISTS[node.ordered],
        { start: node.ordered && node.start !== 1 ? node.start : null },
        node.items.map((item) => {
          const inner = item.children.map((child) =>
            !node.loose && child.type === "paragraph" ? draw(child.children) : block(child, cite),
          );
          if (item.task === null) return h("li", {}, inner);
          return h(
            "li",
            { class: "task" },
            h("input", { type: "checkbox", checked: item.task, disabled: true, "aria-label": "done" }),
            inner,
          );
        }),
      );
  }
}

function table(node, draw) {
  const row = (tag, cells) =>
    h(
      "tr",
      {},
      cells.map((cell, i) => h(tag, { class: node.align[i] || "left" }, draw(cell))),
    );
  const body = node.rows.map((cells) => row("td", cells));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" },
    h("table", {}, h("thead", {}, row("th", node.head)), h("tbody", {}, body)),
  );
}

export function codeBlock(text, lang = "") {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied.");
    } catch {
      toast("The browser did not allow copying.");
    }
  };
  const code = h(
    "code",
    {},
    highlight(text, lang).map(([kind, piece]) => (kind ? h("span", { class: `hl-${kind}` }, piece) : piece)),
  );
  return h(
    "div",
    { class: "code" },
    h(
      "div",
      { class: "code-head" },
      h("span", {}, lang || "text"),
      h(
        "button",
        { type: "button", class: "quiet small", "aria-label": "Copy code", on: { click: copy } },
        icon("copy"),
        "Copy",
      ),
    ),
    h("pre", { tabindex: "0" }, code),
  );
}

function inline(node, cite) {
  if (typeof node === "string") return node;
  const inner = () => node.children.map((child) => inline(child, cite));
  switch (node.type) {
    case "code":
      return h("code", {}, node.text);
    case "break":
      return h("br");
    case "cite":
      return cite(node.number) || `[${node.number}]`;
    case "link":
      return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" }, inner());
    default:
      return h(
        ["strong", "em", "del", "span"].find((tag) => tag === node.type),
        {},
        inner(),
      );
  }
}
