// An answer as its tokens: each shaded by how sure the model was of it, with what else it might have said.

import { h } from "./dom.js";

const STEPS = [0.9, 0.6, 0.3, 0.1]; // probabilities that part the five shades

function percent(logprob) {
  const share = Math.exp(logprob) * 100;
  return `${share >= 10 ? share.toFixed(0) : share.toPrecision(2)} %`;
}

function visible(token) {
  return token.replace(/\n/g, "⏎").replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length)) || "(nothing)";
}

export function tokenView(tokens) {
  const about = h("div", { class: "about", role: "status", "aria-live": "polite" });
  const spans = tokens.map((token) => {
    const shade = STEPS.filter((step) => Math.exp(token.logprob) < step).length;
    return h("span", { class: `token t${shade}` }, token.token);
  });
  let current = -1;
  const show = (place) => {
    spans[current]?.classList.remove("current");
    current = place;
    const { token, logprob, top } = tokens[current];
    spans[current].classList.add("current");
    about.replaceChildren(
      h("strong", {}, visible(token)),
      ` ${percent(logprob)}`,
      top.length
        ? h(
            "table",
            {},
            h(
              "tbody",
              {},
              top.map((other) =>
                h(
                  "tr",
                  { class: other.token === token ? "taken" : "" },
                  h("td", {}, visible(other.token)),
                  h("td", {}, bar(other.logprob)),
                  h("td", { class: "right" }, percent(other.logprob)),
                ),
              ),
            ),
          )
        : "",
    );
  };
  const text = h(
    "div",
    {
      class: "tokens",
      tabindex: "0",
      role: "application",
      "aria-label": "Tokens; the arrow keys go from one to the next",
    },
    spans,
  );
  text.addEventListener("mouseover", (event) => {
    const place = spans.indexOf(event.target);
    if (place >= 0) show(place);
  });
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(Math.max(current + step, 0), spans.length - 1));
  });
  const sure = tokens.reduce((sum, token) => sum + token.logprob, 0) / Math.max(tokens.length, 1);
  about.append(`${tokens.length} tokens, typically ${percent(sure)} sure. Point at one to see what else there was.`);
  return h("div", { class: "token-view" }, text, about);
}

function bar(logprob) {
  const filled = h("span", { class: "filled" });
  filled.style.width = `${Math.exp(logprob) * 100}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, filled);
}
