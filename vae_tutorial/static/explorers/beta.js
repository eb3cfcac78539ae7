// BetaExplorer: slide β across a sweep; samples, reconstructions and the point on the rate–distortion curve move together.

const PLOT = { left: 50, top: 8, width: 302, height: 236, right: 14, bottom: 38 };

/** Nats to a tenth; what is known of them goes no further. */
const short = (nats) => nats.toFixed(1);

/** From values to places between two ends, with room beyond the outermost; rate and distortion are never below 0. */
function scale(values, start, end) {
  const low = Math.min(...values), high = Math.max(...values), room = 0.1 * (high - low) || 1;
  const from = Math.max(0, low - room), to = high + room;
  return { from, to, place: (value) => start + (end - start) * (value - from) / (to - from) };
}

/** Round numbers between two others, six or so. */
function ticks(from, to) {
  const rough = (to - from) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough), first = Math.ceil(from / step);
  return Array.from({ length: Math.floor(to / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

/** Lines and numbers at round values, and what the two axes mean. */
function axes(x, y) {
  const { width, height } = PLOT;
  return [
    ...ticks(x.from, x.to).flatMap((value) => [
      svgElement("line", { class: "vae-grid", x1: x.place(value), x2: x.place(value), y2: height }),
      svgElement("text", { x: x.place(value), y: height + 16, "text-anchor": "middle" }, value)]),
    ...ticks(y.from, y.to).flatMap((value) => [
      svgElement("line", { class: "vae-grid", y1: y.place(value), y2: y.place(value), x2: width }),
      svgElement("text", { x: -6, y: y.place(value) + 4, "text-anchor": "end" }, value)]),
    svgElement("text", { x: width / 2, y: height + 33, "text-anchor": "middle" }, "rate: KL (nats per image)"),
    svgElement("text", { transform: `translate(-38 ${height / 2}) rotate(-90)`, "text-anchor": "middle" },
               "distortion (nats per image)")];
}

/** What the explorer knows of each β, from the lowest to the highest. */
const sweep = (model) => model.get("betas").map((beta, i) => {
  const rate = model.get("rates")[i], distortion = model.get("distortions")[i];
  return { beta, name: Number(beta.toPrecision(3)), rate, distortion, loss: rate + distortion };
});

/** A line over the whole plot, and a function that lays it through a point with a slope of so many nats lost a nat gained. */
function fallingLine(name, x, y) {
  const line = svgElement("line", { class: name });
  const through = ({ rate, distortion }, price) => [x.from, x.to].forEach((end, i) => {
    line.setAttribute(`x${i + 1}`, x.place(end));
    line.setAttribute(`y${i + 1}`, y.place(distortion - price * (end - rate)));
  });
  return { line, through };
}

/** The drawing round what is drawn in the coordinates of the plot. */
function plot(points, origin) {
  const { left, top, width, height, right, bottom } = PLOT;
  const told = points.map(({ name, rate, distortion }) => `β ${name}: rate ${short(rate)}, distortion ${short(distortion)}`);
  origin.setAttribute("transform", `translate(${left} ${top})`);
  return svgElement("svg", { class: "vae-plot", viewBox: `0 0 ${left + width + right} ${top + height + bottom}`, role: "img",
                             "aria-label": `Rate–distortion curve, nats per image. ${told.join("; ")}.` }, origin);
}

/** The rate–distortion curve, on which a click chooses the nearest point, and a function that shows which is chosen. */
function curve(points, best, choose) {
  const { width, height } = PLOT;
  const x = scale(points.map(({ rate }) => rate), 0, width), y = scale(points.map(({ distortion }) => distortion), height, 0);
  const places = points.map(({ rate, distortion }) => [x.place(rate), y.place(distortion)]);
  const equal = fallingLine("vae-equal", x, y), price = fallingLine("vae-price", x, y);
  const line = svgElement("polyline", { class: "vae-curve", points: places.join(" ") });
  const dots = places.map(([cx, cy]) => svgElement("circle", { class: "vae-dot", cx, cy }));
  const marks = places.map(([cx, cy], i) => svgElement("text", { class: "vae-mark", x: cx + 8, y: cy - 7 }, points[i].name));
  const inside = svgElement("svg", { width, height }, price.line, equal.line, line);      // cuts the lines off at its edges
  const origin = svgElement("g", {}, ...axes(x, y), inside, ...dots, ...marks), drawing = plot(points, origin);
  drawing.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(origin.getScreenCTM().inverse());
    const far = places.map(([cx, cy]) => Math.hypot(cx - at.x, cy - at.y));
    choose(far.indexOf(Math.min(...far)));
  });
  equal.through(best, 1);
  const show = (chosen) => {
    dots.forEach((dot, i) => {
      dot.classList.toggle("vae-chosen", i === chosen);
      dot.setAttribute("r", i === chosen ? 7 : 4);
    });
    price.through(points[chosen], points[chosen].beta);
  };
  return { drawing, show };
}

/** What the lines of the plot mean. */
function key(best) {
  const entry = (name, text) => element("li", {}, element("span", { class: `vae-stroke ${name}` }), text);
  const price = entry("vae-price", "");
  const equal = entry("vae-equal", `−ELBO ${short(best.loss)}, the lowest, at β = ${best.name}`);
  return { list: element("ul", { class: "vae-legend" }, equal, price), show: ({ name }) => { price.lastChild.data = `slope −β = −${name}, the price of rate`; } };
}

/** Canvases for images, and a function that paints them. */
function canvases(count, shape) {
  const made = Array.from({ length: count }, () => imageCanvas(shape));
  return { made, show: (images) => made.forEach((canvas, i) => paint(canvas, images[i])) };
}

/** Images that are told as one picture to those who do not see them, and a function that shows those of a β. */
async function samples(model, count) {
  const shape = model.get("image_shape"), images = await unpackImages(model.get("samples"), shape);
  const each = images.length / count, drawn = canvases(each, shape);
  const box = element("div", { class: "vae-thumbnails", role: "img" }, ...drawn.made);
  return { box, show: (row, name) => {
    drawn.show(images.slice(row * each, (row + 1) * each));
    box.setAttribute("aria-label", `${each} samples at β = ${name}, from the same draws at every β`);
  } };
}

/** The same for images, each above its reconstruction. */
async function reconstructions(model) {
  const shape = model.get("image_shape"), names = model.get("names"), each = names.length;
  const images = await unpackImages(model.get("reconstructions"), shape);
  const above = canvases(each, shape), below = canvases(each, shape);
  above.show(await unpackImages(model.get("originals"), shape));
  const pairs = names.map((title, i) => element("div", { title }, above.made[i], below.made[i]));
  const box = element("div", { class: "vae-thumbnails", role: "img" }, ...pairs);
  return { box, show: (row, name) => {
    below.show(images.slice(row * each, (row + 1) * each));
    box.setAttribute("aria-label", `Images of ${names.join(", ")}, and below each its reconstruction at β = ${name}`);
  } };
}

/** The numbers of a point. */
function figures({ name, rate, distortion, loss }) {
  const told = { rate, distortion, "−ELBO": loss };
  const texts = Object.entries(told).map(([what, value]) => [what, `${short(value)} nats`]);
  return [["β", name], ...texts].map(([what, value]) => element("span", {}, `${what} `, element("b", {}, value)));
}

async function render({ model, el, signal }) {
  const points = sweep(model), best = points.reduce((a, b) => (a.loss <= b.loss ? a : b));
  const position = () => model.get("betas").indexOf(model.get("beta"));
  const choose = (index) => assign(model, "beta", points[index].beta);

  const slot = element("div", { class: "vae-control", "aria-label": "β, the price of rate" });
  const slider = await placeControl(model, model.get("slider"), slot, signal), handle = slot.querySelector("[role=slider]");
  model.on("change:beta", link(slider, "index", position, choose, signal));
  const readout = element("output", { class: "vae-readout vae-figures" });
  const { drawing, show } = curve(points, best, choose), legend = key(best);
  const [drawn, pairs] = await Promise.all([samples(model, points.length), reconstructions(model)]);

  redraw(model, ["beta"], () => {
    const chosen = position(), point = points[chosen];
    handle.setAttribute("aria-valuetext", `β = ${point.name}`);      // by itself it tells its position
    readout.replaceChildren(...figures(point));
    show(chosen);
    [drawn, pairs].forEach((images) => images.show(chosen, point.name));
    legend.show(point);
  });
  el.append(frame("beta",
    element("div", {}, slot, readout, drawing, legend.list),
    element("div", {}, element("div", {}, heading("Test images and their reconstructions"), pairs.box),
                       element("div", {}, heading("Samples from the same draws of z"), drawn.box))));
}

export default { render: withSignal(render) };
