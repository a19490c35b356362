// The tiny LLaVA's tokenizer: a word is a token, in lower case; what it does not know is <unk>.

const WORD = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d`;
const TOKENS = new RegExp(`[${WORD}]+|[^${WORD}\\s]+`, "gu");

/** `words`: every token, by its number; `unknown`: the number of <unk>. */
export function tokenizer({ words, unknown, end }) {
  const numbers = new Map(words.map((word, number) => [word, number]));
  return {
    ids: (text) => (text.toLowerCase().match(TOKENS) ?? []).map((word) => numbers.get(word) ?? unknown),
    unknowns: (text) => (text.toLowerCase().match(TOKENS) ?? []).filter((word) => !numbers.has(word)),
    word: (id) => words[id] ?? words[unknown],
    /** Ids as a text, without an end token; a mark follows its word without a space. */
    text: (ids) =>
      ids
        .filter((id) => id !== end)
        .map((id, n) => (n ? ` ${words[id] ?? words[unknown]}` : (words[id] ?? words[unknown])))
        .map((word) => word.replace(/^ ([.?!,])/, "$1"))
        .join(""),
  };
}
