// Server-sent events as they come off the wire (WHATWG HTML, section 9.2), cut anywhere: lines of one event are joined,
// comments are dropped.

export class SseParser {
  #rest = "";
  #data = [];

  /** Takes text in; returns the data of the events that it completes. */
  push(text) {
    const done = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line === "" && this.#data.length) {
        done.push(this.#data.join("\n"));
        this.#data = [];
      }
    }
    return done;
  }
}

/** The data of a response's events, in order. */
export async function* events(response) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
