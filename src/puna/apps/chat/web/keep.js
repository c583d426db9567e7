// Where conversations live: in this browser (IndexedDB), whole and at once, and on the server, as conversations of its
// API, so that another browser or `puna chat --server` finds them.
//
// On the server a conversation is a list of items that only grows. An item follows the one before it; where it does not
// (a branch), the metadata say whose place it takes: "5:1" is item 5 below item 1, "4:-" starts anew. Another client that
// knows nothing of branches still reads a list of messages.

import { ApiError } from "./api.js";
import { add, newConversation, newId, titleOf } from "./tree.js";

const VALUE = 512; // characters that a value of metadata may have
const AT_ONCE = 20; // items that the API takes in one request
const TREES = 6; // values that may hold branches
const SYSTEMS = 4; // values that may hold the system prompt

function request(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

/** This browser's store; one that is refused (a private window) keeps things as long as the page is open. */
export class Local {
  static async open() {
    const local = new Local();
    try {
      const asked = indexedDB.open("puna-chat", 1);
      asked.onupgradeneeded = () => asked.result.createObjectStore("conversations", { keyPath: "id" });
      local.database = await request(asked);
    } catch {
      local.database = null;
    }
    return local;
  }
  #store(mode) {
    return this.database.transaction("conversations", mode).objectStore("conversations");
  }
  async all() {
    return this.database ? request(this.#store("readonly").getAll()) : [];
  }
  async put(conversation) {
    if (this.database) await request(this.#store("readwrite").put(JSON.parse(JSON.stringify(conversation))));
  }
  async delete(id) {
    if (this.database) await request(this.#store("readwrite").delete(id));
  }
}

/** The items that a message becomes. */
export function toItems(node) {
  if (node.role === "tool") return [{ type: "function_call_output", call_id: node.call, output: node.text }];
  if (node.role === "user") {
    const files = (node.files || [])
      .filter((file) => file.id)
      .map((file) => ({ type: "input_file", file_id: file.id, filename: file.name }));
    return [{ type: "message", role: "user", content: [...files, { type: "input_text", text: node.text }] }];
  }
  const calls = (node.calls || []).map((call) => ({
    type: "function_call",
    call_id: call.id,
    name: call.name,
    arguments: call.arguments,
  }));
  const annotations = (node.citations || []).map((cited) => annotation(node, cited));
  const said = { type: "message", role: "assistant", content: [{ type: "output_text", text: node.text, annotations }] };
  return node.text || !calls.length ? [said, ...calls] : calls;
}

const PREFIXES = { message: "msg", function_call: "fc", function_call_output: "fco" };
function itemId({ type }) {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${PREFIXES[type]}_${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A citation in OpenAI's form; what that has no field for stands beside it. */
function annotation(node, cited) {
  if (cited.file)
    return { type: "file_citation", index: node.text.length, file_id: cited.file, filename: cited.source, ...cited };
  const url = `/v1alpha/reader/document?source=${encodeURIComponent(cited.source)}`;
  return {
    type: "url_citation",
    url,
    title: cited.heading || cited.source,
    start_index: 0,
    end_index: node.text.length,
    ...cited,
  };
}

function citations(item) {
  const notes = (Array.isArray(item.content) ? item.content : [])
    .flatMap((part) => part.annotations || [])
    .filter((note) => note.source);
  const list = notes.map(({ type, index, file_id, filename, url, title, start_index, end_index, ...cited }) => cited);
  return list.length ? { citations: list, [list[0].file ? "passages" : "reader"]: true } : {};
}

/** Which message holds an item. */
function owners(conversation) {
  const owner = new Map();
  for (const node of Object.values(conversation.nodes)) for (const id of node.items || []) owner.set(id, node);
  return owner;
}

/** The branches of a conversation by the places of its items on the server (`conversation.known`, in order). */
export function toBranches(conversation) {
  const owner = owners(conversation);
  const places = new Map((conversation.known || []).map((id, place) => [id, place]));
  const branches = [];
  for (const [id, place] of places) {
    const node = owner.get(id);
    if (!node || node.items[0] !== id) continue;
    let above = conversation.nodes[node.parent]; // the nearest that is kept: an answer that came to nothing is not
    while (above && !places.has(above.items?.[0])) above = conversation.nodes[above.parent];
    const before = above ? Math.max(...above.items.map((item) => places.get(item) ?? -1)) : -1;
    if (before !== place - 1) branches.push(`${place}:${above ? before : "-"}`);
  }
  return branches.join(",");
}

/** Puts a text that may be longer than one value into several: name0, name1, ... */
function spread(data, name, text, most) {
  const characters = [...text];
  for (let i = 0; i < most && i * VALUE < characters.length; i += 1)
    data[`${name}${i}`] = characters.slice(i * VALUE, (i + 1) * VALUE).join("");
}

function gathered(data, name) {
  let text = "";
  for (let i = 0; data?.[`${name}${i}`]; i += 1) text += data[`${name}${i}`];
  return text;
}

function metadata(conversation) {
  const { system = "", ...settings } = conversation.settings;
  const data = { puna: "chat", title: titleOf(conversation).slice(0, 120), updated: String(conversation.updated) };
  const small = JSON.stringify(settings);
  if (small.length <= VALUE) data.settings = small;
  spread(data, "system", system, SYSTEMS);
  spread(data, "tree", toBranches(conversation), TREES);
  return data;
}

function textOf(item) {
  const parts = typeof item.content === "string" ? [{ text: item.content }] : item.content || [];
  return parts.map((part) => part.text || "").join("");
}

/** Adds items of the server, those after `conversation.known`. Returns whether there was one that is new here. */
export function takeItems(conversation, items, branches) {
  const above = new Map(
    branches
      .split(",")
      .filter(Boolean)
      .map((pair) => pair.split(":")),
  );
  const owner = owners(conversation);
  const places = [];
  for (const id of (conversation.known ||= [])) places.push(owner.get(id) || places[places.length - 1]);
  let grown = false;
  for (const item of items) {
    const place = places.length;
    const said = above.get(String(place));
    let node = owner.get(item.id);
    if (!node) {
      node = take(
        conversation,
        item,
        said === "-" ? undefined : places[said === undefined ? place - 1 : Number(said)],
        said === undefined,
      );
      grown ||= Boolean(node);
    }
    places.push(node || places[place - 1]);
    conversation.known.push(item.id);
  }
  return grown;
}

function take(conversation, item, before, follows) {
  const parent = before ? before.id : null;
  const items = [item.id];
  if (item.type === "function_call") {
    const call = { id: item.call_id, name: item.name, arguments: item.arguments };
    if (follows && before?.role === "assistant") {
      before.calls = [...(before.calls || []), call];
      before.items.push(item.id);
      return before;
    }
    return add(conversation, parent, { role: "assistant", calls: [call], items });
  }
  if (item.type === "function_call_output") {
    return add(conversation, parent, { role: "tool", call: item.call_id, text: String(item.output ?? ""), items });
  }
  if (item.type !== "message" || !["user", "assistant"].includes(item.role)) return null;
  const files = Array.isArray(item.content) ? item.content.filter((part) => part.type === "input_file") : [];
  return add(conversation, parent, {
    role: item.role,
    text: textOf(item),
    items,
    ...citations(item),
    ...(files.length && { files: files.map((part) => ({ id: part.file_id, name: part.filename || part.file_id })) }),
  });
}

/** Keeps conversations in step with the server's. */
export class Remote {
  #queues = new Map();
  constructor(api, local) {
    this.api = api;
    this.local = local;
    this.there = true; // false once the server has shown that it keeps no conversations
  }

  /** Sends what is new, after what is being sent already, and takes in what others said; returns whether they did.
   * Failures leave it for the next time. */
  push(conversation) {
    return this.#after(conversation, () => this.#push(conversation));
  }

  /** One thing at a time for a conversation, so that what is being sent is not taken for something new. */
  #after(conversation, work) {
    const next = (this.#queues.get(conversation.id) || Promise.resolve()).catch(() => {}).then(work);
    this.#queues.set(conversation.id, next);
    return next;
  }

  async #push(conversation) {
    if (!this.there || conversation.gone) return false;
    let grown = false;
    try {
      conversation.remote ||= (await this.api.post("/v1/conversations", { metadata: metadata(conversation) })).id;
      for (;;) {
        grown = (await this.#fetch(conversation, false)) || grown; // what others said comes first: places must agree
        const batch = this.#unsent(conversation);
        if (!batch.length) break;
        await this.#sendBatch(conversation, batch);
      }
      await this.api.post(`/v1/conversations/${conversation.remote}`, { metadata: metadata(conversation) });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.absent && conversation.remote) this.forget(conversation);
      else if (error.absent) this.there = false;
    }
    return grown;
  }

  /** The server has a conversation no longer: the next time it gets it anew. */
  forget(conversation) {
    conversation.remote = null;
    conversation.known = [];
    for (const node of Object.values(conversation.nodes)) delete node.items;
  }

  /** The next messages to send, as many as go into one request. */
  #unsent(conversation) {
    const known = new Set(conversation.known);
    const batch = [];
    let count = 0;
    for (const id of conversation.order) {
      const node = conversation.nodes[id];
      if (node.state === "streaming") break;
      if (known.has(node.items?.[0]) || !(node.text || node.calls?.length || node.files?.length)) continue;
      count += toItems(node).length;
      if (batch.length && count > AT_ONCE) break;
      batch.push(node);
    }
    return batch;
  }

  async #sendBatch(conversation, batch) {
    for (const node of batch) node.items ||= toItems(node).map(itemId);
    await this.local.put(conversation); // the ids first: a page that is closed now knows its items again
    const items = batch.flatMap((node) => toItems(node).map((item, i) => ({ id: node.items[i], ...item })));
    const made = (await this.api.post(`/v1/conversations/${conversation.remote}/items`, { items })).data.map(
      (item) => item.id,
    );
    (conversation.known ||= []).push(...made);
    for (const node of batch) node.items = made.splice(0, node.items.length);
  }

  /** Conversations of the chat that the server has: [{id, metadata, created_at}]; null where it has no list of them. */
  async list() {
    const page = await this.api.maybe(this.api.get("/v1/conversations?limit=100"));
    return page && (page.data || []).filter((one) => one.metadata?.puna === "chat");
  }

  /** Brings a conversation up to what the server has. Returns whether it grew. */
  pull(conversation) {
    return this.#after(conversation, () => this.#pull(conversation));
  }

  async #pull(conversation) {
    return conversation.remote ? this.#fetch(conversation, true) : false;
  }

  /** Takes in what others said meanwhile; `show`: reads all anew, and shows what is new. */
  async #fetch(conversation, show) {
    const items = [];
    for (let after = show ? "" : conversation.known?.at(-1); ; after = items.at(-1).id) {
      const page = await this.api.get(
        `/v1/conversations/${conversation.remote}/items?order=asc&limit=100${after ? `&after=${after}` : ""}`,
      );
      items.push(...page.data);
      if (!page.has_more || !page.data.length) break;
    }
    if (!items.length) return false;
    const about = await this.api.get(`/v1/conversations/${conversation.remote}`);
    const updated = Math.max(conversation.updated, Number(about.metadata?.updated) || 0);
    const { leaf } = conversation;
    if (show) conversation.known = [];
    const grown = takeItems(conversation, items, gathered(about.metadata, "tree"));
    if (!grown || !show) conversation.leaf = leaf;
    conversation.updated = updated;
    return grown;
  }

  async delete(conversation) {
    conversation.gone = true;
    if (conversation.remote) await this.api.maybe(this.api.delete(`/v1/conversations/${conversation.remote}`));
  }
}

/** A conversation that only the server knows so far. */
export function fromServer(listed) {
  const conversation = newConversation();
  let settings = {};
  try {
    settings = JSON.parse(listed.metadata.settings || "{}");
  } catch {
    settings = {};
  }
  const system = gathered(listed.metadata, "system");
  if (system) settings.system = system;
  const created = (listed.created_at || 0) * 1000 || Date.now();
  return Object.assign(conversation, {
    id: newId(),
    remote: listed.id,
    title: listed.metadata.title || "",
    settings,
    created,
    updated: Number(listed.metadata.updated) || created,
    hollow: true,
  });
}
