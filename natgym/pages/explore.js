// Images being revealed, step by step, under two policies; the data lie in the panel as JSON.

const SIDES = ["left", "right"];
const THUMB = 96; // pixels at most; symbols are drawn twice as large as they are decoded
const PACE = 500; // milliseconds of a step

async function explore(panel) {
  const data = JSON.parse(panel.querySelector("script").textContent);
  const part = name => panel.querySelector(`[data-is="${name}"]`);
  const state = { left: 0, right: Math.min(1, data.policies.length - 1), step: 0, image: 0, shown: [] };
  const of = side => data.policies[state[side]];
  const last = () => Math.max(of("left").steps, of("right").steps);
  const [names, kinds] = [data.names, data.kinds].map(values => [...new Set(values)]);
  const alike = kinds.join("\n") === names.join("\n");
  const name_of = image => (names.length > 1 ? data.names[image] : `image ${image}`);

  await Promise.all(
    data.policies.map(policy => {
      policy.sprite = new Image();
      policy.sprite.src = policy.images;
      return policy.sprite.decode();
    }),
  );

  // By what images are sorted: names, and (image) -> a number or null; the largest stand first.

  function apart(of_token) {
    const [a, b] = SIDES.map(of);
    if (a.tokens[0].length !== b.tokens[0].length) return null;
    return image => mean(a.tokens[image].map((_, token) => of_token(a, b, image, token)));
  }

  function judged(name) {
    const [a, b] = SIDES.map(side => of(side).scores[name]);
    if (!a || !b) return [];
    const difference = image => (a[image] == null || b[image] == null ? null : a[image] - b[image]);
    const keys = { "left − right": difference, left: image => a[image], right: image => b[image] };
    return Object.entries(keys).flatMap(([which, key]) => [
      [`${name}, ${which} ↓`, key],
      [`${name}, ${which} ↑`, image => (key(image) == null ? null : -key(image))],
    ]);
  }

  function orders() {
    const pair = data.apart.find(one => one.pair.every(policy => SIDES.some(side => state[side] === policy)));
    const tokens = apart((a, b, image, token) => a.tokens[image][token] !== b.tokens[image][token]);
    const order = apart((a, b, image, token) =>
      Math.abs(a.revealed_at[image][token] - b.revealed_at[image][token]),
    );
    const known = [
      ["decisions differ", pair && (image => pair.values[image])],
      ["tokens differ", tokens],
      ["order differs", order],
      ...data.scores.flatMap(judged),
    ];
    return [["as drawn", null], ...known.filter(([, key]) => key)];
  }

  // The two images and what is known of them

  const COLORING = {
    "confidence √p": {
      share: (policy, token) => Math.sqrt(policy.confidence[state.image][token]),
      ends: () => ["p = 0", 1],
    },
    "step of reveal": {
      share: (policy, token) => policy.revealed_at[state.image][token] / Math.max(1, last() - 1),
      ends: () => ["step 1", last()],
    },
  };
  const coloring = () => COLORING[part("color").value];
  const shade = share => data.shades[Math.round(share * (data.shades.length - 1))];

  function draw_side(side) {
    const { image, step } = state;
    const policy = of(side);
    const figure = panel.querySelector(`figure.${side}`);
    const [picture, map] = figure.querySelectorAll("canvas");
    const large = policy.symbols ? Math.round(480 / policy.size[1]) : 1;
    [picture.height, picture.width] = policy.size.map(length => large * length);
    picture.classList.toggle("smooth", Boolean(policy.symbols) || picture.width > 128);
    paint(picture, policy, image, step, data.hidden);
    paint_map(map, policy, image, step, token => shade(coloring().share(policy, token)));
    const at = Math.min(step, policy.steps);
    const revealed = policy.revealed_at[image].filter(at => at < step).length;
    const told = [`${revealed} of ${policy.tokens[image].length} revealed`];
    told.push(`${at ? policy.passes[image][at - 1] : 0} passes`);
    const scores = data.scores.filter(name => policy.scores[name]?.[image] != null);
    const words = scores.map(name => `${name} ${short(policy.scores[name][image])}`);
    if (words.length) told.push(`finished: ${words.join(", ")}`);
    const caption = figure.querySelector("figcaption");
    caption.replaceChildren(element("b", policy.label), ...told.map(text => element("span", text)));
    picture.setAttribute("aria-label", `${policy.label}, step ${at} of ${policy.steps}: ${told[0]}`);
    map.setAttribute("aria-label", `${part("color").value}, of each token of ${policy.label}`);
  }

  function tell(event, side) {
    const policy = of(side);
    const [rows, columns] = policy.grid;
    const box = event.target.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const token = row * columns + column;
    const at = policy.revealed_at[state.image][token];
    if (at === undefined) return;
    const code = policy.tokens[state.image][token];
    const what = policy.symbols ? `symbol ${policy.symbols[code]}` : `code ${code}`;
    const how = at < 0 ? "given" : `step ${at + 1}, p = ${short(policy.confidence[state.image][token])}`;
    part("token").textContent = `row ${row + 1}, column ${column + 1}: ${what}, ${how}`;
  }

  function draw_parameter(chart, parameter) {
    const sides = Object.fromEntries(SIDES.map(side => [side, of(side)]));
    draw_chart(chart.querySelector("svg"), sides, parameter, state.image, state.step, last());
    for (const side of SIDES) {
      const value = of(side).parameters[parameter][state.image][state.step - 1];
      chart.querySelector(`b.${side}`).textContent = state.step ? short(value) : "";
    }
  }
  const draw_parameters = () => [...part("charts").children].forEach(draw_parameter);

  // All images

  const thumbs = data.names.map((name, image) => {
    const button = element("button", "", { type: "button", title: name, tabindex: "-1" });
    const caption = element("span");
    caption.append(element("em", name_of(image)), element("output"));
    button.append(element("canvas"), caption);
    button.addEventListener("click", () => {
      choose(image);
      part("pair").scrollIntoView({ block: "nearest" });
    });
    return button;
  });

  function draw_thumb(image) {
    const canvas = thumbs[image].firstChild;
    const sizes = SIDES.map(of).map(({ size, symbols }) => {
      const factor = symbols ? 2 : Math.min(1, THUMB / Math.max(...size));
      return size.map(length => Math.round(factor * length));
    });
    const [[high, wide], [height, width]] = sizes;
    canvas.width = wide + 2 * Math.ceil(wide / 24) + width;
    canvas.height = Math.max(high, height);
    paint(canvas, of("left"), image, state.step, data.hidden, [0, 0, wide, high]);
    paint(canvas, of("right"), image, state.step, data.hidden, [canvas.width - width, 0, width, height]);
  }

  function arrange() {
    const every = orders();
    const chosen = every.find(([name]) => name === part("order").value) || every[0];
    const [order, key] = chosen;
    part("order").replaceChildren(...every.map(one => new Option(one[0], one[0], false, one === chosen)));
    const [kind, wanted] = part("filter").value.split(/ (.*)/s);
    const wants = image => kind === "all" || (kind === "name" ? data.names : data.kinds)[image] === wanted;
    const keys = data.names.map((_, image) => (key ? key(image) : null));
    const worth = image => keys[image] ?? -Infinity;
    state.shown = [...keys.keys()].filter(wants);
    state.shown.sort((a, b) => (worth(a) === worth(b) ? a - b : worth(b) > worth(a) ? 1 : -1));
    thumbs.forEach((thumb, image) => {
      const value = order.endsWith("↑") && keys[image] != null ? -keys[image] : keys[image];
      thumb.querySelector("output").textContent = value == null ? "" : short(value);
    });
    part("gallery").replaceChildren(...state.shown.map(image => thumbs[image]));
    choose(state.shown[0]);
  }

  // What is chosen

  function draw() {
    const { image, step, shown } = state;
    const now = step ? `step ${step} of ${last()}` : `start of ${last()}`;
    const place = `row seed ${data.seed + image}, ${shown.indexOf(image) + 1} of ${shown.length}`;
    const [low, high] = coloring().ends();
    Object.assign(part("step"), { max: last(), value: step });
    part("step").setAttribute("aria-valuetext", now);
    part("now").textContent = now;
    const what = alike && names.length > 1 ? `class ${data.names[image]}` : name_of(image);
    part("which").replaceChildren(`${what} `, element("span", place));
    part("low").textContent = low;
    part("high").textContent = high;
    part("token").textContent = "";
    SIDES.forEach(draw_side);
    draw_parameters();
    shown.forEach(draw_thumb);
  }

  function choose(image) {
    for (const thumb of thumbs) {
      thumb.removeAttribute("aria-current");
      thumb.tabIndex = -1;
    }
    thumbs[image].setAttribute("aria-current", "true");
    thumbs[image].tabIndex = 0;
    state.image = image;
    draw();
  }

  function go(step) {
    state.step = Math.max(0, Math.min(last(), step));
    draw();
  }

  function move(by) {
    const place = state.shown.indexOf(state.image) + by;
    choose(state.shown[Math.max(0, Math.min(state.shown.length - 1, place))]);
    if (part("gallery").contains(document.activeElement)) thumbs[state.image].focus();
  }

  let playing = null;

  function play(on) {
    clearInterval(playing);
    playing = on ? setInterval(() => (state.step < last() ? go(state.step + 1) : play(false)), PACE) : null;
    if (on) go(state.step < last() ? state.step + 1 : 0);
    part("play").textContent = on ? "❚❚" : "▶";
    part("play").setAttribute("aria-label", on ? "pause" : "play");
  }

  // Keys, and a swipe over the images, which goes to another one

  const KEYS = {
    ArrowRight: () => go(state.step + 1),
    ArrowLeft: () => go(state.step - 1),
    Home: () => go(0),
    End: () => go(last()),
    j: () => move(1),
    k: () => move(-1),
    " ": () => play(!playing),
  };

  function press(event) {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    if (event.key === " " && event.target.closest(".time button, .which button, summary")) return;
    event.preventDefault();
    act();
  }

  let begun = [0, 0];
  part("pair").addEventListener("pointerdown", event => (begun = [event.clientX, event.clientY]));
  part("pair").addEventListener("pointerup", event => {
    const [x, y] = [event.clientX - begun[0], event.clientY - begun[1]];
    if (Math.abs(x) > 40 && Math.abs(x) > 2 * Math.abs(y)) move(x < 0 ? 1 : -1);
  });

  // The panel, filled

  for (const side of SIDES) {
    part(side).append(...data.policies.map(({ label }, place) => new Option(label, place)));
    part(side).value = state[side];
    part(side).addEventListener("change", () => {
      const { image } = state;
      state[side] = Number(part(side).value);
      state.step = Math.min(state.step, last());
      arrange();
      choose(image);
    });
    for (const kind of ["pointermove", "pointerdown"]) {
      panel.querySelector(`figure.${side} .map`).addEventListener(kind, event => tell(event, side));
    }
  }
  for (const [label, kind, values] of [
    ["kind", "kind", alike ? [] : kinds],
    [alike ? "class" : "text", "name", names],
  ]) {
    if (values.length < 2) continue;
    const group = element("optgroup", "", { label });
    group.append(...values.map(value => new Option(value, `${kind} ${value}`)));
    part("filter").append(group);
  }
  part("filter").prepend(new Option(`all ${data.names.length}`, "all "));
  part("filter").value = "all ";
  part("color").append(...Object.keys(COLORING).map(name => new Option(name, name)));
  part("charts").append(
    ...data.parameters.map(title => {
      const [chart, head, values] = [element("div"), element("h3"), element("span")];
      values.append(...SIDES.map(side => element("b", "", { class: side })));
      head.append(element("span", title), values);
      chart.append(head, drawn("svg", { role: "img", "aria-label": `${title} over the steps` }));
      return chart;
    }),
  );
  part("scale").width = data.shades.length;
  data.shades.forEach((color, place) => {
    const pen = part("scale").getContext("2d");
    pen.fillStyle = color;
    pen.fillRect(place, 0, 1, 1);
  });
  const given = policy => policy.revealed_at.some(row => row.some(at => at < 0));
  part("given").hidden = !data.policies.some(given);
  part("filter").addEventListener("change", arrange);
  part("order").addEventListener("change", arrange);
  part("color").addEventListener("change", draw);
  part("step").addEventListener("input", () => go(Number(part("step").value)));
  part("play").addEventListener("click", () => play(!playing));
  part("previous").addEventListener("click", () => move(-1));
  part("next").addEventListener("click", () => move(1));
  (panel.closest("main.alone") ? document : panel).addEventListener("keydown", press);
  state.step = last();
  arrange();
  new ResizeObserver(draw_parameters).observe(part("charts"));
  panel.dataset.ready = "true";
}

document.querySelectorAll("section.explore").forEach(explore);
