// ConditionalExplorer: one style in every class. The style is a point under the reader's hand, or that of a digit which the reader draws.

const SAME = 0.01;      // between two codes that differ only by rounding

/** The function that reads strokes as a digit of each class: its code, and the bound in nats at z = μ; undefined without ink. */
function openReader(encoder, decoder, count) {
  const encode = buildEncoder(encoder), logitsOf = buildNetwork({ ...decoder, layers: decoder.layers.slice(0, -1) }, [decoder.latent_dim]);
  return (strokes) => {
    const grey = centred(drawStrokes(strokes));
    if (!grey) return undefined;
    const image = Float32Array.from(grey, (value) => value / 255);
    const readings = Array.from({ length: count }, (_, label) => {
      const answer = [...encode(image, label)], mu = answer.slice(0, decoder.latent_dim), logvar = answer.slice(decoder.latent_dim);
      return { mu, bound: -crossEntropy(logitsOf(mu, label), image) - divergence(mu, logvar) };
    });
    return { image, readings, order: [...readings.keys()].sort((a, b) => readings[b].bound - readings[a].bound) };
  };
}

/** The class as which a drawing has the code z, which reaches so far; -1 if it has it as none. */
function classOfCode({ readings }, z, reach) {
  const far = readings.map(({ mu }) => Math.hypot(...mu.map((value, axis) => clamp(value, reach) - z[axis]))), nearest = Math.min(...far);
  return nearest < SAME ? far.indexOf(nearest) : -1;
}

/** The style in every class, of which one is chosen and large. */
function everyClass(model, decode, shape, moveTo, signal) {
  const names = model.get("class_names"), large = imageCanvas(shape, ""), readout = element("output", { class: "vae-readout" });
  const { canvases, parts } = picker(model, names.map((name) => `class ${name}`), shape, "label", "The same style in every class");
  canvases.forEach((canvas, label) => canvas.after(element("span", { class: "vae-caption", "aria-hidden": true }, names[label])));
  redraw(model, ["z"], inSlices(names.length, (label) => paint(canvases[label], decode(model.get("z"), label)), signal));
  redraw(model, ["z", "label"], () => {
    const z = model.get("z"), label = model.get("label"), place = z.length === 2 ? spell(z) : `|z| = ${decimals(Math.hypot(...z))}`;
    paint(large, decode(z, label));
    readout.textContent = `class ${names[label]}, ${place}`;
    large.setAttribute("aria-label", `image of class ${names[label]} decoded at ${place}`);
  });
  return [element("div", { class: "vae-shown" }, large, element("div", {}, readout, codeButtons(model, moveTo))),
          element("div", { class: "vae-every" }, ...parts)];
}

/** A sheet to draw on, and what is read there: the drawing sets style and class, and the reader can say which class it is. */
function drawnStyle(model, read, begin, signal) {
  const names = model.get("class_names"), seen = imageCanvas([1, SIDE, SIDE], ""), { spoken, say } = speaker(signal);
  const said = element("p", { class: "vae-hint" });
  let found = read(model.get("strokes"));
  const bound = (label) => nats(found.readings[label].bound).replace("-", "−");
  const classes = names.map((name, label) => button(name, () => begin(found.readings[label].mu, label), { "aria-label": `It is class ${name}` }));
  const show = () => {
    const own = found ? classOfCode(found, model.get("z"), model.get("reach")) : -1, [best, next] = found?.order ?? [];
    paint(seen, found?.image ?? new Float32Array(SIDE * SIDE));
    seen.setAttribute("aria-label", found ? "your drawing, centred as the images of MNIST are" : "no drawing yet");
    classes.forEach((each, label) => {
      each.disabled = !found;
      each.setAttribute("aria-pressed", label === own);
    });
    said.textContent = !found ? "Draw a digit, and see it rewritten as every other, in your own hand."
      : `The bound is highest for class ${names[best]}: ${bound(best)}; next comes class ${names[next]}: ${bound(next)}. If it is another, say so.`;
  };
  redraw(model, ["z"], show);
  model.on("change:strokes", () => {
    found = read(model.get("strokes"));
    if (found) begin(found.readings[found.order[0]].mu, found.order[0]);
    show();
    say("found", found ? `Read as class ${names[found.order[0]]}.` : "The sheet is empty.");
  });
  const told = element("div", { class: "vae-told" }, heading("Your digit is"),
    element("div", { class: "vae-buttons", role: "group", "aria-label": "Your digit is" }, ...classes), element("div", { class: "vae-shown" }, seen, said));
  return [drawingSheet(model, (text) => say("pen", text)), told, spoken];
}

async function render({ model, el, signal }) {
  const [encoder, decoder] = await Promise.all(["encoder", "decoder"].map(async (half) => (await dereference(model, model.get(half))).attributes));
  const names = model.get("class_names"), reach = model.get("reach"), shape = decoder.image_shape, plane = decoder.latent_dim === 2;
  const moveTo = (z) => assign(model, "z", z.map((value) => clamp(value, reach)));
  const begin = (z, label) => {
    assign(model, "label", label);
    moveTo(z);
  };
  const where = plane ? [latentPlane(model, moveTo), legend(names, model.get("class_colors"))] : [await sliders(model, moveTo, signal)];
  const drawn = String(shape) === `1,${SIDE},${SIDE}` ? drawnStyle(model, openReader(encoder, decoder, names.length), begin, signal) : [];
  el.append(frame(plane ? "conditional" : "conditional vae-many", element("div", { class: "vae-where" }, ...where),
    ...everyClass(model, buildDecoder(decoder), shape, moveTo, signal),
    ...await starts(model, shape, (z, name) => begin(z, names.indexOf(name))), ...drawn));
}

export default { render: withSignal(render) };
