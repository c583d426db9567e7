// The server's API, as any other client uses it. A refusal becomes an `ApiError` with the server's own words.

import { events } from "./sse.js";

export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
  /** Whether the server has no such thing, rather than failed at it. */
  get absent() {
    return [404, 405, 501].includes(this.status);
  }
}

export class Api {
  /** @param {() => string} key the API key, "" for none */
  constructor(key) {
    this.key = key;
  }

  async send(method, path, body, signal) {
    const form = body instanceof FormData;
    const headers = { ...(this.key() && { Authorization: `Bearer ${this.key()}` }) };
    if (body !== undefined && !form) headers["Content-Type"] = "application/json";
    let response;
    try {
      const content = body === undefined ? undefined : form ? body : JSON.stringify(body);
      response = await fetch(path, { method, headers, body: content, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The server cannot be reached.", "unreachable");
    }
    if (response.ok) return response;
    let said = {};
    try {
      said = (await response.json()).error || {};
    } catch {
      said = {};
    }
    throw new ApiError(response.status, said.message || `The server answered ${response.status}.`, said.code);
  }

  async get(path, signal) {
    return (await this.send("GET", path, undefined, signal)).json();
  }

  async post(path, body, signal) {
    return (await this.send("POST", path, body, signal)).json();
  }

  async delete(path) {
    return (await this.send("DELETE", path)).json();
  }

  /** Chunks of a streamed chat completion. */
  async *chat(body, signal) {
    const response = await this.send(
      "POST",
      "/v1/chat/completions",
      { ...body, stream: true, stream_options: { include_usage: true } },
      signal,
    );
    let ended = false;
    for await (const data of events(response)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(500, chunk.error.message || "The model failed.", chunk.error.code);
      ended ||= Boolean(chunk.choices?.[0]?.finish_reason);
      yield chunk;
    }
    if (!ended) throw new ApiError(0, "The answer broke off before its end.", "cut");
  }

  /** Whether something is there: null where the server has no such route or nothing behind it. */
  async maybe(promise) {
    try {
      return await promise;
    } catch (error) {
      if (error instanceof ApiError && error.absent) return null;
      throw error;
    }
  }
}
