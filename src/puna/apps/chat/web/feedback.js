// Ratings and edits, sent to the server as what preference training reads: only with consent, which is asked for once.

import { ask, h, toast } from "./dom.js";
import { message, messages, pairs } from "./tree.js";

export class Feedback {
  constructor(app) {
    this.app = app;
  }

  async #consent() {
    const { app } = this;
    if (app.prefs.consent) return app.prefs.consent === "yes";
    const answer = await ask(
      "Keep your ratings?",
      h(
        "p",
        {},
        "Puna can keep your ratings and edits on this server, with the messages they are about, as pairs that a model can be trained with. They stay on the server. You can change this in the settings.",
      ),
      [
        ["yes", "Keep them", "main"],
        ["no", "Do not keep them"],
      ],
    );
    if (answer) app.setPref("consent", answer);
    return answer === "yes";
  }

  async #send(records) {
    if (!records.length || !(await this.#consent())) return;
    try {
      for (const record of records)
        await this.app.api.post("/v1alpha/feedback", {
          ...record,
          consent: true,
          conversation: this.app.current.remote || null,
        });
    } catch (error) {
      toast(error.absent ? "This server keeps no ratings; they stay in this browser." : error.message);
    }
  }

  /** A thumb: a rating, and a pair with each answer to the same question that was rated the other way. */
  async rate(conversation, node) {
    if (!node.rating) return;
    const rating = {
      kind: "rating",
      prompt: messages(conversation, node.parent),
      answer: message(node),
      rating: node.rating,
      model: node.model || null,
    };
    await this.#send([rating, ...this.#pairs(pairs(conversation, node), "thumbs", node)]);
  }

  /** An answer that the user wrote better. */
  async edited(conversation, better, worse) {
    await this.#send(
      this.#pairs(
        [{ prompt: messages(conversation, worse.parent), chosen: message(better), rejected: message(worse) }],
        "edit",
        worse,
      ),
    );
  }

  /** One of two answers that stood side by side. */
  async kept(conversation, node, others) {
    const made = others
      .filter((other) => other.text && node.text)
      .map((other) => ({
        prompt: messages(conversation, node.parent),
        chosen: message(node),
        rejected: message(other),
      }));
    await this.#send(this.#pairs(made, "compare", node));
  }

  #pairs(made, source, node) {
    return made.map((pair) => ({ kind: "pair", ...pair, source, model: node.model || null }));
  }
}
