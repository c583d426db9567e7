// Markdown as a tree of plain objects: what CommonMark and GitHub's tables say, without HTML, which stays text, and
// without pictures, which would be fetched and are shown as links. Every loop moves forward, so that no text takes more
// than a small multiple of its length; nesting ends at a depth.

const DEPTH = 12;
const SAFE = /^(https?:|mailto:)/i;

/** The link that may be followed; "" for every other scheme, also one hidden by blanks or control characters. */
export function safeUrl(url) {
  const plain = url.replace(/[\u0000-\u0020\u007f-\u009f]/g, "");
  return SAFE.test(plain) ? plain : "";
}

/** Blocks with the source they came from: {type, raw, ...}. */
export function parse(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, next] = readBlock(lines, at, depth);
    blocks.push({ ...block, raw: lines.slice(at, next).join("\n") });
    at = next;
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  const fence = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/.exec(line);
  if (fence) return readFence(lines, at, fence[1], fence[2].trim());
  const heading = /^ {0,3}(#{1,6})(?:\s+(.*))?$/.exec(line);
  if (heading) {
    const title = (heading[2] || "").trim().replace(/\s#+$/, "");
    return [{ type: "heading", level: heading[1].length, children: inline(title) }, at + 1];
  }
  if (isRule(line)) return [{ type: "rule" }, at + 1];
  if (depth < DEPTH) {
    if (/^ {0,3}>/.test(line)) return readQuote(lines, at, depth);
    if (listMark(line)) return readList(lines, at, depth);
  }
  if (line.includes("|") && isDivider(lines[at + 1] || "")) return readTable(lines, at);
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !interrupts(lines[next])) next += 1;
  return [
    {
      type: "paragraph",
      children: inline(
        lines
          .slice(at, next)
          .map((part) => part.trimStart())
          .join("\n"),
      ),
    },
    next,
  ];
}

function interrupts(line) {
  return /^ {0,3}(`{3,}|~{3,}|#{1,6}\s|>)/.test(line) || isRule(line) || Boolean(listMark(line));
}

function isRule(line) {
  const plain = line.replace(/\s/g, "");
  return plain.length >= 3 && "-*_".includes(plain[0]) && [...plain].every((mark) => mark === plain[0]);
}

function readFence(lines, at, mark, info) {
  const code = [];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const plain = lines[next].trim();
    if (plain.length >= mark.length && [...plain].every((char) => char === mark[0])) break;
    code.push(lines[next]);
  }
  return [
    { type: "code", lang: info.split(/\s/)[0].toLowerCase(), text: code.join("\n") },
    Math.min(next + 1, lines.length),
  ];
}

function readQuote(lines, at, depth) {
  let next = at;
  while (next < lines.length && lines[next].trim() && (/^ {0,3}>/.test(lines[next]) || !interrupts(lines[next])))
    next += 1;
  const inner = lines.slice(at, next).map((line) => line.replace(/^ {0,3}> ?/, ""));
  return [{ type: "quote", children: parse(inner.join("\n"), depth + 1) }, next];
}

function listMark(line) {
  const found = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)(\[[ xX]\]\s)?/.exec(line);
  if (!found || isRule(line)) return null;
  return {
    width: found[1].length + found[2].length + Math.min(Math.max(found[3].length, 1), 4),
    ordered: found[2].length > 1,
    kind: found[2].slice(-1),
    start: parseInt(found[2], 10),
    task: found[4] ? found[4][1] !== " " : null,
    all: found[0].length,
  };
}

function readList(lines, at, depth) {
  const first = listMark(lines[at]);
  const items = [];
  let next = at;
  let loose = false;
  while (next < lines.length) {
    const mark = listMark(lines[next]);
    if (!mark || mark.ordered !== first.ordered || mark.kind !== first.kind) break;
    const inner = [lines[next].slice(mark.task === null ? mark.width : mark.all)];
    next += 1;
    while (next < lines.length) {
      const line = lines[next];
      const indent = line.length - line.trimStart().length;
      const previousBlank = !lines[next - 1].trim();
      if (!line.trim()) inner.push("");
      else if (indent >= mark.width) {
        loose ||= previousBlank;
        inner.push(line.slice(mark.width));
      } else if (!previousBlank && !interrupts(line)) inner.push(line);
      else break;
      next += 1;
    }
    items.push({ task: mark.task, children: parse(inner.join("\n"), depth + 1) });
  }
  while (!lines[next - 1].trim()) next -= 1;
  return [{ type: "list", ordered: first.ordered, start: first.start || 1, loose, items }, next];
}

function isDivider(line) {
  return line.includes("-") && line.includes("|") && /^[\s|:-]+$/.test(line);
}

function cells(line) {
  const parts = [""];
  for (let i = 0, plain = line.trim().replace(/^\|/, "").replace(/\|$/, ""); i < plain.length; i += 1) {
    if (plain[i] === "\\" && plain[i + 1] === "|") parts[parts.length - 1] += plain[(i += 1)];
    else if (plain[i] === "|") parts.push("");
    else parts[parts.length - 1] += plain[i];
  }
  return parts.map((part) => part.trim());
}

function readTable(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((mark) =>
    /^:.*:$/.test(mark) ? "center" : mark.endsWith(":") ? "right" : "left",
  );
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|")) next += 1;
  const rows = lines.slice(at + 2, next).map((line) => head.map((_, i) => inline(cells(line)[i] || "")));
  return [{ type: "table", align, head: head.map((cell) => inline(cell)), rows }, next];
}

/** The nodes of a line: strings, and {type: strong | em | del | code | link | break, ...}. */
export function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  const put = (node) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
  };
  const closers = new Map(); // from where on each mark was looked for in vain
  for (let at = 0; at < text.length;) {
    const found = depth < DEPTH ? readInline(text, at, depth, closers) : null;
    if (!found) plain += text[at++];
    else {
      if (typeof found.node === "string") plain += found.node;
      else put(found.node);
      at = found.end;
    }
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function readInline(text, at, depth, closers) {
  const char = text[at];
  if (char === "\\") {
    if (text[at + 1] === "\n") return { node: { type: "break" }, end: at + 2 };
    return /[!-/:-@[-`{-~]/.test(text[at + 1] || "") ? { node: text[at + 1], end: at + 2 } : null;
  }
  if (char === " " && text.startsWith("  \n", at)) return { node: { type: "break" }, end: at + 3 };
  if (char === "`") return readCode(text, at, closers);
  if (char === "*" || char === "_" || char === "~") return readEmphasis(text, at, depth, closers);
  if (char === "!" && text[at + 1] === "[") return readLink(text, at + 1, depth, closers);
  if (char === "[") return readLink(text, at, depth, closers);
  if (char === "<") {
    const found = /^<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/i.exec(text.slice(at, at + 2010));
    return found ? link(found[1], [found[1]], at + found[0].length) : null;
  }
  if ((char === "h" || char === "H") && !/\w/.test(text[at - 1] || "")) {
    const found = /^https?:\/\/[^\s<>"'`|\\^{}]{1,2000}/i.exec(text.slice(at, at + 2010));
    if (found) {
      const url = found[0].replace(/[.,;:!?)\]*_~]+$/, "");
      return url.length > 8 ? link(url, [url], at + url.length) : null;
    }
  }
  return null;
}

function link(url, children, end) {
  const href = safeUrl(url);
  return {
    node: href
      ? { type: "link", href, children }
      : children.length === 1 && typeof children[0] === "string"
        ? children[0]
        : { type: "span", children },
    end,
  };
}

/** Where `mark` next closes from `at` on, or -1; a search in vain is remembered, as every later one is in vain too. */
function search(text, mark, at, closers, closes) {
  if ((closers.get(mark) ?? Infinity) <= at) return -1;
  let place = text.indexOf(mark, at);
  while (place >= 0 && !closes(place)) place = text.indexOf(mark, place + run(text, place));
  if (place < 0) closers.set(mark, at);
  return place;
}

function run(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function readCode(text, at, closers) {
  const size = run(text, at);
  const mark = "`".repeat(size);
  const end = search(text, mark, at + size, closers, (place) => run(text, place) === size);
  if (end < 0) return { node: mark, end: at + size };
  const code = text.slice(at + size, end).replace(/\n/g, " ");
  const padded = code.length > 2 && code[0] === " " && code.endsWith(" ") && code.trim();
  return { node: { type: "code", text: padded ? code.slice(1, -1) : code }, end: end + size };
}

function readEmphasis(text, at, depth, closers) {
  const char = text[at];
  const size = Math.min(run(text, at), char === "~" ? 2 : 3);
  const before = text[at - 1] || " ";
  const after = text[at + size] || " ";
  const all = { node: text.slice(at, at + run(text, at)), end: at + run(text, at) };
  if (/\s/.test(after) || (char === "_" && /\w/.test(before)) || (char === "~" && size < 2)) return all;
  const mark = char.repeat(size);
  // A single mark does not close on a double one: "*a **b** c*".
  const closes = (place) =>
    !/\s/.test(text[place - 1]) &&
    (size > 1 || run(text, place) !== 2) &&
    !(char === "_" && /\w/.test(text[place + size] || " "));
  const end = search(text, mark, at + size, closers, closes);
  if (end < 0) return all;
  const inner = inline(text.slice(at + size, end), depth + 1);
  const kind = char === "~" ? "del" : size === 1 ? "em" : "strong";
  const children = size === 3 ? [{ type: "em", children: inner }] : inner;
  return { node: { type: kind, children }, end: end + size };
}

function readLink(text, at, depth, closers) {
  if ((closers.get("](") ?? Infinity) <= at) return null;
  if (text.indexOf("](", at) < 0) {
    closers.set("](", at);
    return cited(text, at);
  }
  let level = 0;
  let end = at;
  for (const stop = Math.min(text.length, at + 1000); end < stop; end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") level += 1;
    else if (text[end] === "]" && (level -= 1) === 0) break;
  }
  if (text[end] !== "]" || text[end + 1] !== "(") return cited(text, at);
  const target = /^\(\s*<?([^\s<>]{0,2000}?)>?(?:\s+["'(][^"')]{0,500}["')])?\s*\)/.exec(
    text.slice(end + 1, end + 2600),
  );
  if (!target) return null;
  return link(target[1], inline(text.slice(at + 1, end), depth + 1), end + 1 + target[0].length);
}

/** "[3]" points to a source. */
function cited(text, at) {
  const found = /^\[(\d{1,2})\]/.exec(text.slice(at, at + 4));
  return found ? { node: { type: "cite", number: Number(found[1]) }, end: at + found[0].length } : null;
}
