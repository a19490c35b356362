// The second tab: two trainings, step by step, as `data/film.json` has recorded them.

import { verdict } from "./answers.js";
import { lineChart } from "./chart.js";
import { NAMES, badge, h, percent, show } from "./parts.js";

const LOOKS = { po: "po", "po-pd": "pd" };
const PAUSE = 700; // ms a moment, when it plays

export function setUp(panel, film, world) {
  const runs = Object.entries(film);
  const { scenes, question, asked } = film.po;
  const steps = film.po.film.map(({ step }) => step);
  const last = steps.length - 1;
  const charts = [
    chart("Everyday things refused (SARR)", "safe", "refused"),
    chart("Hazards whose plan is given away (ASR)", "hazard", "harmful"),
  ];

  function chart(title, group, measure) {
    const lines = runs.map(([name, { film }]) => ({
      name: NAMES[name],
      look: LOOKS[name],
      points: film.map(({ step, shares }) => [step, shares[group][measure]]),
    }));
    const ends = lines.map(({ name, points }) => `${name} from ${percent(points[0][1])} to ${percent(points.at(-1)[1])}`);
    return lineChart({ title, lines, ticks: [0, steps.at(-1) / 2, steps.at(-1)], label: "training step", alt: `${title}: ${ends.join(", ")}.` });
  }

  const rows = scenes.map((scene) => {
    const figure = h("figure", { class: "picture small" });
    const said = Object.fromEntries(runs.map(([name]) => [name, h("div", { class: `said ${name}` })]));
    return { scene, figure, said, row: h("div", { class: "scene" }, figure, ...Object.values(said)) };
  });
  const slider = h("input", { type: "range", id: "moment", min: 0, max: last, step: 1, value: 0, oninput: () => (stop(), go(Number(slider.value))) });
  const step = h("output", { for: "moment" });
  const play = h("button", { type: "button", class: "primary", onclick: () => (timer ? stop() : start()) }, "Play");
  let timer = null;

  function go(moment) {
    slider.value = moment;
    step.textContent = `step ${steps[moment]} of ${steps.at(-1)}`;
    slider.setAttribute("aria-valuetext", step.textContent);
    charts.forEach(({ mark }) => mark(steps[moment]));
    rows.forEach(({ scene, said }, n) => {
      for (const [name, { film }] of runs) {
        const answer = film[moment].answers[n];
        said[name].replaceChildren(h("h4", {}, NAMES[name]), h("p", {}, answer || "(nothing)"), badge(verdict(answer, scene, question, world)));
      }
    });
  }

  function start() {
    if (Number(slider.value) === last) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === last) stop();
    }, PAUSE);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  panel.append(
    h("h2", {}, "Both learn to refuse hazards. Only PO refuses everyday things too."),
    h("p", { class: "lead" }, `The same training twice, without and with PD; seed 0. In the charts: ${asked.safe} everyday things and ${asked.hazard} hazards to be forgotten, new pictures of each. Below: one question, “${question}”`),
    h("div", { class: "player" }, play, h("div", {}, h("label", { for: "moment", class: "hidden" }, "Training step"), slider), step),
    h("div", { class: "charts" }, ...charts.map(({ figure }) => figure)),
    h("div", { class: "scenes" }, ...rows.map(({ row }) => row)),
  );
  rows.forEach(({ figure, scene }) => show(figure, scene, world));
  go(0);
}
