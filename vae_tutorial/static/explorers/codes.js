// A code under the reader's hand: on the plane of two dimensions, by a slider for each of more, or at the code of an image.

const HINT = "Drag the point, or move it with the arrow keys, faster with Shift.";

/** The coordinates of a code as a text. */
const spell = (z) => `z = (${z.map((value) => value.toFixed(2).replace("-", "−")).join(", ")})`;

/** The plane of a two-dimensional latent space: what lies `under` all, the encoded images, and the point that can be dragged. */
function latentPlane(model, moveTo, ...under) {
  const reach = model.get("reach");
  const points = element("canvas", { width: 720, height: 720 });
  const cursor = element("span", { class: "vae-cursor" });
  const plane = element("div", { class: "vae-plane", tabindex: 0, role: "application", "aria-label": `Latent plane. ${HINT}`, title: HINT },
                        ...under, points, cursor);
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
  return plane;
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

/** The images that the reader can start from; `begin` is called with the code and the name of the one that is chosen. */
async function starts(model, shape, begin) {
  const codes = unpackRows(model.get("start_codes"), model.get("z").length);
  if (!codes.length) return [];
  const images = await unpackImages(model.get("start_images"), shape);
  const names = model.get("start_names");
  const row = element("div", { class: "vae-thumbnails" }, ...codes.map((code, i) =>
    imageButton(images[i], shape, `Start from this image: ${names[i]}`, () => begin([...code], names[i]))));
  return [element("div", { class: "vae-starts" }, heading("Start from an image"), row)];
}

/** Buttons that lead to a code. */
const codeButtons = (model, moveTo) => element("div", { class: "vae-buttons" },
  button("Random", () => moveTo(model.get("z").map(gaussian)), { title: "a draw from the prior" }),
  button("Reset", () => moveTo(model.get("z").map(() => 0)), { title: "the middle of the prior" }));
