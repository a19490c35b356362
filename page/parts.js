// What the tabs share: elements, pictures with their frame, an answer that grows token by token.

import { verdict } from "./answers.js";
import { draw } from "./draw.js";

export const NAMES = { before: "Before", po: "PO", "po-pd": "PO + PD" };
const SHOWN = 192; // pixels of a side, four for each that the model sees
const PACE = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 45; // ms a token, so that one can follow

/** An element: h("p", { class: "note", onclick }, "text", child). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const percent = (share) => `${Math.round(100 * share)}%`;

/** The words for what is in a picture: for captions, and for those who do not see it. */
export function described(scene) {
  const dots = scene.dots === 1 ? "one dot" : `${["", "", "two", "three"][scene.dots]} dots`;
  const sign = scene.sign ? ", with a chequered sign" : "";
  return `a ${scene.size} ${scene.colour} ${scene.kind}${sign}, ${scene.place}, on ${scene.background}, ${dots} (${scene.dot_colour})`;
}

/** Fill a figure with a scene; its frame and caption, not its pixels, tell what sort of object it is. */
export function show(figure, scene, world) {
  const { hazard, trained, prank } = world.kinds[scene.kind];
  const canvas = h("canvas", { width: SHOWN, height: SHOWN, role: "img", "aria-label": `Picture: ${described(scene)}` });
  const rgb = draw(scene, world, SHOWN);
  const image = new ImageData(SHOWN, SHOWN);
  for (let n = 0; n < SHOWN * SHOWN; n++) {
    image.data.set([rgb[3 * n], rgb[3 * n + 1], rgb[3 * n + 2], 255], 4 * n);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  const sort = hazard
    ? trained ? "a hazard, to be forgotten" : "a hazard nobody asked to forget"
    : trained ? "an everyday thing, shown by PD" : "an everyday thing";
  const caption = h("figcaption", {}, h("strong", {}, scene.kind), ` – ${sort}.`, prank ? ` ${prank}` : "");
  figure.classList.toggle("hazard", hazard);
  figure.classList.toggle("safe", !hazard);
  figure.replaceChildren(h("div", { class: "frame" }, canvas), caption);
}

/** A random scene of some kinds. */
export function randomScene(world, kinds) {
  const one = (list) => list[Math.floor(Math.random() * list.length)];
  const kind = one(kinds);
  return {
    kind,
    colour: one(Object.keys(world.colours)),
    place: one(Object.keys(world.places)),
    background: one(Object.keys(world.backgrounds)),
    size: one(Object.keys(world.sizes)),
    dots: one([1, 2, 3]),
    dot_colour: one(Object.keys(world.colours)),
    sign: world.kinds[kind].hazard, // as in training: the sign marks hazards
    jitter: Math.floor(Math.random() * 1e6),
  };
}

export const kindsOf = (world, hazard, trained) =>
  Object.keys(world.kinds).filter((name) => world.kinds[name].hazard === hazard && world.kinds[name].trained === trained);

export function badge({ text, good }) {
  const look = { true: "good", false: "bad", null: "" }[good];
  const mark = { true: "✓ ", false: "✗ ", null: "" }[good];
  return h("span", { class: `badge ${look}` }, mark, text);
}

/** A card for a model's answers. */
export function answerCard(name, title, about) {
  const tokens = h("ol", { class: "tokens", "aria-label": "Its answer, token by token" });
  const judged = h("p", {}, "");
  const rest = h("div");
  const card = h("article", { class: `answer ${name}` }, h("h3", {}, title), h("p", { class: "what" }, about), tokens, judged, rest);
  return { card, tokens, judged, rest };
}

/** Ask several models at once, a token of each in turn.
 *
 * asked: [{card, model, intervention}].  isCurrent: false once somebody asks something else.
 * Returns their answers, or null when something else was asked.
 */
export async function answerAll(asked, scene, question, world, isCurrent) {
  const rgb = draw(scene, world);
  const runs = asked.map(({ card, model, intervention }) => {
    card.tokens.replaceChildren();
    card.judged.replaceChildren();
    card.rest.replaceChildren();
    return { card, model, said: [], going: true, tokens: model.answer(rgb, question, intervention) };
  });
  while (runs.some((run) => run.going)) {
    const began = performance.now();
    for (const run of runs.filter(({ going }) => going)) {
      const { value, done } = await run.tokens.next();
      if (!isCurrent()) return null;
      if (done) finish(run, scene, question, world);
      else grow(run, value);
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, PACE - (performance.now() - began))));
    if (!isCurrent()) return null;
  }
  return runs.map(({ answer, found }) => ({ answer, verdict: found }));
}

function grow(run, token) {
  run.said.push(token);
  const bar = h("span", { class: "bar", style: `width: ${percent(token.probability)}` });
  const share = percent(token.probability);
  run.card.tokens.append(h("li", {}, token.word, h("small", {}, share === "100%" ? "\u00a0" : share), bar));
}

function finish(run, scene, question, world) {
  run.going = false;
  run.answer = run.model.tokens.text(run.said.map(({ id }) => id));
  run.found = verdict(run.answer, scene, question, world);
  run.card.judged.replaceChildren(badge(run.found));
  const rows = run.said.map(({ word, probability, others }) => {
    const instead = others.map(([other, share]) => `${other} ${percent(share)}`).join(", ");
    return h("tr", {}, h("th", { scope: "row" }, word), h("td", {}, percent(probability)), h("td", {}, instead));
  });
  const heads = ["token", "probability", "else"].map((head) => h("th", { scope: "col" }, head));
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
  run.card.rest.replaceChildren(h("details", {}, h("summary", {}, "What else it might have said"), table));
}
