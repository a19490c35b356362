// A line chart of shares, 0 to 100%, as SVG: lines told apart by colour, dash and a name at their end.

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [360, 210, 42, 78, 10, 34];

/** lines: [{name, look, points: [[x, share, low?, high?]]}].  ticks: numbers on the x axis.
 * Returns {figure, mark(x)}; `mark` draws where one is. */
export function lineChart({ title, lines, ticks, label, alt, format = String }) {
  const xs = lines.flatMap(({ points }) => points.map(([x]) => x));
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const x = (value) => LEFT + ((WIDTH - LEFT - RIGHT) * (value - first)) / (last - first);
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": alt });
  for (const share of [0, 0.5, 1]) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share) }));
    root.append(svg("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`));
  }
  for (const tick of ticks) root.append(svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, format(tick)));
  root.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, label));
  const ends = spread(lines.map(({ points }) => y(points.at(-1)[1])));
  lines.forEach(({ name, look, points }, n) => {
    if (points[0].length > 2) {
      const edge = [...points.map(([at, , , high]) => [at, high]), ...[...points].reverse().map(([at, , low]) => [at, low])];
      root.append(svg("polygon", { class: `band ${look}-band`, points: edge.map(([at, share]) => `${x(at)},${y(share)}`).join(" ") }));
    }
    root.append(svg("polyline", { class: `series ${look}-line`, points: points.map(([at, share]) => `${x(at)},${y(share)}`).join(" ") }));
    root.append(svg("text", { class: `${look}-name`, x: WIDTH - RIGHT + 6, y: ends[n] + 4 }, name));
  });
  const now = svg("line", { class: "now", y1: TOP, y2: HEIGHT - BOTTOM, x1: LEFT, x2: LEFT });
  root.append(now);
  const figure = document.createElement("figure");
  figure.className = "chart";
  const heading = document.createElement("h3");
  heading.textContent = title;
  figure.append(heading, root);
  return {
    figure,
    mark: (value) => ["x1", "x2"].forEach((name) => now.setAttribute(name, x(Math.min(last, Math.max(first, value))))),
  };
}

/** Heights of names, moved apart where they would cover each other. */
function spread(heights) {
  const order = heights.map((height, n) => [height, n]).sort((one, other) => one[0] - other[0]);
  for (let i = 1; i < order.length; i++) order[i][0] = Math.max(order[i][0], order[i - 1][0] + 14);
  const over = Math.max(0, (order.at(-1)?.[0] ?? 0) - (HEIGHT - BOTTOM));
  const out = [];
  for (const [height, n] of order) out[n] = height - over;
  return out;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
