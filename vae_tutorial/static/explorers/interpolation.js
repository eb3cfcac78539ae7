// InterpolationExplorer: the straight line and the arc between the codes of two images, and what is decoded on them.

const FRAMES = 9, POINTS = 65;      // of a filmstrip, and of the line that shows the length
// Two directions are opposite where they add up to less: what float32, in which the codes come, leaves of zero.
const OPPOSITE = 16 * 2 ** -23;

const norm = (v) => Math.hypot(...v);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const scale = (v, factor) => v.map((value) => factor * value);
const add = (a, b) => a.map((value, i) => value + b[i]);

/** `v` at length 1, or zero where it is zero. */
function unit(v) {
  const length = norm(v);
  return length ? v.map((value) => value / length) : v;
}

/** The point at `t` of the straight line from `a` to `b`. */
const lerp = (a, b, t) => add(scale(a, 1 - t), scale(b, t));

/** The unit vector at a right angle to `start`, on the side of `end`; `start` and `end` have length 1. */
function sideways(start, end) {
  // where the two are opposite, any right angle will do: the axis that `start` has least of, made orthogonal
  const sizes = start.map(Math.abs), least = sizes.indexOf(Math.min(...sizes));
  let side = norm(add(start, end)) < OPPOSITE ? start.map((_, i) => (i === least ? 1 : 0)) : end;
  // the second pass removes what rounding left of `start` in the first
  for (let pass = 0; pass < 2; pass++) side = unit(add(side, scale(start, -dot(side, start))));
  return side;
}

/** The point at `t` of the arc from `a` to `b`: the direction turns at an even pace, the length changes evenly. */
function slerp(a, b, t) {
  const start = unit(norm(a) ? a : b), end = unit(norm(b) ? b : a);
  const angle = t * 2 * Math.atan2(norm(add(start, scale(end, -1))), norm(add(start, end)));
  const direction = add(scale(start, Math.cos(angle)), scale(sideways(start, end), Math.sin(angle)));
  return scale(direction, (1 - t) * norm(a) + t * norm(b));
}

/** The path of a line through points in steps of one filmstrip image, downward from the length `top`. */
const linePath = (lengths, top) => lengths.map((length, i) =>
  `${i ? "L" : "M"}${0.5 + i * (FRAMES - 1) / (lengths.length - 1)} ${1 - length / top}`).join("");

/** A little picture of the length of the code along a way, over that of an even change, with a mark at t. */
function lengthLine(model, at) {
  const even = svgElement("path", { class: "vae-even" }), actual = svgElement("path", { class: "vae-length" });
  const lines = svgElement("svg", { viewBox: `0 0 ${FRAMES} 1`, preserveAspectRatio: "none" }, even, actual);
  const mark = element("span", { class: "vae-mark" });
  const chart = element("div", { class: "vae-chart", role: "img" }, lines, mark);
  redraw(model, ["start", "end"], () => {
    const lengths = Array.from({ length: POINTS }, (_, i) => norm(at(i / (POINTS - 1))));
    const ends = [lengths[0], lengths.at(-1)], top = 1.1 * Math.max(...ends) || 1;
    even.setAttribute("d", linePath(ends, top));
    actual.setAttribute("d", linePath(lengths, top));
    const [start, middle, end] = [ends[0], lengths[(lengths.length - 1) / 2], ends[1]].map(decimals);
    chart.setAttribute("aria-label", `length of the code: ${start} at the start, ${middle} in the middle, ${end} at the end`);
  });
  redraw(model, ["t"], () => { mark.style.left = `${100 * (0.5 + (FRAMES - 1) * model.get("t")) / FRAMES}%`; });
  return chart;
}

/** Images along a way, each of which sets t when it is clicked. */
function filmstrip(model, name, at, { decode, shape }, signal) {
  const blank = new Float32Array(size(shape));
  const frames = Array.from({ length: FRAMES }, (_, i) => {
    const t = i / (FRAMES - 1), frame = imageButton(blank, shape, `${name} at t = ${t}`, () => assign(model, "t", t));
    frame.tabIndex = -1;      // keys have the slider for this
    return frame;
  });
  const draw = (i) => paint(frames[i].lastChild, decode(at(i / (FRAMES - 1))));
  redraw(model, ["start", "end"], inSlices(FRAMES, draw, signal));
  return element("div", { class: "vae-film" }, ...frames);
}

/** One way between the two codes, which the function `at` gives: the image at t, the length of its code, and all the walk. */
function way(model, name, text, at, decoder, signal) {
  const canvas = imageCanvas(decoder.shape, "");
  const length = element("output", { class: "vae-readout" }), ends = element("span", { class: "vae-ends" });
  redraw(model, ["start", "end", "t"], () => {
    const t = model.get("t");
    paint(canvas, decoder.decode(at(t)));
    canvas.setAttribute("aria-label", `image decoded on the way of ${name} at t = ${decimals(t)}`);
    length.textContent = `|z| = ${decimals(norm(at(t)))}`;
    ends.textContent = `from ${decimals(norm(at(0)))} to ${decimals(norm(at(1)))}`;
  });
  return element("section", { class: "vae-way", "aria-label": text, "data-way": name },
                 element("div", { class: "vae-title" }, heading(text), length, ends), canvas,
                 element("div", { class: "vae-walk" }, filmstrip(model, name, at, decoder, signal), lengthLine(model, at)));
}

/** The images, of which the reader picks one for trait `name`. */
function pickImage(model, images, shape, name, text) {
  const { canvases, parts } = picker(model, images.map((_, i) => `image ${i}`), shape, name, text);
  canvases.forEach((canvas, i) => paint(canvas, images[i]));
  return parts;
}

async function render({ model, el, signal }) {
  const decoder = await openDecoder(model), images = await unpackImages(model.get("images"), decoder.shape);
  const codes = unpackRows(model.get("codes"), model.get("codes").byteLength / 4 / images.length).map((code) => [...code]);
  const between = (path) => (t) => path(codes[model.get("start")], codes[model.get("end")], t);

  const slot = element("div", { class: "vae-control", "aria-label": "t, the place on the way" });
  const slider = await placeControl(model, model.get("slider"), slot, signal);
  model.on("change:t", link(slider, "value", () => model.get("t"), (value) => assign(model, "t", value), signal));
  el.append(frame("interpolation",
    element("div", { class: "vae-pickers" },
            ...pickImage(model, images, decoder.shape, "start", "From"), ...pickImage(model, images, decoder.shape, "end", "To")),
    slot,
    way(model, "lerp", "lerp, along the straight line", between(lerp), decoder, signal),
    way(model, "slerp", "slerp, along the arc", between(slerp), decoder, signal)));
}

export default { render: withSignal(render) };
