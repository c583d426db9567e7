// The page's pure modules under Node: node modules.test.mjs FOLDER-OF-MODULES

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const load = (name) => import(pathToFileURL(`${process.argv[2]}/${name}`));
const { parse, inline, safeUrl } = await load("markdown.js");
const { highlight } = await load("highlight.js");
const { SseParser } = await load("sse.js");
const tree = await load("tree.js");
const keep = await load("keep.js");
const { place } = await load("drawer.js");
const { costOf, money, speedOf } = await load("turns.js");

const tests = {
  "markdown reads the blocks of CommonMark and GitHub's tables"() {
    const blocks = parse(
      "# One *two*\n\ntext\nmore\n\n- a\n- b\n  1. c\n\n> said\n\n```py x\n<b>\n```\n\n| a | b |\n|---|--:|\n| 1 | \\| |\n\n---",
    );
    assert.deepEqual(
      blocks.map((block) => block.type),
      ["heading", "paragraph", "list", "quote", "code", "table", "rule"],
    );
    assert.deepEqual(blocks[0].children, ["One ", { type: "em", children: ["two"] }]);
    assert.equal(blocks[2].items[1].children[1].ordered, true);
    assert.deepEqual([blocks[4].lang, blocks[4].text], ["py", "<b>"]);
    assert.deepEqual(blocks[5].align, ["left", "right"]);
    assert.deepEqual(blocks[5].rows, [[["1"], ["|"]]]);
  },
  "a fence without an end runs to the end, so that streamed code looks like code"() {
    assert.deepEqual(parse("```js\nlet a")[0], { type: "code", lang: "js", text: "let a", raw: "```js\nlet a" });
  },
  "emphasis, code and links"() {
    assert.deepEqual(inline("a **b *c* d** `x*y` ~~z~~"), [
      "a ",
      { type: "strong", children: ["b ", { type: "em", children: ["c"] }, " d"] },
      " ",
      { type: "code", text: "x*y" },
      " ",
      { type: "del", children: ["z"] },
    ]);
    assert.deepEqual(inline("snake_case_name 2 * 3 * 4"), ["snake_case_name 2 * 3 * 4"]);
    assert.deepEqual(inline("[a](https://b.example 'c') https://d.example/x. \\*no\\*"), [
      { type: "link", href: "https://b.example", children: ["a"] },
      " ",
      { type: "link", href: "https://d.example/x", children: ["https://d.example/x"] },
      ". *no*",
    ]);
    assert.deepEqual(inline("so [2]."), ["so ", { type: "cite", number: 2 }, "."]);
  },
  "an unfinished mark is text"() {
    for (const text of ["**a", "`a", "[a](", "[a]", "_a", "***", "a * b", "~~", "![x"])
      assert.equal(inline(text).join(""), text);
  },
  "only harmless links can be followed"() {
    for (const url of [
      "javascript:alert(1)",
      " java\nscript:alert(1)",
      "JaVaScRiPt:x",
      "data:text/html,x",
      "vbscript:x",
      "file:///etc",
      "//evil.example",
      "\u0001javascript:x",
    ])
      assert.equal(safeUrl(url), "");
    for (const url of ["http://a.example", "HTTPS://a.example", "mailto:a@b.example"]) assert.equal(safeUrl(url), url);
  },
  "hostile texts take no longer than their length"() {
    const hostile = [
      "*",
      "_",
      "`",
      "[",
      "](",
      "**a ",
      "*a ",
      "_a",
      "`` ` ",
      "> ",
      "- ",
      "  ",
      "|",
      "~~",
      "![",
      "<",
      "\\",
      "https://",
      "[a](b",
      "1. ",
      "*a**b",
      "_a __b",
      "| a |\n",
    ];
    for (const piece of hostile) {
      const text = piece.repeat(Math.ceil(60_000 / piece.length));
      const started = performance.now();
      parse(text);
      highlight(text, "python");
      const took = performance.now() - started;
      assert.ok(took < 3000, `${JSON.stringify(piece)} took ${took} ms`);
    }
  },
  "highlighting loses nothing"() {
    const code = "def f(x):  # why\n    '''long\n    text'''\n    return 'a\\'b' + 0x1f\n<b>&amp;\"";
    for (const lang of ["python", "js", "html", "rust", "unknown", ""])
      assert.equal(
        highlight(code, lang)
          .map((piece) => piece[1])
          .join(""),
        code,
      );
    assert.deepEqual(highlight("def f", "py")[0], ["word", "def"]);
    assert.ok(highlight("# why", "bash").some(([kind]) => kind === "comment"));
  },
  "events are read however the wire cuts them"() {
    const wire = 'data: {"a":1}\r\n\r\n: comment\n\ndata: x\ndata: y\n\nevent: z\ndata: [DONE]\n\n';
    for (let size = 1; size < wire.length; size += 1) {
      const parser = new SseParser();
      const found = [];
      for (let at = 0; at < wire.length; at += size) found.push(...parser.push(wire.slice(at, at + size)));
      assert.deepEqual(found, ['{"a":1}', "x\ny", "[DONE]"], `cut at ${size}`);
    }
  },
  "an edit is a branch, and both stay"() {
    const talk = tree.newConversation();
    const first = tree.add(talk, null, { role: "user", text: "one" });
    const answer = tree.add(talk, first.id, { role: "assistant", text: "1" });
    const other = tree.add(talk, null, { role: "user", text: "two" });
    assert.deepEqual(
      tree.path(talk).map((node) => node.text),
      ["two"],
    );
    assert.deepEqual(tree.siblings(talk, first), [first, other]);
    tree.select(talk, first.id);
    assert.equal(talk.leaf, answer.id);
    assert.deepEqual(
      tree.messages(talk).map((message) => message.content),
      ["one", "1"],
    );
  },
  "an exported tree is read again whole, and nonsense is refused"() {
    const talk = branched();
    const again = tree.fromJson(tree.toJson(talk));
    assert.deepEqual(
      tree.path(again).map((node) => node.text),
      tree.path(talk).map((node) => node.text),
    );
    assert.equal(again.order.length, talk.order.length);
    assert.equal(again.remote, undefined);
    assert.match(tree.toMarkdown(again), /\*\*You\*\*\n\nb/);
    assert.deepEqual(
      tree
        .messages(
          tree.fromJson(
            '{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"q"}]}]}',
          ),
        )
        .map((m) => m.content),
      ["s", "q"],
    );
    for (const bad of [
      "{}",
      "[]",
      '{"messages":[{"role":"evil"}]}',
      '{"format":"puna-conversation-1","order":["x"],"nodes":{"x":{"role":"user","parent":"y"}}}',
    ])
      assert.throws(() => tree.fromJson(bad));
  },
  "a long conversation loses its oldest turns, never the system message nor the question"() {
    const list = [["system"], ["user"], ["assistant"], ["user"], ["assistant"], ["user"]].map(([role]) => ({ role }));
    assert.equal(tree.cut(list, [10, 10, 10, 10, 10, 10], 60), 0);
    assert.equal(tree.cut(list, [10, 10, 10, 10, 10, 10], 45), 2);
    assert.equal(tree.cut(list, [10, 10, 10, 10, 10, 10], 1), 4);
  },
  "thumbs that differ make a pair"() {
    const talk = tree.newConversation();
    const asked = tree.add(talk, null, { role: "user", text: "q" });
    const good = tree.add(talk, asked.id, { role: "assistant", text: "good", rating: 1 });
    const bad = tree.add(talk, asked.id, { role: "assistant", text: "bad" });
    assert.deepEqual(tree.pairs(talk, good), []);
    bad.rating = -1;
    const pair = {
      prompt: [{ role: "user", content: "q" }],
      chosen: { role: "assistant", content: "good" },
      rejected: { role: "assistant", content: "bad" },
    };
    assert.deepEqual(tree.pairs(talk, bad), [pair]);
    assert.deepEqual(tree.pairs(talk, good), [pair]);
  },
  "a conversation comes back from the server's items with its branches, calls and citations"() {
    const talk = branched();
    const items = talk.order.flatMap((id) => {
      const made = keep.toItems(talk.nodes[id]).map((item, i) => ({ ...item, id: `${id}-${i}` }));
      talk.nodes[id].items = made.map((item) => item.id);
      return made;
    });
    const found = tree.newConversation();
    talk.known = items.map((item) => item.id);
    assert.equal(keep.toBranches(talk), "2:0,5:-");
    assert.equal(keep.takeItems(found, items, keep.toBranches(talk)), true);
    const shape = (conversation) =>
      conversation.order.map((id) => {
        const node = conversation.nodes[id];
        return [
          node.role,
          node.text,
          node.parent === null ? null : conversation.order.indexOf(node.parent),
          node.calls,
          node.citations,
        ];
      });
    assert.deepEqual(shape(found), shape(talk));
    assert.equal(keep.takeItems(found, [], keep.toBranches(talk)), false);
    delete found.known;
    assert.equal(keep.takeItems(found, items, keep.toBranches(talk)), false);
    assert.deepEqual(shape(found), shape(talk));
  },
  "a citation is found by characters, not by UTF-16 units"() {
    const text = "🦙🦙 a llama\neats";
    assert.deepEqual(place(text, { start: 3, end: 15, text: "a llama eats" }), { from: 5, to: 17, start: 3 });
    assert.deepEqual(place(text, { start: 0, end: 2, text: "eats" }), { from: 13, to: 17, start: 11 });
    assert.equal(place(text, { start: 0, end: 2, text: "not there" }), null);
  },
  "cost and speed are known or unsaid"() {
    const usage = { prompt_tokens: 1e6, completion_tokens: 500_001 };
    assert.equal(costOf({ usage }, { price: { input: 1, output: 2 } }).toFixed(4), "2.0000");
    assert.equal(costOf({ usage: { ...usage, cost: 3 } }, undefined), 3);
    assert.equal(costOf({ usage }, {}), undefined);
    assert.equal(speedOf({ usage: { completion_tokens: 11 }, seconds: 3, wait: 1 }), 5);
    assert.equal(speedOf({ seconds: 3 }), undefined);
    assert.deepEqual([12.345, 0.5, 0.00015, 5e-5, 1e-20].map(money), [
      "$12.35",
      "$0.50",
      "$0.00015",
      "$0.000050",
      "$0.000000000000",
    ]);
  },
};

function branched() {
  const talk = tree.newConversation();
  const a = tree.add(talk, null, { role: "user", text: "a" });
  tree.add(talk, a.id, {
    role: "assistant",
    text: "1",
    citations: [{ source: "d.txt", start: 1, end: 2, text: "x", heading: "h" }],
  });
  const again = tree.add(talk, a.id, {
    role: "assistant",
    text: "2",
    calls: [{ id: "c", name: "f", arguments: "{}" }],
  });
  tree.add(talk, again.id, { role: "tool", call: "c", text: "r" });
  const b = tree.add(talk, null, { role: "user", text: "b" });
  const nothing = tree.add(talk, b.id, { role: "assistant", text: "half" });
  tree.add(talk, nothing.id, { role: "user", text: "next" });
  return talk;
}

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    test();
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.stack}`);
  }
}
console.log(`${Object.keys(tests).length - failed} of ${Object.keys(tests).length}`);
process.exit(failed ? 1 : 0);
