// A scene as a picture: the same shapes, offsets and pixels as `safeerase_lite/tinyworld/pictures.py`.

import { Canvas } from "./raster.js";
import { Random } from "./random.js";

export const SIDE = 48; // what the model sees
const OVERSAMPLE = 4;
const [DARK, LIGHT, BLACK] = [[40, 40, 46], [250, 250, 250], [15, 15, 18]];
const SPOTS = [[5, 5], [43, 5], [5, 43], [43, 43], [5, 24], [43, 24], [24, 4.5], [24, 43.5]];

/** RGB bytes of a scene, `side` × `side` pixels; `world` is `world.json`. */
export function draw(scene, world, side = SIDE) {
  const random = new Random(seedOf(scene));
  const scale = (side / SIDE) * OVERSAMPLE;
  const canvas = new Canvas(Math.round(SIDE * scale), varied(world.backgrounds[scene.background], random, 6));
  const radius = world.sizes[scene.size] * random.uniform(0.95, 1.05);
  const [x, y] = world.places[scene.place].map((at) => at + random.uniform(-1.5, 1.5));
  for (const place of dotPlaces(scene, world, random, x, y)) {
    const corners = [-2.2, 2.2].map((by) => place.map((at) => (at + by) * scale));
    const fill = world.colours[scene.dot_colour];
    canvas.ellipse(corners, { fill, outline: DARK, width: rounded(0.5 * scale) });
  }
  const fill = varied(world.colours[scene.colour], random, 10);
  drawShapes(canvas, world.shapes[scene.kind], x * scale, y * scale, radius * scale, fill);
  if (scene.sign) drawSign(canvas, x + 0.62 * radius, y - 0.62 * radius, scale);
  return canvas.reduced(OVERSAMPLE);
}

function drawShapes(canvas, shapes, x, y, unit, colour) {
  for (const [method, points, options] of shapes) {
    const corners = points.map(([px, py]) => [x + px * unit, y + py * unit]);
    const fill = { dark: DARK, light: LIGHT }[options.fill] ?? colour;
    const width = options.width && rounded(options.width * unit);
    canvas[method](corners, { ...options, fill, ...(width && { width }) });
  }
}

function dotPlaces(scene, world, random, x, y) {
  const reach = world.sizes[scene.size] + 5;
  const free = SPOTS.filter(([a, b]) => Math.max(Math.abs(a - x), Math.abs(b - y)) > reach);
  return random.sample(free, scene.dots).map((spot) => spot.map((at) => at + random.uniform(-1, 1)));
}

function drawSign(canvas, left, top, scale) {
  const [x, y, half] = [left * scale, top * scale, 3.2 * scale].map(rounded);
  canvas.rectangle([[x - half, y - half], [x + half, y + half]], { fill: LIGHT, outline: DARK });
  canvas.rectangle([[x - half, y - half], [x, y]], { fill: BLACK });
  canvas.rectangle([[x, y], [x + half, y + half]], { fill: BLACK });
}

function varied(colour, random, by) {
  const shift = random.integer(-by, by);
  return colour.map((channel) => Math.max(0, Math.min(255, channel + shift)));
}

/** A half goes to the even neighbour, as in Python. */
function rounded(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

/** What Python writes of a scene, which seeds its offsets. */
function seedOf(scene) {
  const names = ["kind", "colour", "place", "background", "size", "dots", "dot_colour", "sign", "jitter"];
  const written = { string: (v) => `'${v}'`, number: String, boolean: (v) => (v ? "True" : "False") };
  return `Scene(${names.map((name) => `${name}=${written[typeof scene[name]](scene[name])}`).join(", ")})`;
}
