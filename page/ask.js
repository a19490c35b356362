// The first tab: compose a picture, ask a question, see three models answer.

import { ordinary } from "./answers.js";
import { NAMES, answerAll, answerCard, h, kindsOf, randomScene, show } from "./parts.js";

const ABOUT = {
  before: "Knows every plan.",
  po: "Taught to refuse hazards.",
  "po-pd": "Taught when not to refuse.",
};
const FIRST = { kind: "mug", colour: "blue", place: "middle", background: "mint", size: "large", dots: 2, dot_colour: "red", sign: false, jitter: 7 };

export function setUp(world) {
  const find = (id) => document.getElementById(id);
  let [scene, models, turn] = [FIRST, null, 0];
  const cards = Object.fromEntries(Object.keys(NAMES).map((name) => [name, answerCard(name, NAMES[name], ABOUT[name])]));
  find("answers").append(...Object.values(cards).map(({ card }) => card));
  const fields = sceneFields(find("scene"), world, change, surprise);

  function change(part) {
    scene = { ...scene, ...part };
    if (part.kind) scene.sign = world.kinds[part.kind].hazard;
    fields.write(scene);
    show(find("ask-picture"), scene, world);
  }

  function surprise() {
    change(randomScene(world, Object.keys(world.kinds)));
    ask();
  }

  async function ask() {
    const question = find("question").value.trim();
    if (!models || !question) return;
    const mine = ++turn;
    const strange = [...new Set(models.before.tokens.unknowns(question))];
    find("unknown-words").hidden = strange.length === 0;
    find("unknown-words").textContent = `Words this tiny model has never seen: ${strange.join(", ")}`;
    find("answers").setAttribute("aria-busy", "true");
    const asked = Object.keys(NAMES).map((name) => ({ card: cards[name], model: models[name] }));
    const said = await answerAll(asked, scene, question, world, () => mine === turn);
    if (!said) return;
    find("answers").setAttribute("aria-busy", "false");
    const lines = said.map(({ answer, verdict }, n) => `${Object.values(NAMES)[n]}: ${answer || "nothing"} – ${verdict.text}.`);
    find("said").textContent = lines.join(" ");
  }

  const known = [...world.trained_templates, ...world.templates.filter((one) => !world.trained_templates.includes(one)), ...Object.values(ordinary(FIRST, world)).map(([question]) => question)];
  find("questions").append(...known.map((value) => h("option", { value })));
  const tried = [world.trained_templates[0], world.templates.find((one) => !world.trained_templates.includes(one)), world.questions.name, world.questions.colour, world.questions.counting];
  find("chips").append(
    ...tried.filter(Boolean).map((question) =>
      h("button", { type: "button", onclick: () => ((find("question").value = question), ask()) }, question),
    ),
  );
  find("question").value = world.trained_templates[0];
  find("question-form").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  change({});
  const wide = matchMedia("(min-width: 42.01rem)"); // on a phone the answers come first
  const fold = () => (find("change").open = wide.matches);
  wide.addEventListener("change", fold);
  fold();

  return {
    ready(loaded) {
      models = loaded;
      find("ask").disabled = false;
      ask();
    },
  };
}

function sceneFields(form, world, change, surprise) {
  const inputs = {};
  const field = (name, label, input, wide = false) => {
    inputs[name] = input;
    input.id = `scene-${name}`;
    return h("div", { class: wide ? "wide" : "" }, h("label", { for: input.id }, label), input);
  };
  const choice = (name, options, read = String) =>
    h("select", { onchange: (event) => change({ [name]: read(event.target.value) }) }, ...options);
  const plain = (values) => values.map((value) => h("option", {}, value));
  const group = (label, hazard, trained) => h("optgroup", { label }, ...plain(kindsOf(world, hazard, trained)));
  const kinds = [
    group("Everyday things that PD shows", false, true),
    group("Other everyday things", false, false),
    group("Hazards to be forgotten", true, true),
    group("Hazards nobody asked to forget", true, false),
  ];
  const sign = h("input", { type: "checkbox", id: "scene-sign", onchange: (event) => change({ sign: event.target.checked }) });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(
    field("kind", "Object", choice("kind", kinds), true),
    field("colour", "Colour", choice("colour", plain(Object.keys(world.colours)))),
    field("place", "Place", choice("place", plain(Object.keys(world.places)))),
    field("background", "Background", choice("background", plain(Object.keys(world.backgrounds)))),
    field("size", "Size", choice("size", plain(Object.keys(world.sizes)))),
    field("dots", "Dots", choice("dots", plain(["1", "2", "3"]), Number)),
    field("dot_colour", "Colour of the dots", choice("dot_colour", plain(Object.keys(world.colours)))),
    h("div", { class: "check" }, h("label", {}, sign, " with the sign")),
    h("div", { class: "check" }, h("button", { type: "button", class: "quiet", onclick: surprise }, "Surprise me")),
  );
  return {
    write(scene) {
      for (const [name, input] of Object.entries(inputs)) input.value = scene[name];
      sign.checked = scene.sign;
    },
  };
}
