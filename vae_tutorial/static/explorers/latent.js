// LatentExplorer: a point of the latent space under the reader's hand, and the image that is decoded there.

/** The plane, over the manifold. */
function manifoldPlane(model, moveTo, signal) {
  const manifold = element("img", { src: pictureAddress(model.get("manifold"), signal), alt: "", draggable: "false" });
  const plane = latentPlane(model, moveTo, manifold);
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

async function render({ model, el, signal }) {
  const { decode, shape } = await openDecoder(model), reach = model.get("reach"), dimensions = model.get("z").length;
  const moveTo = (z) => assign(model, "z", z.map((value) => clamp(value, reach)));

  const canvas = imageCanvas(shape, ""), readout = element("output", { class: "vae-readout" });
  const plane = dimensions === 2 ? [manifoldPlane(model, moveTo, signal), ...await planeKey(model, signal)] : [];
  const root = frame(dimensions === 2 ? "latent" : "latent vae-many",
    element("div", { class: "vae-shown" }, canvas, element("div", {}, readout, codeButtons(model, moveTo))),
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
