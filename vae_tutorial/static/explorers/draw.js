// DrawExplorer: a sheet to draw on; what the reader draws is made into an image as MNIST was, encoded, and decoded again.

const NEAREST = 10;      // digits shown

const signed = (value, digits = 3) => value.toFixed(digits).replace("-", "−");

// --- what there is to know of a drawing ---

/** Indices of the codes that lie nearest to a point, the nearest first. */
function nearestCodes(codes, point) {
  const far = codes.map((code) => Math.hypot(...code.map((value, axis) => value - point[axis])));
  return [...far.keys()].sort((i, j) => far[i] - far[j]).slice(0, NEAREST);
}

/** The function that tells all that is shown of strokes; undefined of those without ink. */
async function openModel(model) {
  const [encoder, decoder] = await Promise.all(["encoder", "decoder"].map(async (half) => (await dereference(model, model.get(half))).attributes));
  const encode = buildEncoder(encoder), logitsOf = buildNetwork({ ...decoder, layers: decoder.layers.slice(0, -1) }, [decoder.latent_dim]);
  const imageOf = buildNetwork({ layers: decoder.layers.slice(-1), weights: "" }, decoder.image_shape);
  const codes = unpackRows(model.get("codes"), decoder.latent_dim);
  return (strokes) => {
    const grey = centred(drawStrokes(strokes));
    if (!grey) return undefined;
    const image = Float32Array.from(grey, (value) => value / 255), answer = [...encode(image)];
    const mu = answer.slice(0, decoder.latent_dim), logvar = answer.slice(decoder.latent_dim), logits = logitsOf(mu);
    return { image, mu, sigma: logvar.map((value) => Math.exp(value / 2)), again: imageOf(logits).slice(),
             reconstruction: crossEntropy(logits, image), kl: divergence(mu, logvar), near: nearestCodes(codes, mu) };
  };
}

// --- what is shown of it: each part is an element and a function of what is known ---

/** The image that the model sees, and what it makes of it. */
function imagePair() {
  const shape = [1, SIDE, SIDE], blank = new Float32Array(SIDE * SIDE), seen = imageCanvas(shape, ""), again = imageCanvas(shape, "");
  const figure = (canvas, text) => element("figure", {}, canvas, element("figcaption", {}, text));
  const box = element("div", { class: "vae-seen" }, figure(seen, "what it sees"), figure(again, "what it makes of it"));
  return { box, show(found) {
    paint(seen, found?.image ?? blank);
    paint(again, found?.again ?? blank);
    seen.setAttribute("aria-label", found ? "your drawing, centred as the images of MNIST are" : "no drawing yet");
    again.setAttribute("aria-label", found ? "the reconstruction of your drawing" : "no reconstruction yet");
  } };
}

/** Both terms of the bound, and their sum among those of the test digits. */
function costs(model) {
  const known = [...unpackRows(model.get("costs"), 1)].map(([cost]) => cost), top = 1.15 * Math.max(...known);
  const values = ["reconstruction, at z = μ", "KL from the prior", "together"].map((name) => [element("dt", {}, name), element("dd", {})]);
  const place = (cost) => Math.min(99, 100 * cost / top);
  const ticks = known.map((cost) => svgElement("line", { x1: place(cost), x2: place(cost), y1: 4, y2: 12 }));
  const mark = element("span", { class: "vae-mark" });
  const rug = element("div", { class: "vae-rug" }, svgElement("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": true }, ...ticks), mark);
  const said = element("p", { class: "vae-kept" });
  const box = element("div", { class: "vae-costs" }, heading("What it costs"), element("dl", {}, ...values.flat()), rug, said);
  return { box, show(found) {
    const told = found ? [found.reconstruction, found.kl, found.reconstruction + found.kl] : [];
    values.forEach(([, value], i) => { value.textContent = found ? nats(told[i]) : "–"; });
    mark.hidden = !found;
    mark.style.left = `${place(told[2] ?? 0)}%`;
    const less = known.filter((cost) => cost < told[2]).length, share = less < known.length ? `${Math.floor(100 * less / known.length)} %` : "any";
    said.textContent = found ? `More than ${share} of the ${known.length} test digits (ticks)` : `Each tick is one of ${known.length} test digits.`;
  } };
}

/** The test digits whose codes lie nearest. */
async function nearestDigits(model) {
  const shape = [1, SIDE, SIDE], images = await unpackImages(model.get("images"), shape), blank = new Float32Array(SIDE * SIDE);
  const labels = bytes(model.get("point_labels")), names = model.get("class_names"), colors = model.get("class_colors");
  const canvases = Array.from({ length: Math.min(NEAREST, images.length) }, () => imageCanvas(shape)), captions = canvases.map(() => element("figcaption", {}));
  const row = element("div", { class: "vae-near", role: "img" }, ...canvases.map((canvas, i) => element("figure", {}, canvas, captions[i])));
  return { box: element("div", { class: "vae-kin" }, heading("The nearest test digits, by code"), row), names: (found) => found.near.map((i) => names[labels[i]]), show(found) {
    canvases.forEach((canvas, place) => {
      const i = found?.near[place];
      paint(canvas, images[i] ?? blank);
      captions[place].replaceChildren(...(found ? [element("span", { class: "vae-swatch", style: `background: ${colors[labels[i]]}` }), names[labels[i]]] : [" "]));
    });
    row.setAttribute("aria-label", found ? `the nearest test digits: ${found.near.map((i) => names[labels[i]]).join(", ")}` : "no drawing yet");
  } };
}

/** The codes of the test digits on the plane, and over them the posterior of the drawing. */
function posteriorPlane(model) {
  const reach = model.get("reach"), codes = unpackRows(model.get("codes"), 2), colors = model.get("class_colors");
  const canvas = element("canvas", { width: 720, height: 720 });
  const over = svgElement("svg", { viewBox: `${-reach} ${-reach} ${2 * reach} ${2 * reach}` });
  const box = element("div", { class: "vae-plane vae-codes", role: "img" }, canvas, over), readout = element("output", { class: "vae-readout" });
  drawPoints(canvas, codes, Array.from(bytes(model.get("point_labels")), (label) => colors[label]), reach, 6);
  return { box: element("div", { class: "vae-posterior" }, heading("The posterior, among the test digits"), box, readout, legend(model.get("class_names"), colors)), show(found) {
    over.replaceChildren();
    readout.textContent = found ? `μ = (${found.mu.map((m) => signed(m)).join(", ")}), σ = (${found.sigma.map((s) => signed(s)).join(", ")})` : "no drawing yet";
    box.setAttribute("aria-label", readout.textContent);
    if (!found) return;
    const [cx, y] = found.mu.map((m) => clamp(m, reach)), cy = -y;
    const lines = found.near.map((i) => svgElement("line", { x1: cx, y1: cy, x2: codes[i][0], y2: -codes[i][1] }));
    const rings = [2, 1].map((times) => svgElement("ellipse", { cx, cy, rx: times * found.sigma[0], ry: times * found.sigma[1] }));
    over.append(...lines, ...rings, svgElement("circle", { cx, cy, r: 0.028 * reach }));
  } };
}

const CHART = { left: 26, width: 334, height: 150 };

/** The posterior of many dimensions, in the order of the KL that they carry: a bar to μ, and σ around its end. */
function posteriorBars(model) {
  const order = model.get("order"), active = model.get("active"), reach = model.get("reach"), { left, width, height } = CHART;
  const up = (value) => height / 2 * (1 - clamp(value, reach) / reach), step = width / order.length, wide = 0.6 * step;
  const levels = [-2, 0, 2].flatMap((level) => [
    svgElement("line", { class: "vae-grid", x2: width, y1: up(level), y2: up(level) }),
    svgElement("text", { x: -5, y: up(level) + 4, "text-anchor": "end" }, String(level).replace("-", "−"))]);
  const band = svgElement("rect", { class: "vae-band", width, y: up(1), height: up(-1) - up(1) }), bars = svgElement("g");
  const origin = svgElement("g", { transform: `translate(${left} 0)` }, band, ...levels, bars);
  const chart = svgElement("svg", { class: "vae-bars", viewBox: `0 0 ${left + width} ${height}`, role: "img" }, origin);
  const text = `For each dimension, in the order of the KL, μ as a bar and ± σ around its end. The grey band is the prior’s ± σ.${
    active.every(Boolean) ? "" : " Pale dimensions are not active."}`;
  return { box: element("div", { class: "vae-posterior" }, heading("The posterior"), chart, element("p", { class: "vae-hint" }, text)), show(found) {
    const told = found ? order.map((d) => `z${d}: μ = ${signed(found.mu[d])}, σ = ${signed(found.sigma[d])}`) : [];
    chart.setAttribute("aria-label", found ? `the posterior. ${told.join("; ")}` : "no drawing yet");
    bars.replaceChildren(...(found ? order : []).map((d, i) => {
      const x = (i + 0.2) * step, mu = found.mu[d], sigma = found.sigma[d], [high, low] = [up(mu + sigma), up(mu - sigma)];
      return svgElement("g", { class: active[d] ? "" : "vae-dead" }, svgElement("title", {}, told[i]),
        svgElement("rect", { class: "vae-mean", x, width: wide, y: Math.min(up(0), up(mu)), height: Math.abs(up(0) - up(mu)) }),
        svgElement("rect", { class: "vae-sigma", x: x + 0.2 * step, width: 0.2 * step, y: high, height: low - high }),
        svgElement("rect", { class: "vae-sigma", x: x - 0.1 * step, width: 0.8 * step, y: up(mu) - 1.25, height: 2.5 }));
    }));
  } };
}

async function render({ model, el, signal }) {
  const know = await openModel(model), near = await nearestDigits(model), cost = costs(model), pair = imagePair();
  const plane = model.get("order").length === 2, posterior = plane ? posteriorPlane(model) : posteriorBars(model);
  const { spoken, say } = speaker(signal);
  const sheet = drawingSheet(model, (text) => say("pen", text));
  redraw(model, ["strokes"], () => {
    const found = know(model.get("strokes"));
    [pair, cost, near, posterior].forEach((part) => part.show(found));
    say("found", found ? `Nearest test digits ${near.names(found).join(", ")}. Reconstruction ${nats(found.reconstruction)}, KL ${nats(found.kl)}.` : "The sheet is empty.");
  });
  // two columns of about the same height; where there is room for one alone, the style sheet gives the order
  const [left, right] = plane ? [[near.box, cost.box], [pair.box, posterior.box]] : [[near.box], [pair.box, cost.box, posterior.box]];
  el.append(frame("draw", element("div", { class: "vae-column" }, sheet, ...left), element("div", { class: "vae-column" }, ...right), spoken));
}

export default { render: withSignal(render) };
