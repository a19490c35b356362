// The tiny LLaVA in the browser: its weights put together, and one token after another.

import * as ort from "./ort/ort.wasm.min.mjs";
import { tokenizer } from "./tokenizer.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const fetched = async (name) => {
  const reply = await fetch(new URL(`./data/${name}`, import.meta.url));
  if (!reply.ok) throw new Error(`${name}: ${reply.status}`);
  return reply;
};
export const json = async (name) => (await fetched(name)).json();
const bytes = async (name) => (await fetched(name)).arrayBuffer();

/** name → model, of the base ("before") and of each adapter laid over it. */
export async function loadModels(progress = () => {}) {
  const about = await json("model.json");
  const names = Object.keys(about.weights).filter((name) => name !== "base");
  const parts = ["picture.onnx", "language.onnx", "base.bin", ...names.map((name) => `${name}.bin`)];
  const [picture, language, base, ...adapters] = await Promise.all(parts.map(bytes));
  const half = floats(new Uint16Array(base));
  const models = {};
  for (const [n, name] of [null, ...names].entries()) {
    const adapter = name && { layout: about.weights[name], numbers: new Float32Array(adapters[n - 1]) };
    const weights = (graph) => ({ data: laidOver(about, graph, half, adapter), path: "weights" });
    const session = (bytes, graph) =>
      ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], externalData: [weights(graph)] });
    models[name ?? "before"] = new Model(
      about,
      await session(picture, "picture"),
      await session(language, "language"),
    );
    progress((n + 1) / (names.length + 1));
    await new Promise((resolve) => setTimeout(resolve)); // let the page draw
  }
  return models;
}

/** float16 as float32: exact. */
function floats(halves) {
  const out = new Float32Array(halves.length);
  for (let n = 0; n < halves.length; n++) {
    const [sign, exponent, fraction] = [halves[n] >> 15 ? -1 : 1, (halves[n] >> 10) & 31, halves[n] & 1023];
    if (exponent) out[n] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
    else out[n] = (sign * fraction) / 2 ** 24;
  }
  return out;
}

/** The weights of a graph in its order: the base's, an adapter's in their place, or, where it has two
 * factors, W + scale · B A. */
function laidOver({ graphs, weights, scale }, graph, base, adapter) {
  const size = ([, shape]) => shape.reduce((all, n) => all * n, 1);
  const total = graphs[graph].reduce((sum, entry) => sum + size(entry), 0);
  const out = new Float32Array(total);
  let place = 0;
  for (const entry of graphs[graph]) {
    const [name, shape] = entry;
    const part = out.subarray(place, (place += size(entry)));
    const of = (layout, numbers, key) => {
      const [offset, own] = layout[key];
      return numbers.subarray(offset, offset + own.reduce((all, n) => all * n, 1));
    };
    const whole = adapter && adapter.layout[name];
    part.set(whole ? of(adapter.layout, adapter.numbers, name) : of(weights.base, base, name));
    if (!adapter || !adapter.layout[`${name}.lora_A`]) continue;
    const [down, up] = ["lora_A", "lora_B"].map((key) => of(adapter.layout, adapter.numbers, `${name}.${key}`));
    const [rows, columns] = shape;
    const rank = down.length / columns;
    const sums = new Float64Array(columns);
    for (let row = 0; row < rows; row++) {
      sums.fill(0);
      for (let r = 0; r < rank; r++) {
        const factor = scale * up[row * rank + r];
        for (let column = 0; column < columns; column++) sums[column] += factor * down[r * columns + column];
      }
      for (let column = 0; column < columns; column++) part[row * columns + column] += sums[column];
    }
  }
  return new Uint8Array(out.buffer);
}

class Model {
  constructor(about, picture, language) {
    Object.assign(this, { about, picture, language, tokens: tokenizer(about) });
  }

  /** The answer to a question about a picture, greedy, a token at a time.
   *
   * rgb: bytes, `side` × `side` × 3.  intervention: `ablate` {direction, share}, or `add`
   * {direction, layer, dose}, as `models/hooks.py` has them.
   * Yields {id, word, probability, others: the likeliest other words, [word, probability]}.
   */
  async *answer(rgb, question, { ablate, add } = {}) {
    const { before, after, width, places, layers, heads, head, end, longest } = this.about;
    const pixels = planes(rgb, this.about.side);
    const { features } = await this.picture.run({ pixels: tensor(pixels, [1, 3, this.about.side, this.about.side]) });
    const direction = ablate?.direction ?? Float32Array.of(1, ...new Float32Array(width - 1));
    const shifts = new Float32Array(places * width);
    add?.direction.forEach((value, n) => (shifts[add.layer * width + n] = add.dose * value));
    const fixed = {
      direction: tensor(Float32Array.from(direction), [width]),
      share: tensor(Float32Array.of(ablate?.share ?? 0), []),
      shifts: tensor(shifts, [places, width]),
    };
    let ids = [...before, ...this.tokens.ids(question), ...after];
    let seen = new Float32Array(ids.length * width); // the picture's features at its own tokens
    seen.set(features.data, before.indexOf(this.about.image) * width);
    let [keys, values] = [0, 1].map(() => tensor(new Float32Array(0), [layers, 1, heads, 0, head]));
    for (let n = 0; n < longest; n++) {
      const out = await this.language.run({
        ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
        features: tensor(seen, [1, ids.length, width]),
        keys,
        values,
        ...fixed,
      });
      [keys, values] = [out.new_keys, out.new_values];
      const [first, ...others] = likeliest(out.logits.data, 4);
      if (first[0] === end) return;
      const named = others.map(([id, probability]) => [this.tokens.word(id), probability]);
      yield { id: first[0], word: this.tokens.word(first[0]), probability: first[1], others: named };
      ids = [first[0]];
      seen = new Float32Array(width);
    }
  }
}

const tensor = (data, shape) => new ort.Tensor("float32", data, shape);

/** Pixels from −1 to 1, a plane of each channel. */
function planes(rgb, side) {
  const out = new Float32Array(3 * side * side);
  for (let n = 0; n < rgb.length; n++) {
    out[(n % 3) * side * side + Math.floor(n / 3)] = (Math.fround(rgb[n] * (1 / 255)) - 0.5) / 0.5;
  }
  return out;
}

/** The likeliest tokens, [id, probability], by softmax; of equal ones the first. */
function likeliest(logits, count) {
  const most = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const odds = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = odds.reduce((one, other) => one + other);
  const ranked = odds.map((value, id) => [id, value / sum]).sort((one, other) => other[1] - one[1]);
  return ranked.slice(0, count);
}
