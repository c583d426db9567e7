// Colours for code: one lexer for all languages, which knows comments, strings, numbers and a language's words. It
// never fails: what it does not know is plain text.

const WORDS = {
  python:
    "False None True and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return self try while with yield",
  js: "async await break case catch class const continue default delete do else export extends false finally for from function if import in instanceof interface let new null of return static super switch this throw true try type typeof undefined var void while yield",
  c: "auto bool break case catch char class const continue default delete do double else enum extern false float for friend goto if inline int long namespace new nullptr operator private protected public return short signed sizeof static struct switch template this throw true try typedef typename union unsigned using virtual void volatile while",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  go: "break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var",
  java: "abstract boolean break byte case catch char class const continue default do double else enum extends false final finally float for if implements import instanceof int interface long new null package private protected public return short static super switch this throw throws true try var void while",
  bash: "case cd do done echo elif else esac exit export fi for function if in local return set shift source then unset until while",
  sql: "all alter and as asc between by case create delete desc distinct drop else end exists from group having in index insert into is join left like limit not null on or order outer primary right select set table then union update values when where with",
  json: "true false null",
  toml: "true false",
  css: "",
  html: "",
};
const ALIAS = {
  py: "python",
  python3: "python",
  javascript: "js",
  jsx: "js",
  ts: "js",
  typescript: "js",
  tsx: "js",
  mjs: "js",
  "c++": "c",
  cpp: "c",
  h: "c",
  cc: "c",
  cuda: "c",
  "c#": "java",
  cs: "java",
  kotlin: "java",
  swift: "java",
  rs: "rust",
  golang: "go",
  sh: "bash",
  shell: "bash",
  zsh: "bash",
  console: "bash",
  yaml: "toml",
  yml: "toml",
  ini: "toml",
  xml: "html",
  svg: "html",
  jsonl: "json",
};
const HASH = ["python", "bash", "toml"];
const SLASH = ["js", "c", "rust", "go", "java", "css"];

function lexer(lang) {
  const parts = [];
  if (lang === "html") parts.push("(?<comment><!--[\\s\\S]*?(?:-->|$))", "(?<word></?[\\w:-]+|/?>)");
  if (HASH.includes(lang)) parts.push("(?<comment>#[^\\n]*)");
  if (SLASH.includes(lang)) parts.push("(?<comment>//[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$))");
  if (lang === "sql") parts.push("(?<comment>--[^\\n]*)");
  if (lang === "python") parts.push("(?<long>\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$))");
  const tick = ["js", "bash", "go"].includes(lang) ? "|`(?:\\\\[\\s\\S]|[^`\\\\])*(?:`|$)" : "";
  const single = lang === "rust" ? "" : "|'(?:\\\\.|[^'\\\\\\n])*(?:'|(?=\\n)|$)";
  parts.push(`(?<string>"(?:\\\\.|[^"\\\\\\n])*(?:"|(?=\\n)|$)${single}${tick})`);
  parts.push("(?<number>\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)");
  parts.push("(?<name>[A-Za-z_$@][\\w$]*)(?<call>(?=\\s{0,4}\\())?");
  return new RegExp(parts.join("|"), "g");
}

/** Pieces of code: [kind, text], kind "" for plain text. */
export function highlight(code, name) {
  const lang = ALIAS[name] || name;
  if (!(lang in WORDS) || code.length > 100_000) return [["", code]];
  const words = new Set(WORDS[lang].split(" "));
  const pieces = [];
  let last = 0;
  for (const found of code.matchAll(lexer(lang))) {
    const { comment, word, long, string, number, name: known, call } = found.groups;
    const text = found[0];
    let kind = "";
    if (comment !== undefined) kind = "comment";
    else if (string !== undefined || long !== undefined) kind = "string";
    else if (number !== undefined) kind = "number";
    else if (word !== undefined || words.has(lang === "sql" ? known.toLowerCase() : known)) kind = "word";
    else if (known[0] === "@") kind = "name";
    else if (call !== undefined) kind = "name";
    if (!kind) continue;
    if (found.index > last) pieces.push(["", code.slice(last, found.index)]);
    pieces.push([kind, text]);
    last = found.index + text.length;
  }
  if (last < code.length) pieces.push(["", code.slice(last)]);
  return pieces;
}
