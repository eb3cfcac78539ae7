// ReparameterizationExplorer: noise that is carried to a sample, and what the sample and the KL ask of μ and σ.

/** What follows from μ, σ and ε: the sample, its log-density, the KL to the prior in nats, and the derivatives of sample and KL. */
function reparameterized({ mu, sigma, eps }) {
  return {
    z: mu + sigma * eps, zByMu: 1, zBySigma: eps,
    logDensity: -(eps * eps + Math.log(2 * Math.PI)) / 2 - Math.log(sigma),
    kl: (mu * mu + sigma * sigma - 1) / 2 - Math.log(sigma), klByMu: mu, klBySigma: sigma - 1 / sigma,
  };
}

// The drawing's size, and the heights at which its rows stand; both axes and all arrows have one scale.
const WIDTH = 400, HEIGHT = 352, NUMBERS = 346;
const ROWS = { eps: 70, zBySigma: 118, zByMu: 136, z: 172, mu: 294, sigma: 322 };

const density = (x, mu, sigma) => Math.exp(-(((x - mu) / sigma) ** 2) / 2) / (sigma * Math.sqrt(2 * Math.PI));

/** The shapes of the drawing; `at` tells where on the paper a number of the axes is. */
function draw(at, state) {
  const { mu, sigma, eps } = state, { z, zByMu, zBySigma, klByMu, klBySigma } = reparameterized(state);
  const line = (kind, x1, y1, x2, y2) => svgElement("line", { class: kind, x1: at(x1), y1, x2: at(x2), y2 });
  const label = (kind, y, words, side = {}) => svgElement("text", { class: kind, x: 3, y, ...side }, words);
  const free = Math.min(z, z + zBySigma) < -4 ? { x: WIDTH - 3, "text-anchor": "end" } : {};      // the side without arrows

  const bell = (kind, row, height, mu, sigma) => {
    const points = Array.from({ length: 101 }, (_, i) => mu + sigma * (i - 50) * 0.08);
    const path = points.map((x) => `${at(x).toFixed(2)},${(row + height * density(x, mu, sigma)).toFixed(2)}`);
    return svgElement("polyline", { class: kind, points: path.join(" ") });
  };
  const arrow = (kind, row, start, length) => {
    const from = at(start), to = at(start + length), head = Math.sign(length) * Math.min(7, Math.abs(to - from));
    return svgElement("path", { class: kind, d: `M${from},${row}H${to}m${-head},-4l${head},4l${-head},4` });
  };

  const ticks = [-6, -4, -2, 0, 2, 4, 6];
  // tall enough for both densities, and on one scale as long as q is not too narrow
  const scale = 104 / Math.max(0.8, density(mu, mu, sigma));
  return [
    ...ticks.map((n) => line("vae-grid", n, ROWS.eps, n, NUMBERS - 12)),
    ...ticks.map((n) => svgElement("text", { class: "vae-number", x: at(n), y: NUMBERS }, String(n).replace("-", "−"))),
    bell("vae-noise", ROWS.eps, -140, 0, 1),
    bell("vae-q", ROWS.z, scale, mu, sigma),
    bell("vae-prior", ROWS.z, scale, 0, 1),
    ...[-3, -2, -1, 0, 1, 2, 3].map((e) => line("vae-fan", e, ROWS.eps, mu + sigma * e, ROWS.z)),
    ...[ROWS.eps, ROWS.z].map((row) => svgElement("line", { class: "vae-axis", x1: 0, y1: row, x2: WIDTH, y2: row })),
    line("vae-guide", mu, ROWS.z, mu, ROWS.sigma),
    line("vae-guide", mu + sigma, ROWS.z, mu + sigma, ROWS.sigma),
    line("vae-span", mu, ROWS.sigma, mu + sigma, ROWS.sigma),
    line("vae-carried", eps, ROWS.eps, z, ROWS.z),
    line("vae-carried", z, ROWS.zBySigma, z, ROWS.z),
    arrow("vae-slope", ROWS.zByMu, z, zByMu),
    arrow("vae-slope", ROWS.zBySigma, z, zBySigma),
    arrow("vae-pull", ROWS.mu, mu, -klByMu),
    arrow("vae-pull", ROWS.sigma, mu + sigma, -klBySigma),
    label("vae-muted", ROWS.eps - 7, "ε from N(0, 1)"),
    label("vae-slope", ROWS.zBySigma + 4, "∂z/∂σ", free),
    label("vae-slope", ROWS.zByMu + 4, "∂z/∂μ", free),
    label("vae-muted", ROWS.z - 7, "sample z", free),
    label("vae-q", ROWS.z + 54, "q = N(μ, σ²)"),
    label("vae-muted", ROWS.z + 72, "prior N(0, 1)"),
    label("vae-pull", ROWS.mu + 5, "KL pulls μ"),
    label("vae-pull", ROWS.sigma + 5, "KL pulls σ"),
  ];
}

// What can be dragged: the trait that it sets, where it stands, and what the trait must be for it to stand at x.
const HANDLES = [
  { letter: "σ", trait: "sigma", row: ROWS.sigma, place: ({ mu, sigma }) => mu + sigma, value: (x, { mu }) => x - mu },
  { letter: "μ", trait: "mu", row: ROWS.mu, place: ({ mu }) => mu, value: (x) => x },
  { letter: "ε", trait: "eps", row: ROWS.eps, place: ({ eps }) => eps, value: (x) => x },
  { letter: "z", trait: "eps", row: ROWS.z, place: (state) => reparameterized(state).z, value: (x, { mu, sigma }) => (x - mu) / sigma },
];

/** A letter in the drawing that can be dragged along its row. */
function handle({ letter, trait, place, value }, read, toNumber, moveTo) {
  const shape = svgElement("g", { class: `vae-handle vae-${trait}`, "data-handle": letter },
                           svgElement("circle", { class: "vae-grip", r: 15 }), svgElement("circle", { r: 9 }),
                           svgElement("text", { y: 4 }, letter));
  let offset = 0;      // from the letter to the finger, so that it does not jump when it is taken
  shape.addEventListener("pointerdown", (event) => {
    shape.setPointerCapture(event.pointerId);
    offset = toNumber(event) - place(read());
  });
  shape.addEventListener("pointermove", (event) => {
    if (shape.hasPointerCapture(event.pointerId)) moveTo(trait, value(toNumber(event) - offset, read()));
  });
  return shape;
}

/** The numbers beside the drawing: what it is, what it is worth, and the colour that it has in the drawing. */
function numbers(state) {
  const { z, logDensity, zByMu, zBySigma, kl, klByMu, klBySigma } = reparameterized(state);
  return [
    ["z = μ + σε", decimals(z), "sample"], ["∂z/∂μ", decimals(zByMu), "slope"], ["∂z/∂σ = ε", decimals(zBySigma), "slope"],
    ["log q(z)", `${decimals(logDensity)} nats`, "q"], ["KL from q to the prior", `${decimals(kl)} nats`, "q"],
    ["−∂KL/∂μ = −μ", decimals(-klByMu), "pull"], ["−∂KL/∂σ = 1/σ − σ", decimals(-klBySigma), "pull"],
  ];
}

async function render({ model, el, signal }) {
  const names = ["mu", "sigma", "eps"];
  const slots = ["mean μ", "standard deviation σ", "noise ε"].map((label) => element("div", { class: "vae-control", "aria-label": label }));
  const controls = await Promise.all(slots.map((slot, i) => placeControl(model, model.get("sliders")[i], slot, signal)));
  const read = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));

  const [lowest, highest] = ["min", "max"].map((end) => controls.map((control) => control.get(end)));
  // in hundredths, as it is shown, so that the numbers can be checked by hand
  const moveTo = (name, value) => {
    const i = names.indexOf(name), rounded = Math.round(value * 100) / 100;
    assign(model, name, Math.min(highest[i], Math.max(lowest[i], rounded)));
  };
  names.forEach((name, i) => model.on(`change:${name}`,
    link(controls[i], "value", () => model.get(name), (value) => assign(model, name, value), signal)));

  const reach = highest[0] + highest[1] * highest[2] + 0.4;      // as far as a sample can go, with its letter
  const at = (number) => WIDTH / 2 * (1 + number / reach);
  const shapes = svgElement("g"), drawing = svgElement("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, shapes);
  const toNumber = (event) => {
    const { left, width } = drawing.getBoundingClientRect();
    return (2 * (event.clientX - left) / width - 1) * reach;
  };
  const handles = HANDLES.map((kind) => handle(kind, read, toNumber, moveTo));
  drawing.append(...handles);

  const list = element("dl");
  redraw(model, names, () => {
    const state = read();
    shapes.replaceChildren(...draw(at, state));
    HANDLES.forEach(({ row, place }, i) => handles[i].setAttribute("transform", `translate(${at(place(state))} ${row})`));
    const rows = numbers(state);
    list.replaceChildren(...rows.flatMap(([what, value, kind]) =>
      [element("dt", { class: `vae-${kind}` }, what), element("dd", {}, value)]));
    drawing.setAttribute("aria-label", `The noise ε = ${decimals(state.eps)} is carried to the sample. `
      + rows.map(([what, value]) => `${what}: ${value}`).join(". "));
  });
  el.append(frame("reparameterization", drawing, element("div", {}, ...slots,
    element("div", { class: "vae-buttons" }, button("New ε", () => moveTo("eps", gaussian()), { title: "a draw from N(0, 1)" })), list)));
}

export default { render: withSignal(render) };
