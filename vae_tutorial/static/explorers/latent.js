// LatentExplorer: a point of the latent space under the reader's hand, and the image that is decoded there.

const HINT = "Drag the point, or move it with the arrow keys, faster with Shift.";

/** The coordinates of a code as a text. */
const spell = (z) => `z = (${z.map((value) => value.toFixed(2).replace("-", "−")).join(", ")})`;

/** The plane of a two-dimensional latent space: the manifold, the encoded images, and the point that can be dragged. */
function latentPlane(model, moveTo, signal) {
  const reach = model.get("reach");
  const manifold = element("img", { src: pictureAddress(model.get("manifold"), signal), alt: "", draggable: "false" });
  const points = element("canvas", { width: 720, height: 720 });
  const cursor = element("span", { class: "vae-cursor" });
  const plane = element("div", { class: "vae-plane", tabindex: 0, role: "application", "aria-label": `Latent plane. ${HINT}`, title: HINT },
                        manifold, points, cursor);
  const colors = model.get("class_colors");
  drawPoints(points, unpackRows(model.get("points"), 2), Array.from(bytes(model.get("point_labels")), (label) => colors[label]), reach);

  const follow = (event) => {
    const { left, top, width, height } = plane.getBoundingClientRect();
    moveTo([(2 * (event.clientX - left) / width - 1) * reach, (1 - 2 * (event.clientY - top) / height) * reach]);
  };
  plane.addEventListener("pointerdown", (event) => { plane.setPointerCapture(event.pointerId); follow(event); });
  plane.addEventListener("pointermove", (event) => { if (plane.hasPointerCapture(event.pointerId)) follow(event); });
  plane.addEventListener("keydown", (event) => {
    if (!WAYS[event.key]) return;
    event.preventDefault();
    const step = (event.shiftKey ? 0.1 : 0.02) * reach;
    moveTo(model.get("z").map((value, axis) => value + step * WAYS[event.key][axis]));
  });

  redraw(model, ["z"], () => {
    const [x, y] = model.get("z");
    cursor.style.left = `${50 * (1 + x / reach)}%`;
    cursor.style.top = `${50 * (1 - y / reach)}%`;
  });
  redraw(model, ["layer"], () => { plane.dataset.layer = model.get("layer"); });
  return plane;
}

/** The choice of what the plane shows, and what its colours mean; nothing where there are no points to show. */
async function planeKey(model, signal) {
  if (!model.get("layer_control")) return [];
  const slot = element("div", { class: "vae-control" }), layers = ["manifold", "images", "both"];
  const control = await placeControl(model, model.get("layer_control"), slot, signal);
  model.on("change:layer", link(control, "index", () => layers.indexOf(model.get("layer")),
                                (index) => assign(model, "layer", layers[index]), signal));
  return [slot, legend(model.get("class_names"), model.get("class_colors"))];
}

/** A slider for each dimension, in the order that Python gave them, with the nats that the dimension carries. */
async function sliders(model, moveTo, signal) {
  const kl = model.get("kl"), list = element("div", { class: "vae-sliders" });
  await Promise.all(model.get("order").map(async (dimension, place) => {
    const nats = kl.length ? `${kl[dimension].toFixed(2)} nats` : "";
    const slot = element("div", { class: "vae-control", "aria-label": `latent dimension ${dimension} ${nats}` });
    list.append(element("div", { class: model.get("active")[dimension] ? "vae-row" : "vae-row vae-dead" },
                        slot, element("span", { class: "vae-nats" }, nats)));
    const slider = await placeControl(model, model.get("sliders")[place], slot, signal);
    model.on("change:z", link(slider, "value", () => model.get("z")[dimension],
                              (value) => moveTo(model.get("z").with(dimension, value)), signal));
  }));
  return list;
}

/** The images that the reader can start from. */
async function starts(model, shape, moveTo) {
  const codes = unpackRows(model.get("start_codes"), model.get("z").length);
  if (!codes.length) return [];
  const images = await unpackImages(model.get("start_images"), shape);
  const names = model.get("start_names");
  const row = element("div", { class: "vae-thumbnails" }, ...codes.map((code, i) =>
    imageButton(images[i], shape, `Start from this image: ${names[i]}`, () => moveTo([...code]))));
  return [element("div", { class: "vae-starts" }, heading("Start from an image"), row)];
}

async function render({ model, el, signal }) {
  const { decode, shape } = await openDecoder(model), reach = model.get("reach"), dimensions = model.get("z").length;
  const moveTo = (z) => assign(model, "z", z.map((value) => clamp(value, reach)));

  const canvas = imageCanvas(shape, ""), readout = element("output", { class: "vae-readout" });
  const buttons = element("div", { class: "vae-buttons" },
    button("Random", () => moveTo(model.get("z").map(gaussian)), { title: "a draw from the prior" }),
    button("Reset", () => moveTo(model.get("z").map(() => 0)), { title: "the middle of the prior" }));
  const plane = dimensions === 2 ? [latentPlane(model, moveTo, signal), ...await planeKey(model, signal)] : [];
  const root = frame(dimensions === 2 ? "latent" : "latent vae-many",
    element("div", { class: "vae-shown" }, canvas, element("div", {}, readout, buttons)),
    element("div", { class: "vae-where" }, ...plane, await sliders(model, moveTo, signal)),
    ...await starts(model, shape, moveTo));

  redraw(model, ["z"], () => {
    const z = model.get("z");
    paint(canvas, decode(z));
    const text = dimensions === 2 ? spell(z) : `|z| = ${Math.hypot(...z).toFixed(2)}`;
    readout.textContent = text;
    canvas.setAttribute("aria-label", `image decoded at ${text}`);
  });
  el.append(root);
}

export default { render: withSignal(render) };
