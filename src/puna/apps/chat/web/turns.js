// Getting answers: from a model as a stream, or from the run's documents as quotations. A turn writes into nodes of the
// tree and calls `changed(node)`; it draws nothing.

import { ApiError } from "./api.js";
import { add, cut, message, messages } from "./tree.js";

const PASSAGES = 4;
const ALTERNATIVES = 5;
const AROUND = 5; // tokens that the chat format puts around a message, about
const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "max_tokens",
  "seed",
  "frequency_penalty",
  "presence_penalty",
];

/** Tokens of texts, each asked for once; estimated, and said so, where the server does not count. */
export class Counter {
  #known = new Map();
  #forms = [(text) => ({ content: text }), (text) => ({ messages: [{ role: "user", content: text }] })]; // until one is refused
  constructor(api) {
    this.api = api;
    this.exact = true;
  }
  async count(model, text) {
    if (!text) return 0;
    const key = `${model}\n${text}`;
    if (!this.#known.has(key)) this.#known.set(key, await this.#ask(model, text));
    return this.#known.get(key);
  }
  async #ask(model, text) {
    if (this.exact) {
      try {
        while (this.#forms.length) {
          const answer = await this.api.maybe(this.api.post("/v1/tokenize", { model, ...this.#forms[0](text) }));
          if (answer) return answer.count ?? answer.tokens.length;
          this.#forms.shift();
        }
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
      }
      this.exact = false;
    }
    return Math.ceil(text.length / 4);
  }
  /** Of each message, with what the chat format adds: all are counted at once, and the sum is shared out by length. */
  async all(model, list) {
    const texts = list.map((one) => one.content + (one.tool_calls ? JSON.stringify(one.tool_calls) : ""));
    const length = texts.reduce((sum, text) => sum + text.length, 0);
    const total = await this.count(model, texts.join("\n"));
    return texts.map((text) => AROUND + Math.ceil((total * text.length) / Math.max(length, 1)));
  }
}

/** What a question is asked with: passages, numbered for the answer to point at. */
export function grounded(question, hits) {
  const shown = hits.map((hit, i) => `[${i + 1}] ${hit.source}\n${hit.text}`).join("\n\n");
  return `${shown}\n\nAnswer from the passages above and name them as [1], [2]. If they do not say, say so.\n\nQuestion: ${question}`;
}

export class Turns {
  #running = new Map();

  /**
   * @param api the server
   * @param world models(id), shields, reader (null: not asked yet) and the page's preferences
   * @param changed called with a conversation and a node whenever there is something new
   */
  constructor(api, world, changed) {
    Object.assign(this, { api, world, changed });
    this.counter = new Counter(api);
  }

  running(conversation) {
    return Object.values(conversation.nodes).some((node) => this.#running.has(node.id));
  }

  stop(conversation) {
    for (const node of Object.values(conversation.nodes)) this.#running.get(node.id)?.abort();
  }

  /** Answers the message `asked` with each of `models`, side by side where there are several. */
  async answer(conversation, asked, models) {
    if (!(await this.#allowed(conversation, asked, asked))) return;
    const together = models.length > 1 ? asked.id + Date.now() : undefined;
    const nodes = models.map((model) =>
      add(conversation, asked.id, { role: "assistant", model, state: "streaming", together }),
    );
    if (together) conversation.leaf = nodes[0].id;
    await Promise.all(nodes.map((node) => this.#run(conversation, node, asked)));
  }

  async #run(conversation, node, asked) {
    const control = new AbortController();
    this.#running.set(node.id, control);
    const started = performance.now();
    this.changed(conversation, node);
    try {
      if (!(await this.#fromDocuments(conversation, node, asked, control.signal))) {
        await this.#ground(conversation, asked, node, control.signal);
        await this.#stream(conversation, node, control.signal);
      }
      if (node.text && !(await this.#allowed(conversation, node, asked))) node.text = "";
      node.state = "done";
    } catch (error) {
      node.state = error.name === "AbortError" ? "stopped" : "error";
      if (node.state === "stopped" && this.world.shields.length) node.text = ""; // what was not judged is not shown
      if (node.state === "error") node.error = error.message;
    } finally {
      this.#running.delete(node.id);
      node.seconds = (performance.now() - started) / 1000;
      conversation.updated = Date.now();
      this.changed(conversation, node);
    }
  }

  /** An exact answer of the run's reader. Returns false where this conversation does not ask it, or there is none. */
  async #fromDocuments(conversation, node, asked, signal) {
    if (conversation.settings.source !== "documents" || this.world.reader === false) return false;
    const history = messages(conversation, asked.parent)
      .filter((one) => one.role === "user" || one.role === "assistant")
      .map(({ role, content }) => ({ role, content }));
    const answer = await this.api.maybe(
      this.api.post("/v1alpha/reader/answer", { question: asked.text, history }, signal),
    );
    this.world.reader = answer !== null;
    if (!answer) return false;
    Object.assign(node, {
      text: answer.text,
      citations: answer.citations || [],
      confidence: answer.confidence,
      reader: true,
      model: "",
    });
    return true;
  }

  /** Puts passages of the chosen library beside the question. */
  async #ground(conversation, asked, node, signal) {
    const store = conversation.settings.source === "library" && conversation.settings.store;
    if (!store || asked.role !== "user") return;
    const found = await this.api.post(
      `/v1/vector_stores/${store}/search`,
      { query: asked.text, max_num_results: PASSAGES },
      signal,
    );
    const hits = found.data.map((hit) => ({
      source: hit.filename,
      file: hit.file_id,
      store,
      score: hit.score,
      text: hit.content.map((part) => part.text || "").join("\n"),
    }));
    if (hits.length) asked.grounded = grounded(asked.text, hits);
    node.citations = hits;
    node.passages = true;
  }

  async #body(conversation, node) {
    const settings = conversation.settings;
    const model = this.world.model(node.model);
    const list = messages(conversation, node.parent);
    const body = { model: node.model, messages: list };
    for (const name of NUMBERS) if (Number.isFinite(settings[name])) body[name] = settings[name];
    if (settings.stop?.length) body.stop = settings.stop;
    if (settings.tools) body.tools = JSON.parse(settings.tools);
    if (settings.logprobs) Object.assign(body, { logprobs: true, top_logprobs: ALTERNATIVES });
    if (model?.context) {
      const costs = await this.counter.all(node.model, list);
      const gone = cut(list, costs, model.context - Math.min(body.max_tokens || 256, model.context / 2));
      body.messages = gone
        ? [
            ...list.slice(0, list[0].role === "system" ? 1 : 0),
            ...list.slice((list[0].role === "system" ? 1 : 0) + gone),
          ]
        : list;
      node.leftOut = gone || undefined;
    }
    return body;
  }

  async #stream(conversation, node, signal) {
    const body = await this.#body(conversation, node);
    const started = performance.now();
    for await (const chunk of this.api.chat(body, signal)) {
      const choice = chunk.choices?.[0];
      const delta = choice?.delta || {};
      if (delta.content || delta.tool_calls || delta.reasoning_content)
        node.wait ??= (performance.now() - started) / 1000;
      if (delta.content) node.text += delta.content;
      if (delta.reasoning_content) node.reasoning = (node.reasoning || "") + delta.reasoning_content;
      for (const piece of delta.tool_calls || []) addCall((node.calls ||= []), piece);
      if (choice?.logprobs?.content) (node.tokens ||= []).push(...choice.logprobs.content.map(compact));
      if (choice?.finish_reason) node.finish = choice.finish_reason;
      if (chunk.usage) node.usage = chunk.usage;
      const route = chunk.routing || chunk.route || chunk.puna;
      if (route) node.route = route;
      this.changed(conversation, node);
    }
    node.cost = costOf(node, this.world.model(node.model));
  }

  /** Asks every shield about a message; a shield that fails forbids. */
  async #allowed(conversation, node, asked) {
    if (!this.world.shields.length || !["user", "assistant"].includes(node.role)) return true;
    delete node.blocked;
    const list =
      node === asked ? messages(conversation, asked.id) : [...messages(conversation, asked.id), message(node)];
    node.verdicts = await Promise.all(
      this.world.shields.map(async (shield) => {
        try {
          const { violation } = await this.api.post("/v1/safety/run-shield", { shield_id: shield, messages: list });
          if (!violation) return { shield, level: "" };
          return { shield, level: violation.violation_level || "error", said: violation.user_message || "" };
        } catch (error) {
          return { shield, level: "error", said: `The guard gave no verdict: ${error.message}` };
        }
      }),
    );
    const blocked = node.verdicts.some((verdict) => verdict.level === "error");
    node.blocked = blocked || undefined;
    this.changed(conversation, node);
    return !blocked;
  }
}

function addCall(calls, piece) {
  const call = (calls[piece.index ?? calls.length] ||= { id: "", name: "", arguments: "" });
  call.id ||= piece.id || "";
  call.name += piece.function?.name || "";
  call.arguments += piece.function?.arguments || "";
}

function compact({ token, logprob, top_logprobs: top }) {
  return { token, logprob, top: (top || []).map((other) => ({ token: other.token, logprob: other.logprob })) };
}

/** US dollars of an answer: the server's word, else the model's price; undefined where nobody knows. */
export function costOf(node, model) {
  const said = node.usage?.cost ?? node.route?.cost;
  if (Number.isFinite(said)) return said;
  const price = model?.price;
  if (!node.usage || !price || !Number.isFinite(price.input)) return undefined;
  return ((node.usage.prompt_tokens || 0) * price.input + (node.usage.completion_tokens || 0) * price.output) / 1e6;
}

/** "$0.00015": two digits that count, and never fewer than cents. */
export function money(dollars) {
  return `$${dollars.toFixed(Math.min(Math.max(2, 1 - Math.floor(Math.log10(dollars))), 12))}`;
}

/** Tokens a second after the first; undefined where there is too little to say. */
export function speedOf(node) {
  const tokens = node.usage?.completion_tokens;
  const seconds = node.seconds - (node.wait || 0);
  return tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : undefined;
}
