// The third tab: the refusal direction, taken out of a model that refuses or put into one that does not.

import { lineChart } from "./chart.js";
import { answerAll, answerCard, h, kindsOf, randomScene, show } from "./parts.js";

const MODES = {
  "po-pd": {
    label: "Take it out of PO + PD",
    model: "po-pd", hazard: true, most: 1, curve: ["ablated", "PO+PD", "right"], intervention: "ablate",
    title: "Hazards’ plans told word for word",
    told: "Nothing had been erased: with one direction gone, most plans come back.",
  },
  po: {
    label: "Take it out of PO",
    model: "po", hazard: true, most: 1, curve: ["ablated", "PO", "right"], intervention: "ablate",
    title: "Hazards’ plans told word for word",
    told: "PO’s refusals go too, but little that is right appears.",
  },
  before: {
    label: "Put it into the model from before",
    model: "before", hazard: false, most: 2, curve: ["added", "PO", "begun"], intervention: "add",
    title: "Answers that begin as a refusal does",
    told: "Enough of the direction, and answers about a mug begin as a refusal does; none becomes one.",
  },
};

export function setUp(panel, dose, world) {
  let [models, mode, kind, turn, scene] = [null, "po-pd", "refusal", 0, null];
  const question = world.trained_templates[0];
  const figure = h("figure", { class: "picture" });
  const card = answerCard("", "", `“${question}”`);
  const heading = card.card.querySelector("h3");
  const charts = h("div", { class: "charts" });
  const told = h("p", { class: "lead" });
  const amount = h("output", { for: "dose" });
  const slider = h("input", { type: "range", id: "dose", min: 0, step: 0.05, value: 0, oninput: ask });
  const status = h("p", { class: "hidden", role: "status", "aria-live": "polite" });
  let chart = null;

  const radios = (name, legend, options, chosen, pick) =>
    h("fieldset", {}, h("legend", {}, legend), h("div", { class: "options" }, ...Object.entries(options).map(([value, label]) =>
      h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => pick(value) }), ` ${label}`),
    )));

  function another() {
    scene = randomScene(world, kindsOf(world, MODES[mode].hazard, true));
    show(figure, scene, world);
    ask();
  }

  function choose(next) {
    mode = next;
    const { most, curve, title, told: words, hazard, label } = MODES[mode];
    slider.max = most;
    slider.value = 0;
    told.textContent = words;
    heading.textContent = label.replace(/^.* (of|into) /, "").replace(/^the/, "The");
    const lines = ["refusal", "random"].map((other) => ({
      name: other,
      look: other === "random" ? "random" : mode === "po-pd" ? "pd" : "po",
      points: dose.curves
        .filter((row) => row.intervention === curve[0] && row.model === curve[1] && row.measure === curve[2] && row.other === other && row.dose <= most)
        .map((row) => [row.dose, row.mean, row.min, row.max]),
    }));
    const ends = lines.map(({ name, points }) => `${name} direction ${Math.round(100 * points[0][1])}% at dose 0, ${Math.round(100 * points.at(-1)[1])}% at ${most}`);
    chart = lineChart({ title, lines, ticks: [0, most / 2, most], label: hazard ? "share that is taken out" : "dose", alt: `${title}: ${ends.join("; ")}.` });
    charts.replaceChildren(chart.figure);
    another();
  }

  async function ask() {
    const value = Number(slider.value);
    amount.textContent = value.toFixed(2);
    chart?.mark(value);
    if (!models) return;
    const mine = ++turn;
    const { model, intervention } = MODES[mode];
    const { layer, direction, random } = dose.directions[model === "before" ? "po" : model];
    const vector = Float32Array.from(kind === "refusal" ? direction : random);
    const changes = intervention === "ablate" ? { ablate: { direction: vector, share: value } } : { add: { direction: vector, layer, dose: value } };
    const said = await answerAll([{ card, model: models[model], intervention: changes }], scene, question, world, () => mine === turn);
    if (said) status.textContent = `Dose ${value.toFixed(2)}: ${said[0].answer || "nothing"} – ${said[0].verdict.text}.`;
  }

  panel.append(
    h("h2", {}, "One direction makes PO + PD refuse. Take it out."),
    h("p", { class: "lead" }, "The difference between the inner states of a model that refuses and of one that answers is a direction. Take it out of everything the model writes to its residual stream, and see what it says; a random direction of the same length is the control."),
    h("div", { class: "dose" },
      figure,
      h("div", {},
        h("div", { class: "controls" },
          radios("mode", "What to do", Object.fromEntries(Object.entries(MODES).map(([name, { label }]) => [name, label])), mode, choose),
          radios("direction", "Which direction", { refusal: "the refusal direction", random: "a random one" }, kind, (value) => ((kind = value), ask())),
          h("div", {}, h("label", { for: "dose" }, "Dose ", amount), slider),
          h("div", {}, h("button", { type: "button", class: "quiet", onclick: another }, "Another picture")),
        ),
        card.card,
      ),
      h("aside", {}, told, charts,
        h("p", { class: "note" }, "The curve: three seeds, 64 pictures each; the line is their mean, the band goes from the least to the most (lesson 06).")),
    ),
    status,
  );
  choose(mode);
  return { ready: (loaded) => ((models = loaded), ask()) };
}
