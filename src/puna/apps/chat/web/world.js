// What the page finds when it starts: kept settings and conversations, the colour scheme, the server's models.

/** An object that the browser keeps; an empty one where it keeps none. */
export function read(storage, name) {
  try {
    return JSON.parse(storage.getItem(name)) || {};
  } catch {
    return {};
  }
}

/** Whether the page is dark now. */
export function dark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** An answer that the page was closed over is a stopped one. */
export function settled(conversation) {
  for (const node of Object.values(conversation.nodes)) if (node.state === "streaming") node.state = "stopped";
  return conversation;
}

/** A model of the server's list as the page needs it. */
export function described(model) {
  const meta = model.custom_metadata || {};
  const name = meta.display_name || model.id;
  return {
    id: model.id,
    label: meta.precision ? `${name} · ${meta.precision}` : name,
    context: meta.context_length || model.context_length || model.max_model_len || 0,
    price:
      meta.price || meta.pricing || (meta.provider_type?.startsWith("inline") ? { input: 0, output: 0 } : undefined),
  };
}
