"""The page that needs no install, in Chromium with the network off: it says what Python says."""

import functools
import gzip
import http.server
import json
import random
import threading
from dataclasses import asdict, dataclass, field

import build_page
import page_records
import pytest
import torch

import safeerase_lite as sl
from safeerase_lite.evaluation.judges.rules import oracle
from safeerase_lite.models import hooks
from safeerase_lite.models.llava import load_adapter
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import draw
from safeerase_lite.tinyworld.world import scene
from safeerase_lite.utils import UserError

STEPS = 24  # of each training: what is tested does not depend on how far they went
PICTURES = 200
PIXELS_OFF = 0  # the bound on |channel here − channel in Python|: rows are drawn by the same rules
WEIGHT = 12e6  # bytes, compressed

START = """async () => {
    const [model, picture, answers] = await Promise.all(
        ["model", "draw", "answers"].map((name) => import(`./${name}.js`)));
    const world = await model.json("world.json");
    Object.assign(window, { picture, answers, world, dose: await model.json("dose.json") });
    window.models = await model.loadModels();
}"""
DRAWN = "scenes => scenes.map((scene) => [...picture.draw(scene, world)])"
ANSWERS = """async ([name, cases, change]) => {
    const said = [];
    for (const [scene, question] of cases) {
        const ids = [];
        const rgb = picture.draw(scene, world);
        for await (const { id } of models[name].answer(rgb, question, change)) ids.push(id);
        said.push(models[name].tokens.text(ids));
    }
    return said;
}"""
JUDGED = """judged => judged.map(([scene, question, answer]) => {
    const right = answers.expected(scene, question, world);
    return { ...answers.judge(answer, right, world), expected: right ?? null };
})"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page, and the records that it was built from."""
    target = tmp_path_factory.mktemp("page") / "page"
    try:
        return target, build_page.build(target, steps=STEPS, moments=3)
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))


@dataclass
class Opened:
    page: object
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(built, chromium):
    """Open a file of the page; nothing outside it is let through."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {
            **http.server.SimpleHTTPRequestHandler.extensions_map,
            ".js": "text/javascript",
            ".mjs": "text/javascript",
            ".wasm": "application/wasm",
        }

        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=built[0])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def start(name: str = "index.html", **options) -> Opened:
        opened = Opened(chromium.new_page(**options))

        def gate(route):
            if route.request.url.startswith((f"{address}/", "data:")):
                return route.continue_()
            opened.elsewhere.append(route.request.url)
            route.abort()

        opened.page.route("**/*", gate)
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on(
            "console",
            lambda message: (
                opened.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        opened.page.set_default_timeout(120_000)
        opened.page.goto(f"{address}/{name}")
        return opened

    yield start
    for context in chromium.contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def module_page(open_page):
    """A page with the modules alone, the models loaded; the page's own script rests."""
    opened = open_page("data/world.json")
    address = opened.page.url.removesuffix("data/world.json")
    opened.page.set_content(f'<base href="{address}">')
    opened.page.evaluate(START.replace("./${name}.js", address + "${name}.js"))
    return opened.page


def cases():
    """Scenes with signs on anything, and every kind of question, some of them typed carelessly."""
    rng = random.Random("the page")
    asked = [*facts.TEMPLATES * 3, *facts.QUESTIONS.values(), *facts.UNANSWERABLE]
    asked += ["what COLOUR is it", "Is the mug <b> made of clay???", "Who are you, and why?"]
    kinds = [*facts.kinds()] * 2
    return [(scene(kinds[n], "test", 0.5, rng), rng.choice(asked)) for n in range(PICTURES)]


def model_of(records, name: str):
    model = sl.load_model(page_records.settings("none", STEPS))
    if name != "before":
        load_adapter(model, records / name / "adapter")
    return model


def test_pictures_answers_and_verdicts_are_those_of_python(built, module_page, tmp_path):
    asked = cases()
    config = page_records.settings("none", STEPS)
    scenes = [one for one, _ in asked]
    for one, drawn in zip(scenes, module_page.evaluate(DRAWN, [*map(asdict, scenes)]), strict=True):
        off = [abs(a - b) for a, b in zip(drawn, draw(one).tobytes(), strict=True)]
        assert max(off) <= PIXELS_OFF, one

    paths, questions = page_records.pictures_of(scenes, tmp_path), [q for _, q in asked]
    sent = [(asdict(one), question) for one, question in asked]
    for name in ("before", *page_records.RUNS):
        here = module_page.evaluate(ANSWERS, [name, sent, {}])
        assert here == sl.generate(model_of(built[1], name), paths, questions, config), name

        judged = [[*one, answer] for one, answer in zip(sent, here, strict=True)]
        for (one, question), answer, found in zip(
            asked, here, module_page.evaluate(JUDGED, judged), strict=True
        ):
            expected = known_answer(one, question)
            assert found.pop("expected") == expected
            judgment = oracle(question, expected or "", answer)
            assert found.pop("right", None) == (None if expected is None else judgment.right)
            assert found == {flag: getattr(judgment, flag) for flag in found}


def known_answer(one, question):
    if question in facts.TEMPLATES:
        return facts.kinds()[one.kind].plan
    return dict(facts.ordinary(one).values()).get(question)


@pytest.mark.parametrize("name, of, kind", [("po-pd", "po-pd", "ablate"), ("before", "po", "add")])
def test_under_a_dose_it_says_what_python_says(built, module_page, tmp_path, name, of, kind):
    asked = cases()[:12]
    told = json.loads((built[1] / of / "record.json").read_text())
    direction, layer = torch.tensor(told["direction"]), told["layer"]
    if kind == "ablate":
        changed = functools.partial(hooks.ablated, direction=direction, dose=0.5)
        change = {"ablate": {"direction": told["direction"], "share": 0.5}}
    else:
        changed = functools.partial(hooks.added, direction=direction, layer=layer, dose=1.5)
        change = {"add": {"direction": told["direction"], "layer": layer, "dose": 1.5}}
    sent = [(asdict(one), facts.TEMPLATES[1]) for one, _ in asked]
    paths = page_records.pictures_of([one for one, _ in asked], tmp_path)
    model, config = model_of(built[1], name), page_records.settings("none", STEPS)
    with changed(model):
        there = sl.generate(model, paths, [facts.TEMPLATES[1]] * len(paths), config)
    assert module_page.evaluate(ANSWERS, [name, sent, change]) == there
    assert module_page.evaluate(ANSWERS, [name, sent, {}]) != there


def test_a_visitor_asks_watches_and_doses_by_keyboard(open_page):
    opened = open_page()
    page = opened.page
    said = page.locator("#said")
    page.wait_for_function("document.getElementById('said').textContent !== ''")
    assert said.inner_text().startswith("Before: ")  # a first answer without a click
    assert page.locator("#answers .badge").count() == 3

    page.locator("#question").fill("What colour is the object?")
    page.locator("#scene-colour").select_option("green")
    page.locator("#question").press("Enter")
    page.wait_for_function("document.getElementById('said').textContent.includes('green')")
    assert "Before: the object is green. – right." in said.inner_text()
    assert page.locator("article.answer.before ol li").count() == 5  # a token each, with its share

    page.locator("#question").fill("What colour is the gryphon?")
    page.locator("#question").press("Enter")
    assert "gryphon" in page.locator("#unknown-words").inner_text()

    page.locator("#tab-ask").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-film").is_visible() and page.locator("#panel-ask").is_hidden()
    page.locator("#moment").press("End")
    assert f"step {STEPS} of {STEPS}" in page.locator("#panel-film output").inner_text()
    assert page.locator("#panel-film svg[aria-label*=SARR]").count() == 1

    page.keyboard.press("Home")  # the slider has the focus, not the tabs
    assert page.locator("#panel-film").is_visible()
    page.locator("#tab-film").focus()
    page.keyboard.press("End")
    page.locator("#dose").press("End")
    page.wait_for_function(
        "document.querySelector('#panel-dose [role=status]').textContent.startsWith('Dose 1.00')"
    )
    assert opened.complaints == [] and opened.elsewhere == []


def test_every_tab_fits_a_phone(open_page):
    page = open_page("index.html#film", viewport={"width": 360, "height": 720}).page
    page.wait_for_selector("#loading", state="hidden")
    assert page.locator("#panel-film").is_visible()  # the address names a tab
    for tab in ("film", "dose", "ask"):
        page.locator(f"#tab-{tab}").click()
        assert page.locator(f"#panel-{tab}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_page_is_light_and_says_how_light(built):
    files = [path for path in built[0].rglob("*") if path.is_file()]
    weight = sum(len(gzip.compress(path.read_bytes())) for path in files)
    assert weight <= WEIGHT
    stated = f"({round(weight / 1e6)} MB)"
    assert stated in (built[0] / "index.html").read_text(encoding="utf-8")
