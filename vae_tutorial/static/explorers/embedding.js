// EmbeddingExplorer: maps of encoded images; the point under the reader's hand shows its image and what the decoder makes of it.

const HINT = "Point at a dot, or press the arrow keys. A click holds the dot, until the next click.";
const REACH = 1.06;          // of the plot: maps reach from -1 to 1
const GRASP = 24;            // pixels of the screen at which a dot is still pointed at
const NEIGHBOURS = 10;       // that are compared
const GLIDE = 700;           // milliseconds from one map to the next

const distance = (a, b) => Math.hypot(...a.map((value, axis) => value - b[axis]));

/** The candidate that costs least; undefined where there is none. */
function cheapest(candidates, cost) {
  const costs = candidates.map(cost);
  return candidates[costs.indexOf(Math.min(...costs))];
}

/** Indices of the points nearest to one of them. */
function neighbours(points, chosen) {
  const far = points.map((point) => distance(point, points[chosen]));
  const others = points.map((_, i) => i).filter((i) => i !== chosen);
  return others.sort((i, j) => far[i] - far[j]).slice(0, NEIGHBOURS);
}

/** The candidate that lies next in a direction, rather ahead than aside. */
function nextTowards(places, [x, y], [right, up], candidates) {
  const ahead = (i) => (places[i][0] - x) * right + (places[i][1] - y) * up;
  const aside = (i) => Math.abs((places[i][0] - x) * up) + Math.abs((places[i][1] - y) * right);
  return cheapest(candidates.filter((i) => ahead(i) > 0), (i) => ahead(i) + 3 * aside(i));
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** Hand places between two maps to `draw`, frame by frame; those who asked for less motion get the second map at once. */
function glide(from, to, draw, stopped) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const start = performance.now();
  const step = (now) => {
    if (stopped()) return;
    const time = Math.min(1, Math.max(0, now - start) / GLIDE), share = time * time * (3 - 2 * time);
    draw(time < 1 ? from.map((place, i) => place.map((value, axis) => value + share * (to[i][axis] - value))) : to);
    if (time < 1) requestAnimationFrame(step);
  };
  if (still) draw(to);
  else requestAnimationFrame(step);
}

/** What a map and its marks are drawn with: positions in pixels of a canvas. */
const toPixel = (canvas, [x, y]) => [canvas.width / 2 * (1 + x / REACH), canvas.width / 2 * (1 - y / REACH)];

/** Write the name of each class at the median of its points. */
function nameClasses(canvas, places, labels, names, classes) {
  const context = canvas.getContext("2d");
  Object.assign(context, { font: "bold 26px system-ui, sans-serif", textAlign: "center", textBaseline: "middle",
                           lineJoin: "round", lineWidth: 6, strokeStyle: "#fff", fillStyle: "#000" });
  for (const label of classes) {
    const own = places.filter((_, i) => labels[i] === label);
    if (!own.length) continue;
    const at = toPixel(canvas, [0, 1].map((axis) => median(own.map((place) => place[axis]))));
    context.strokeText(names[label], ...at);
    context.fillText(names[label], ...at);
  }
}

/** A ring around the chosen dot, thicker while it is held, and lines to its neighbours. */
function mark(canvas, place, others, held) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!place) return;
  const at = toPixel(canvas, place);
  const draw = (width, color, trace) => {
    Object.assign(context, { lineWidth: width, strokeStyle: color });
    context.beginPath();
    trace();
    context.stroke();
  };
  const ring = () => context.arc(...at, 13, 0, 7);
  draw(2, "#000a", () => others.forEach((other) => { context.moveTo(...at); context.lineTo(...toPixel(canvas, other)); }));
  draw(held ? 10 : 7, "#fff", ring);
  draw(held ? 6 : 3, "#000", ring);
}

/** The map: a dot for each image of the classes shown. `kin` are the chosen image's neighbours in the latent space. */
function embeddingMap(model, { maps, labels, kin }, signal) {
  const dots = element("canvas", { width: 720, height: 720 }), marks = element("canvas", { width: 720, height: 720 });
  const plot = element("div", { class: "vae-plane", tabindex: 0, role: "application", "aria-label": `Map of the encoded images. ${HINT}` },
                       dots, marks);
  const names = model.get("class_names"), colors = model.get("class_colors");
  const shown = () => Array.from(labels.keys()).filter((i) => model.get("classes").includes(labels[i]));
  let places = maps[model.get("map")].map((place) => [...place]);

  const drawMarks = () => {
    const visible = kin().filter((i) => model.get("classes").includes(labels[i]));
    mark(marks, places[model.get("point")], visible.map((i) => places[i]), model.get("held"));
  };
  const drawDots = () => {
    const visible = shown();
    drawPoints(dots, visible.map((i) => places[i]), visible.map((i) => colors[labels[i]]), REACH, 6);
    nameClasses(dots, places, labels, names, model.get("classes"));
  };
  const draw = () => { drawDots(); drawMarks(); };

  const choose = (i) => { if (i !== undefined && i !== model.get("point")) assign(model, "point", i); };
  const pointedAt = ({ clientX, clientY }) => {
    const { left, top, width } = plot.getBoundingClientRect(), unit = 2 * REACH / width;
    const at = [(clientX - left) * unit - REACH, REACH - (clientY - top) * unit];
    const found = cheapest(shown(), (i) => distance(places[i], at));
    return found !== undefined && distance(places[found], at) <= GRASP * unit ? found : undefined;
  };
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    const found = pointedAt(event), letGo = found === undefined || (model.get("held") && found === model.get("point"));
    choose(found);
    assign(model, "held", !letGo);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!model.get("held") || plot.hasPointerCapture(event.pointerId)) choose(pointedAt(event));
  });
  plot.addEventListener("keydown", (event) => {
    const candidates = shown(), here = places[model.get("point")], ends = { Home: 0, End: -1 };
    if (!(event.key in WAYS || event.key in ends)) return;
    event.preventDefault();
    if (event.key in WAYS && here) choose(nextTowards(places, here, WAYS[event.key], candidates));
    else choose(candidates.at(ends[event.key] ?? 0));
  });

  redraw(model, ["classes"], draw);
  redraw(model, ["point", "held"], drawMarks);
  let trips = 0;
  model.on("change:map", () => {
    const trip = ++trips;
    glide(places, maps[model.get("map")].map((place) => [...place]), (between) => { places = between; draw(); },
          () => signal.aborted || trip !== trips);
  });
  return plot;
}

/** The choice of the map; ipywidgets draws it. */
async function mapChoice(model, signal) {
  const slot = element("div", { class: "vae-control", role: "group", "aria-label": "map" }), names = model.get("map_names");
  const control = await placeControl(model, model.get("map_control"), slot, signal);
  model.on("change:map", link(control, "index", () => names.indexOf(model.get("map")), (index) => assign(model, "map", names[index]), signal));
  return slot;
}

/** The legend, in which each class can be shown and hidden. */
function classChoice(model) {
  const names = model.get("class_names"), colors = model.get("class_colors"), all = [...names.keys()];
  const show = (wanted) => assign(model, "classes", all.filter(wanted));
  const isShown = (i) => model.get("classes").includes(i);
  const toggles = names.map((name, label) => button(name, () => show((i) => isShown(i) !== (i === label)), { class: "vae-class" }));
  toggles.forEach((toggle, i) => toggle.prepend(element("span", { class: "vae-swatch", style: `background-color: ${colors[i]}` })));
  redraw(model, ["classes"], () => toggles.forEach((toggle, i) => toggle.setAttribute("aria-pressed", isShown(i))));
  return element("div", { class: "vae-classes", role: "group", "aria-label": "classes shown" }, ...toggles,
                 button("all", () => show(() => true), { class: "vae-class" }), button("none", () => show(() => false), { class: "vae-class" }));
}

/** An image with its caption. */
const captioned = (canvas, text) => element("figure", {}, canvas, element("figcaption", {}, text));

async function render({ model, el, signal }) {
  const { decode, shape } = await openDecoder(model), images = await unpackImages(model.get("images"), shape);
  const labels = bytes(model.get("point_labels")), count = labels.length;
  const codes = unpackRows(model.get("codes"), model.get("codes").byteLength / 4 / count);
  const rows = unpackRows(model.get("positions"), 2);
  const maps = Object.fromEntries(model.get("map_names").map((name, i) => [name, rows.slice(i * count, (i + 1) * count)]));
  let kin = [];

  const image = imageCanvas(shape, ""), reconstruction = imageCanvas(shape, "");
  const readout = element("output", { class: "vae-readout" }), kept = element("p", { class: "vae-kept" });
  const describe = () => {
    const point = model.get("point");
    if (point < 0) {
      readout.textContent = "no image chosen";
      kept.textContent = "";
      return;
    }
    const near = neighbours(maps[model.get("map")], point), common = kin.filter((i) => near.includes(i)).length;
    readout.textContent = `Image ${point}, class ${model.get("class_names")[labels[point]]}`;
    kept.textContent = `Lines lead to its ${kin.length} nearest in the latent space; ${common} of them are among its ${near.length} nearest on this map.`;
  };
  redraw(model, ["point"], () => {
    const point = model.get("point"), blank = new Float32Array(images[0].length).fill(shape[0] === 3 ? 1 : 0);      // paper
    kin = point < 0 ? [] : neighbours(codes, point);
    paint(image, images[point] ?? blank);
    paint(reconstruction, point < 0 ? blank : decode(codes[point]));
    describe();
    image.setAttribute("aria-label", readout.textContent);
    reconstruction.setAttribute("aria-label", `${readout.textContent}, reconstructed`);
  });
  model.on("change:map", describe);

  el.append(frame("embedding",
    element("div", { class: "vae-map" }, embeddingMap(model, { maps, labels, kin: () => kin }, signal),
            element("p", { class: "vae-hint" }, HINT)),
    element("div", { class: "vae-pair" }, captioned(image, "image"), captioned(reconstruction, "reconstruction"), readout, kept),
    element("div", { class: "vae-choices" }, heading("Map"), await mapChoice(model, signal), heading("Classes"), classChoice(model))));
}

export default { render: withSignal(render) };
