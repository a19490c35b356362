// Shapes as pixels by the rules of Pillow's ImageDraw, so that a picture has the same pixels here as
// in Python: corners are cut to whole pixels, edges and curves are decided on the grid, row by row.

const f32 = Math.fround;
const RADIANS = Math.PI / 180;
const awayFromZero = (x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
const halfUp = (x) => Math.sign(x) * Math.floor(f32(Math.abs(x) + 0.5));
const halfDown = (x) => Math.sign(x) * Math.ceil(f32(Math.abs(x) - 0.5));
const whole = (points) => points.map((point) => point.map(Math.trunc));

/** A square of pixels; `ink`, a number from 0 to 255, says which colour of `palette` each has. */
export class Canvas {
  constructor(side, background) {
    this.side = side;
    this.palette = [background];
    this.pixels = new Uint8Array(side * side);
  }

  ink(colour) {
    return this.palette.push(colour) - 1;
  }

  row(x0, y, x1, ink) {
    if (y < 0 || y >= this.side || x1 < 0 || x0 >= this.side) return;
    const start = y * this.side;
    this.pixels.fill(ink, start + Math.max(0, x0), start + Math.min(this.side - 1, x1) + 1);
  }

  rectangle(corners, { fill, outline }) {
    const [[x0, y0], [x1, y1]] = whole(corners);
    const ink = this.ink(fill);
    for (let y = y0; y <= y1; y++) this.row(x0, y, x1, ink);
    if (!outline) return;
    const border = this.ink(outline);
    for (let y = y0; y <= y1; y++) {
      for (const [from, to] of y === y0 || y === y1 ? [[x0, x1]] : [[x0, x0], [x1, x1]]) {
        this.row(from, y, to, border);
      }
    }
  }

  polygon(points, { fill }) {
    fillPolygon(this, whole(points), this.ink(fill));
  }

  line(points, { fill, width, joint }) {
    const ink = this.ink(fill);
    for (let i = 0; i + 1 < points.length; i++) {
      wideLine(this, ...whole(points.slice(i, i + 2)), width, ink);
    }
    if (joint !== "curve" || width <= 4) return;
    for (let i = 1; i + 1 < points.length; i++) this.roundJoint(points.slice(i - 1, i + 2), fill, width);
  }

  roundJoint([before, point, after], fill, width) {
    const headings = [[before, point], [point, after]].map(([start, end]) => {
      const degrees = Math.atan2(end[0] - start[0], start[1] - end[1]) / RADIANS;
      return ((degrees % 360) + 360) % 360;
    });
    const [first, second] = headings;
    if (first === second) return;
    const left = (second > first && second - 180 > first) || (second < first && second + 180 > first);
    const reach = width / 2 - 1;
    const corners = [point.map((at) => at - reach), point.map((at) => at + reach)];
    const [start, end] = left ? [second + 90, first + 90] : [first - 90, second - 90];
    this.pieslice(corners, { start: start - 90, end: end - 90, fill });
    if (width <= 8) return;
    const beside = (heading) => {
      const angle = (heading + (left ? 90 : -90) - 90) * RADIANS;
      return [Math.cos(angle), Math.sin(angle)].map((at, n) => point[n] + Math.trunc(reach * at));
    };
    this.line([beside(first), point, beside(second)], { fill, width: 3 });
  }

  ellipse(corners, { fill, outline, width = 1 }) {
    if (fill) this.curve(corners, Infinity, null, this.ink(fill));
    if (outline) this.curve(corners, width, null, this.ink(outline));
  }

  arc(corners, { start, end, width, fill }) {
    const angles = normalised(start, end);
    const turn = angles[1] - angles[0];
    if (turn) this.curve(corners, width, turn === 360 ? null : arcClip(angles), this.ink(fill));
  }

  pieslice(corners, { start, end, fill }) {
    const angles = normalised(start, end);
    const turn = angles[1] - angles[0];
    if (turn) this.curve(corners, Infinity, turn === 360 ? null : pieClip(angles), this.ink(fill));
  }

  /** An ellipse in a box, of a width from its edge inwards; `clip`: of axes, what is left of it. */
  curve(corners, width, clip, ink) {
    const [[x0, y0], [x1, y1]] = whole(corners);
    const [a, b] = [x1 - x0, y1 - y0];
    if (a < 0 || b < 0) return;
    const kept = clip?.(a, b);
    for (const [left, y, right] of ellipseRows(a, b, width)) {
      for (const [from, to] of kept ? clipped(kept, y, [left, right]) : [[left, right]]) {
        const pixel = (at, origin, axis) => origin + Math.trunc((at + axis) / 2);
        this.row(pixel(from, x0, a), pixel(y, y0, b), pixel(to, x0, a), ink);
      }
    }
  }

  /** Each square of `by` × `by` pixels as one, its mean: RGB bytes, row by row. */
  reduced(by) {
    const side = this.side / by;
    const rounded = (sum) => Math.floor(sum / by + 0.5);
    const across = new Uint8Array(this.side * side * 3); // rows first: each pass rounds, as Pillow's
    const out = new Uint8Array(side * side * 3);
    for (let y = 0; y < this.side; y++) {
      for (let x = 0; x < side; x++) {
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let k = 0; k < by; k++) sum += this.palette[this.pixels[y * this.side + x * by + k]][c];
          across[(y * side + x) * 3 + c] = rounded(sum);
        }
      }
    }
    for (let y = 0; y < side; y++) {
      for (let at = 0; at < side * 3; at++) {
        let sum = 0;
        for (let k = 0; k < by; k++) sum += across[(y * by + k) * side * 3 + at];
        out[y * side * 3 + at] = rounded(sum);
      }
    }
    return out;
  }
}

// ---- polygons ----

function fillPolygon(canvas, points, ink) {
  const edges = edgesOf(points);
  for (const { y0, y1, left, right } of edges) if (y0 === y1) canvas.row(left, y0, right, ink);
  const sloped = edges.filter(({ y0, y1 }) => y0 !== y1);
  const last = Math.min(canvas.side, Math.max(0, ...edges.map((edge) => edge.bottom)));
  for (let y = Math.max(0, Math.min(...edges.map((edge) => edge.top))); y <= last; y++) {
    const crossings = [];
    sloped.forEach((edge, n) => {
      if (y < edge.top || y > edge.bottom) return;
      const x = xAt(edge, y);
      if (y === edge.bottom && y < last) crossings.push(x, x); // its successor may begin here
      else crossings.push(atCorner(edge, y) ? joined(edge, sloped.slice(0, n), x, y) : x);
    });
    crossings.sort((first, second) => first - second);
    for (let i = 1; i < crossings.length; i += 2) {
      canvas.row(halfUp(crossings[i - 1]), y, halfDown(crossings[i]), ink);
    }
  }
}

/** The polygon's edges; of level ones in a row that go on the same way, one. */
function edgesOf(points) {
  const edges = [];
  const closed = String(points[0]) === String(points.at(-1)) ? points : [...points, points[0]];
  for (let i = 1; i < closed.length; i++) {
    const [[x0, y0], [x1, y1]] = [closed[i - 1], closed[i]];
    const before = closed[i - 2];
    if (before && i < points.length && y0 === y1 && y0 === before[1]) {
      const last = edges.at(-1);
      if (x1 > x0 && x0 > before[0]) {
        last.right = x1;
        continue;
      }
      if (x1 < x0 && x0 < before[0]) {
        last.left = x1;
        continue;
      }
    }
    const slope = y0 === y1 ? 0 : f32((x1 - x0) / (y1 - y0));
    const [left, right, top, bottom] = [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)];
    edges.push({ x0, y0, y1, left, right, top, bottom, slope });
  }
  return edges;
}

const xAt = (edge, y) => f32(f32((y - edge.y0) * edge.slope) + edge.x0);
const atCorner = (edge, y) => (y === edge.top || y === edge.bottom) && edge.slope !== 0;

/** Where a row crosses an edge's end, drawn towards the next row where two flat edges meet there:
 * a sharp corner would come apart otherwise. */
function joined(edge, others, x, y) {
  const next = y === edge.bottom ? y - 1 : y + 1;
  const reached = (other) => next >= other.top && next <= other.bottom;
  const meets = (other) => atCorner(other, y) && awayFromZero(x) === awayFromZero(xAt(other, y));
  const other = others.find((one) => meets(one) && reached(one));
  if (!other) return x;
  const both = [xAt(edge, next), xAt(other, next)];
  if (both.every((at) => x > at + 1)) return awayFromZero(Math.max(...both)) + 1;
  if (both.every((at) => x < at - 1)) return awayFromZero(Math.min(...both)) - 1;
  return x;
}

function wideLine(canvas, [x0, y0], [x1, y1], width, ink) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  if (!dx && !dy) return canvas.row(x0, y0, x0, ink);
  const length = Math.hypot(dx, dy);
  const [most, least] = [halfUp((width - 1) / 2) / length, halfDown((width - 1) / 2) / length];
  const [right, left] = [halfDown(most * dy), halfDown(least * dy)];
  const [below, above] = [halfDown(most * dx), halfDown(least * dx)];
  const corners = [[x0 - left, y0 + below], [x1 - left, y1 + below], [x1 + right, y1 - above], [x0 + right, y0 - above]];
  return fillPolygon(canvas, corners, ink);
}

// ---- ellipses, about (0, 0) with axes a and b, on a grid of step 2 ----

/** The points of a quarter that are nearest to the curve, from the right to the bottom. */
function quarter(a, b) {
  if (a < 0 || b < 0) return [];
  const off = (x, y) => Math.abs(a * a * y * y + b * b * x * x - a * a * b * b);
  const points = [[a, b % 2]];
  for (let [x, y] = points[0]; x !== a % 2 || y !== b; points.push([x, y])) {
    const steps = x > 1 ? [[x, y + 2], [x - 2, y + 2], [x - 2, y]] : [[x, y + 2]];
    [x, y] = steps.reduce((best, step) => (off(...step) < off(...best) ? step : best));
  }
  return points;
}

/** [left, y, right] of every row of an ellipse, two to a row where it is hollow or joined. */
function* ellipseRows(a, b, width) {
  const [outer, inner] = [new Map(), new Map()];
  for (const [x, y] of quarter(a, b)) if (!outer.has(y)) outer.set(y, x);
  for (const [x, y] of quarter(a - 2 * (width - 1), b - 2 * (width - 1))) inner.set(y, x);
  for (const [y, right] of outer) {
    const left = inner.get(y) ?? a % 2;
    for (const at of y ? [y, -y] : [0]) {
      yield [-right, at, -left];
      if (left > 0 || left < right) yield [left || 2, at, right];
    }
  }
}

// ---- what is left of an ellipse: half-planes a x + b y + c ≥ 0, and pairs of them ----

const half = (a, b, c = 0) => ({ a, b, c });
const both = (...parts) => ({ every: true, parts });
const either = (...parts) => ({ every: false, parts });

/** A start from 0 up to 360, and an end up to a turn later. */
function normalised(start, end) {
  [start, end] = [f32(start), f32(end)];
  if (end - start >= 360) return [0, 360];
  start = f32((start < 0 ? 360 - (-start % 360) : start) % 360);
  return [start, f32(start + f32((end < start ? 360 - ((start - end) % 360) : end - start) % 360))];
}

const arcClip = (angles) => (a, b) => {
  if (a >= b) return arcPlanes(a, b, ...angles);
  const [start, end] = angles; // the same, seen in a mirror
  return mirrored(arcPlanes(b, a, ...normalised(90 - end, 90 - start)));
};

const mirrored = (node) =>
  node.parts ? { ...node, parts: node.parts.map(mirrored) } : half(node.b, node.a, node.c);

/** Ends at right angles to the curve. */
function arcPlanes(a, b, start, end) {
  const [from, to] = [start * RADIANS, end * RADIANS];
  const first = half(-a * Math.sin(from), b * Math.cos(from), ((a * a - b * b) * Math.sin(2 * from)) / 2);
  const last = half(a * Math.sin(to), -b * Math.cos(to), ((b * b - a * a) * Math.sin(2 * to)) / 2);
  const combined = end - start < 180 ? both : either;
  if (start % 180 === 0 || end % 180 === 0) return combined(first, last);
  const turns = [start, end].map((angle) => Math.trunc(angle / 180));
  if ((turns[0] + turns[1]) % 2 === 0) {
    return combined(combined(first, last), half(0, end < 180 || end > 540 ? 1 : -1));
  }
  const [firstHalf, lastHalf] = turns.map((turn) => half(0, turn % 2 === 0 ? 1 : -1));
  return either(both(firstHalf, first), both(lastHalf, last));
}

const pieClip = ([start, end]) => (a, b) => {
  const [[xl, yl], [xr, yr]] = [start, end].map((angle) => [a * Math.cos(angle * RADIANS), b * Math.sin(angle * RADIANS)]);
  const sides = (end - start < 180 ? both : either)(half(-yl, xl), half(yr, -xr));
  return end - start < 90 ? both(sides, half((xl + xr) / 2, (yl + yr) / 2)) : sides;
};

/** The parts of a row's segment that are left, in order. */
function clipped(node, y, segment) {
  if (node.parts) {
    const [first, second] = node.parts.map((part) => clipped(part, y, segment));
    return node.every ? shared(first, second) : merged([...first, ...second]);
  }
  let [left, right] = segment;
  const { a, b, c } = node;
  if (Math.abs(a) < 1e-9) return b * y + c < -1e-9 ? [] : [segment];
  const crossing = -(b * y + c) / a;
  if (a * left + b * y + c < 1e-9) left = awayFromZero(Math.max(left, crossing));
  if (a * right + b * y + c < 1e-9) right = awayFromZero(Math.min(right, crossing));
  return left <= right ? [[left, right]] : [];
}

function shared(first, second) {
  const pairs = first.flatMap((one) => second.map((two) => [Math.max(one[0], two[0]), Math.min(one[1], two[1])]));
  return pairs.filter(([left, right]) => left <= right);
}

function merged(segments) {
  const out = [];
  for (const [left, right] of segments.sort((one, two) => one[0] - two[0])) {
    const last = out.at(-1);
    if (last && left <= last[1]) last[1] = Math.max(last[1], right);
    else out.push([left, right]);
  }
  return out;
}
