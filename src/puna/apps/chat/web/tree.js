// A conversation as a tree: every edit and every new answer is a sibling of what it replaces, and nothing is lost.
// Pure functions over plain objects, without the page and without the server, so that they can be tested alone.

let counter = 0;
/** A name that no other node or conversation has. */
export function newId() {
  counter += 1;
  return `${Date.now().toString(36)}-${counter.toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
}

export function newConversation(settings = {}) {
  const now = Date.now();
  return {
    id: newId(),
    title: "",
    created: now,
    updated: now,
    settings: { ...settings },
    nodes: {},
    order: [],
    leaf: null,
  };
}

/** Adds a message below `parent` (null: at the start) and makes it the end of what is shown. */
export function add(conversation, parent, fields) {
  const node = { id: newId(), parent, created: Date.now(), text: "", state: "done", ...fields };
  conversation.nodes[node.id] = node;
  conversation.order.push(node.id);
  conversation.leaf = node.id;
  conversation.updated = node.created;
  return node;
}

/** The messages from the start to a node. */
export function path(conversation, leaf = conversation.leaf) {
  const nodes = [];
  for (let node = conversation.nodes[leaf]; node; node = conversation.nodes[node.parent]) nodes.unshift(node);
  return nodes;
}

/** Children of a node in the order of their birth; of null: the first messages. */
export function children(conversation, parent) {
  return conversation.order.map((id) => conversation.nodes[id]).filter((node) => node.parent === parent);
}

/** A node and what stands in its place in other branches. */
export function siblings(conversation, node) {
  return children(conversation, node.parent).filter((other) => other.role === node.role);
}

/** Shows the branch of a node down to its newest end. */
export function select(conversation, id) {
  let last = id;
  for (let below = children(conversation, last); below.length; below = children(conversation, last)) {
    last = below[below.length - 1].id;
  }
  conversation.leaf = last;
}

/** A name for a conversation that has none: the beginning of its first question. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.order.map((id) => conversation.nodes[id]).find((node) => node.role === "user");
  const line = (first?.text || "").replace(/\s+/g, " ").trim();
  return line.length > 60 ? `${[...line].slice(0, 57).join("")}…` : line || "New conversation";
}

/** Whether every word of a query occurs in a conversation's title or messages. */
export function matches(conversation, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [titleOf(conversation), ...Object.values(conversation.nodes).map((node) => node.text)]
    .join("\n")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

/** What a file adds to a question. */
function attached(file) {
  return `Attached file ${file.name}:\n\n${file.text}\n\n`;
}

/** A node as the model reads it, in the form of OpenAI's messages. */
export function message(node) {
  if (node.role === "tool") return { role: "tool", tool_call_id: node.call, content: node.text };
  if (node.role === "assistant") {
    const calls = (node.calls || []).map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
    return calls.length
      ? { role: "assistant", content: node.text, tool_calls: calls }
      : { role: "assistant", content: node.text };
  }
  const files = (node.files || [])
    .filter((file) => file.text)
    .map(attached)
    .join("");
  return { role: node.role, content: files + (node.grounded || node.text) };
}

/** The messages to send for what stands up to `leaf`; turns that came to nothing or were blocked are left out. */
export function messages(conversation, leaf = conversation.leaf) {
  const system = conversation.settings.system;
  const turns = path(conversation, leaf).filter(
    (node) => !node.blocked && (node.text || node.calls?.length || node.files?.length),
  );
  return [...(system ? [{ role: "system", content: system }] : []), ...turns.map(message)];
}

/**
 * Leaves out the oldest turns where a conversation is too long, never the system message and never the last question.
 * `costs` are tokens for each message. Returns how many turns after the system message are left out.
 */
export function cut(list, costs, room) {
  const first = list[0]?.role === "system" ? 1 : 0;
  let total = costs.reduce((sum, cost) => sum + cost, 0);
  let gone = 0;
  while (total > room && first + gone < list.length - 1) {
    total -= costs[first + gone];
    gone += 1;
    while (first + gone < list.length - 1 && list[first + gone].role !== "user") {
      total -= costs[first + gone];
      gone += 1;
    }
  }
  return gone;
}

/** Pairs of answers to one question of which one was liked and one was not: what preference training reads. */
export function pairs(conversation, node) {
  const before = messages(conversation, node.parent);
  const same = siblings(conversation, node).filter((other) => other !== node && other.text);
  const pair = (good, bad) => ({ prompt: before, chosen: message(good), rejected: message(bad) });
  if (node.rating === 1) return same.filter((other) => other.rating === -1).map((other) => pair(node, other));
  if (node.rating === -1) return same.filter((other) => other.rating === 1).map((other) => pair(other, node));
  return [];
}

const WHO = { user: "You", assistant: "Assistant", tool: "Tool", system: "System" };
/** The shown branch as Markdown. */
export function toMarkdown(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  if (conversation.settings.system) parts.push(`**System**\n\n${conversation.settings.system}`);
  for (const node of path(conversation)) {
    const sources = (node.citations || []).map(
      (cited, i) => `[${i + 1}] ${cited.source}${cited.heading ? `, ${cited.heading}` : ""}`,
    );
    const calls = (node.calls || []).map((call) => `\`${call.name}(${call.arguments})\``);
    const files = (node.files || []).map((file) => `Attached: ${file.name}`);
    parts.push(
      [`**${WHO[node.role]}**`, ...files, node.text, ...calls, sources.join("  \n")].filter(Boolean).join("\n\n"),
    );
  }
  return `${parts.join("\n\n")}\n`;
}

/** The whole tree, to be read again by `fromJson`. */
export function toJson(conversation) {
  const { remote, known, ...rest } = conversation;
  const nodes = Object.fromEntries(Object.entries(rest.nodes).map(([id, { items, ...node }]) => [id, node]));
  return JSON.stringify({ format: "puna-conversation-1", ...rest, nodes }, null, 2);
}

/** Reads an exported tree, or OpenAI's `{"messages": [...]}`; throws where it is neither. */
export function fromJson(text) {
  const data = JSON.parse(text);
  if (Array.isArray(data?.messages)) return fromMessages(data.messages);
  if (data?.format !== "puna-conversation-1" || !Array.isArray(data.order))
    throw new Error("This is not a conversation.");
  const conversation = newConversation();
  const names = new Map();
  for (const id of data.order) {
    const { id: _, parent, ...fields } = data.nodes[id];
    if (!(fields.role in WHO) || (parent !== null && !names.has(parent)))
      throw new Error("A message has no place in the tree.");
    names.set(
      id,
      add(conversation, parent === null ? null : names.get(parent), { ...fields, text: String(fields.text ?? "") }).id,
    );
  }
  if (names.has(data.leaf)) conversation.leaf = names.get(data.leaf);
  return Object.assign(conversation, { title: String(data.title || ""), settings: { ...data.settings } });
}

function fromMessages(list) {
  const conversation = newConversation();
  for (const { role, content, tool_calls: calls, tool_call_id: call } of list) {
    if (!(role in WHO)) throw new Error(`A message's role is ${JSON.stringify(role)}.`);
    const text = Array.isArray(content) ? content.map((part) => part.text || "").join("") : String(content ?? "");
    if (role === "system") conversation.settings.system = text;
    else {
      const made = (calls || []).map(({ id, function: f }) => ({ id, name: f.name, arguments: f.arguments }));
      add(conversation, conversation.leaf, { role, text, ...(made.length && { calls: made }), ...(call && { call }) });
    }
  }
  return conversation;
}
