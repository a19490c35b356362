// The page: its tabs, and what they show as soon as it is there.

import * as askTab from "./ask.js";
import * as doseTab from "./dose.js";
import * as filmTab from "./film.js";
import { json, loadModels } from "./model.js";
import { percent } from "./parts.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const panel = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

function select(chosen, focus = false) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    panel(tab).hidden = tab !== chosen;
  }
  if (focus) chosen.focus();
  history.replaceState(null, "", `#${chosen.id.replace("tab-", "")}`);
}

tabs.forEach((tab, n) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const next = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: -1 }[key];
    if (next !== undefined) select(tabs.at(next % tabs.length), true);
  });
});
const named = document.getElementById(`tab-${location.hash.slice(1)}`);
if (tabs.includes(named)) select(named);

const loading = document.getElementById("loading");
try {
  const [world, film, dose] = await Promise.all(["world.json", "film.json", "dose.json"].map(json));
  const ask = askTab.setUp(world);
  filmTab.setUp(document.getElementById("panel-film"), film, world);
  const doses = doseTab.setUp(document.getElementById("panel-dose"), dose, world);
  const models = await loadModels((share) => (loading.textContent = `Loading three models (8 MB)… ${percent(share)}`));
  loading.hidden = true;
  ask.ready(models);
  doses.ready(models);
} catch (error) {
  const local = location.protocol === "file:" ? " A page from a folder may not load models: serve it, with “python -m http.server”." : "";
  loading.textContent = `The models could not be loaded (${error.message}).${local} Please reload the page.`;
  throw error;
}
