// How the panel draws: one image and its tokens on a canvas, one parameter as a chart.
"use strict";

const short = value => {
  if (value == null) return "–";
  return value && Math.abs(value) < 0.001 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
};
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below] + (place - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
}

function element(name, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(name), { textContent: text });
  Object.entries(attributes).forEach(pair => made.setAttribute(...pair));
  return made;
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(pair => made.setAttribute(...pair));
  made.textContent = text;
  return made;
}

// An image after some steps, into a box of a canvas: what is revealed, and one color over what is not.
function paint(canvas, policy, image, step, hidden, box = [0, 0, canvas.width, canvas.height]) {
  const pen = canvas.getContext("2d");
  const [x, y, width, height] = box;
  const [high, wide] = policy.size;
  const [rows, columns] = policy.grid;
  const left = wide * (image % policy.columns);
  const top = high * Math.floor(image / policy.columns);
  if (!policy.symbols) pen.drawImage(policy.sprite, left, top, wide, high, x, y, width, height);
  policy.revealed_at[image].forEach((at, token) => {
    const [row, column] = [Math.floor(token / columns), token % columns];
    const [x0, x1] = [column, column + 1].map(edge => x + Math.round((edge * width) / columns));
    const [y0, y1] = [row, row + 1].map(edge => y + Math.round((edge * height) / rows));
    pen.fillStyle = hidden;
    if (at >= step) pen.fillRect(x0, y0, x1 - x0, y1 - y0);
    else if (policy.symbols) paint_symbol(pen, policy, image, token, step, x0, y0, x1 - x0);
  });
  if (policy.symbols) paint_lines(pen, policy, box);
}

function paint_symbol(pen, policy, image, token, step, x, y, side) {
  const given = policy.revealed_at[image][token] < 0;
  const wrong = conflicts(policy, image, token, step);
  pen.fillStyle = wrong ? "#ffd9cc" : given ? "#dfe3e8" : "#fff";
  pen.fillRect(x, y, side, side);
  pen.fillStyle = wrong ? "#a01800" : "#111";
  pen.font = `${given ? "bold " : ""}${Math.round(side * 0.68)}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(policy.symbols[policy.tokens[image][token]], x + side / 2, y + side * 0.54);
}

// Whether a symbol stands a second time in its row, column or box, as far as the cells are revealed.
function conflicts(policy, image, token, step) {
  if (!policy.boxes) return false;
  const [high, wide] = policy.boxes;
  const places = at => {
    const [row, column] = [Math.floor(at / policy.grid[1]), at % policy.grid[1]];
    return [row, column, `${Math.floor(row / high)} ${Math.floor(column / wide)}`];
  };
  const ours = places(token);
  return policy.tokens[image].some((symbol, other) => {
    if (other === token || symbol !== policy.tokens[image][token]) return false;
    return policy.revealed_at[image][other] < step && places(other).some((place, at) => place === ours[at]);
  });
}

function paint_lines(pen, policy, [x, y, width, height]) {
  const [rows, columns] = policy.grid;
  const [high, wide] = policy.boxes || policy.grid;
  for (const strong of [false, true]) {
    pen.strokeStyle = strong ? "#444" : "#bbb";
    pen.lineWidth = Math.max(1, width / (strong ? 100 : 300));
    pen.beginPath();
    for (let row = 0; row <= rows; row++) {
      if (strong !== (row % high === 0)) continue;
      pen.moveTo(x, y + (row * height) / rows);
      pen.lineTo(x + width, y + (row * height) / rows);
    }
    for (let column = 0; column <= columns; column++) {
      if (strong !== (column % wide === 0)) continue;
      pen.moveTo(x + (column * width) / columns, y);
      pen.lineTo(x + (column * width) / columns, y + height);
    }
    pen.stroke();
  }
}

// The tokens of an image that are revealed after some steps, each in the color of (token).
function paint_map(canvas, policy, image, step, color) {
  const [rows, columns] = policy.grid;
  const side = Math.max(8, Math.round(480 / columns));
  const pen = canvas.getContext("2d");
  canvas.width = side * columns;
  canvas.height = side * rows;
  pen.lineWidth = Math.max(1, side / 24);
  policy.revealed_at[image].forEach((at, token) => {
    const [x, y] = [side * (token % columns), side * Math.floor(token / columns)];
    const frame = (ink, inset) => {
      pen.strokeStyle = ink;
      pen.strokeRect(x + inset, y + inset, side - 2 * inset, side - 2 * inset);
    };
    frame("#8886", 0);
    if (at >= step) return;
    if (at < 0) {
      pen.strokeStyle = "#888";
      pen.beginPath();
      pen.moveTo(x, y + side);
      pen.lineTo(x + side, y);
      pen.stroke();
      return;
    }
    pen.fillStyle = color(token);
    pen.fillRect(x, y, side, side);
    if (at !== Math.min(step, policy.steps) - 1) return;
    frame("#000", 1.5 * pen.lineWidth);
    frame("#fff", 2.5 * pen.lineWidth);
  });
}

// Mean and quantiles of a parameter at each step, over all images in which it decides something there.
function bands(policy, parameter) {
  policy.bands ??= [];
  policy.bands[parameter] ??= Array.from({ length: policy.steps }, (_, step) => {
    const values = policy.parameters[parameter].map(row => row[step]).filter(value => value != null);
    if (!values.length) return null;
    values.sort((a, b) => a - b);
    return { mean: mean(values), at: [0.05, 0.25, 0.75, 0.95].map(share => quantile(values, share)) };
  });
  return policy.bands[parameter];
}

// One image's parameter over the steps among those of all images; `sides` has a policy by its color's name.
function draw_chart(svg, sides, parameter, image, step, last) {
  const [width, height] = [svg.clientWidth || 240, svg.clientHeight || 120];
  const own = side => sides[side].parameters[parameter][image];
  const all = side => bands(sides[side], parameter);
  const ends = Object.keys(sides)
    .flatMap(side => [...own(side), ...all(side).flatMap(one => (one ? one.at : []))])
    .filter(value => value != null);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  if (!(high - low > 1e-9 * Math.abs(high))) [low, high] = [low - 0.5, high + 0.5];
  const x = at => 38 + (width - 46) * (last === 1 ? 0.5 : at / (last - 1));
  const y = value => 8 + ((height - 28) * (high - value)) / (high - low);
  const path = points => `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
  const known = values => values.flatMap((value, at) => (value == null ? [] : [[at, value]]));
  const label = (value, x, y, anchor) => drawn("text", { x, y, "text-anchor": anchor }, value);
  svg.replaceChildren(
    drawn("path", { class: "axis", d: `M38 8V${height - 20}H${width - 4}`, fill: "none" }),
    ...[low, high].map(value => label(short(value), 34, y(value) + 4, "end")),
    ...[...new Set([0, last - 1])].map(at => label(at + 1, x(at), height - 6, "middle")),
  );
  if (step) svg.append(drawn("path", { class: "here", d: `M${x(step - 1).toFixed(1)} 4V${height - 20}` }));
  for (const side of Object.keys(sides)) {
    const group = drawn("g", { class: side });
    const spread = known(all(side));
    const edge = end => spread.map(([at, one]) => [x(at), y(one.at[end])]);
    const points = known(own(side)).map(([at, value]) => [x(at), y(value)]);
    svg.append(group);
    if (!spread.length) continue;
    group.append(
      drawn("path", { class: "band", d: path([...edge(3), ...edge(0).reverse()]) }),
      drawn("path", { class: "band", d: path([...edge(2), ...edge(1).reverse()]) }),
      drawn("path", { class: "mean", d: path(spread.map(([at, one]) => [x(at), y(one.mean)])) }),
    );
    if (points.length) group.append(drawn("path", { class: "own", d: path(points) }));
    group.append(...points.map(([cx, cy]) => drawn("circle", { cx, cy, r: 2.6 })));
  }
}
