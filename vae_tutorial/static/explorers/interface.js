// What the explorers share: elements, images, and controls linked to the explorer's state in the browser.

/** Give an element attributes, and children that are elements or texts. */
function furnish(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** An HTML element with attributes, and with children that are elements or texts. */
const element = (name, attributes = {}, ...children) => furnish(document.createElement(name), attributes, children);

/** An element of an SVG drawing. */
const svgElement = (name, attributes = {}, ...children) =>
  furnish(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** A number as a text with two decimals and a true minus sign; what is rounded to zero has none. */
const decimals = (value) => ((Math.round(value * 100) || 0) / 100).toFixed(2).replace("-", "−");

/** The root of an explorer: its parts are laid out by the room that it has, and the keys pressed in it are its own. */
function frame(kind, ...parts) {
  const root = element("div", { class: "vae-explorer" }, element("div", { class: `vae-${kind}` }, ...parts));
  // a notebook would take letters and arrows for its commands
  root.addEventListener("keydown", (event) => { if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation(); });
  return root;
}

/** A canvas with one pixel for each of an image's, read out to those who do not see it by `label`, or left to what stands around it. */
function imageCanvas([, height, width], label = null) {
  const said = label === null ? { "aria-hidden": true } : { role: "img", "aria-label": label };
  return element("canvas", { class: "vae-image", width, height, ...said });
}

/**
 * Draw the intensities of an image that lies pixel by pixel. One channel is ink on paper, 0 white and 1 black, as in the figures
 * of the course; three are red, green and blue, and a fourth says how much of the paper they hide.
 */
function paint(canvas, intensities) {
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height), { data } = picture;
  const channels = intensities.length / (canvas.width * canvas.height);
  for (let from = 0, to = 0; to < data.length; from += channels, to += 4) {
    for (let c = 0; c < 3; c++) data[to + c] = channels === 1 ? 255 - Math.round(255 * intensities[from]) : Math.round(255 * intensities[from + c]);
    data[to + 3] = channels === 4 ? Math.round(255 * intensities[from + 3]) : 255;
  }
  context.putImageData(picture, 0, 0);
}

/** An address under which the page can show bytes of a PNG; given back with the view. */
function pictureAddress(bytes, signal) {
  const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  return address;
}

/** The images of a PNG that holds them side by side, as intensities, pixel by pixel. */
async function unpackImages(bytes, [channels, height, width]) {
  const sheet = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = element("canvas", { width: sheet.width, height: sheet.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(sheet, 0, 0);
  const columns = sheet.width / width;
  return Array.from({ length: columns * (sheet.height / height) }, (_, i) => {
    const { data } = context.getImageData((i % columns) * width, Math.floor(i / columns) * height, width, height);
    return Float32Array.from({ length: height * width * channels }, (_, i) => data[4 * Math.floor(i / channels) + i % channels] / 255);
  });
}

/** The bytes that a DataView shows. */
const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Rows of `columns` numbers from a DataView of float32. */
function unpackRows(view, columns) {
  const numbers = new Float32Array(bytes(view).slice().buffer);
  return Array.from({ length: numbers.length / columns }, (_, row) => numbers.subarray(row * columns, (row + 1) * columns));
}

/** The model that a reference of ipywidgets stands for. */
const dereference = (model, reference) => model.widget_manager.get_model(reference.slice("IPY_MODEL_".length));

/** The decode function of the explorer's `decoder`, and the shape of its images: channels, height, width. */
async function openDecoder(model) {
  const { attributes } = await dereference(model, model.get("decoder"));
  return { decode: buildDecoder(attributes), shape: attributes.image_shape };
}

/** Put the view of an ipywidgets control into `slot`; returns the control's model. */
async function placeControl(model, reference, slot, signal) {
  const control = await dereference(model, reference);
  const view = await model.widget_manager.create_view(control);
  signal.addEventListener("abort", () => view.remove());
  slot.append(view.el);
  describe(control, view.el, slot.getAttribute("aria-label") ?? control.get("description"), signal);
  return control;
}

/** Say to those who do not see it what ipywidgets shows by place and colour: whose handle it is, and which button is pressed. */
function describe(control, root, name, signal) {
  root.querySelector("[role=slider]")?.setAttribute("aria-label", name);
  // a moment later, for ipywidgets makes the buttons anew when one is pressed
  const press = () => queueMicrotask(() => root.querySelectorAll(".widget-toggle-button")
    .forEach((toggle, i) => toggle.setAttribute("aria-pressed", i === control.get("index"))));
  control.on("change:index", press);
  signal.addEventListener("abort", () => control.off("change:index", press));
  press();
}

/** Keep the number `key` of a control equal to what `read()` gives, and call `write` with what the reader sets; returns the update. */
function link(control, key, read, write, signal) {
  // a slider rounds what it is given to its steps: that is no wish of the reader
  const rounding = 0.501 * (control.get("step") ?? 0);
  const onChange = () => { if (Math.abs(control.get(key) - read()) > rounding) write(control.get(key)); };
  const update = () => {
    if (control.get(key) === read()) return;      // set within its own change, ipywidgets would not tell the views of it
    control.set(key, read());
    control.save_changes();
  };
  control.on(`change:${key}`, onChange);
  signal.addEventListener("abort", () => control.off(`change:${key}`, onChange));
  update();
  return update;
}

/** Set one trait of the explorer, here and in Python. */
function assign(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

/** Draw now and whenever one of the traits changes. */
function redraw(model, traits, draw) {
  traits.forEach((name) => model.on(`change:${name}`, draw));
  draw();
}

/** A heading above a part of an explorer. */
const heading = (text) => element("p", { class: "vae-heading" }, text);

/** A button that shows an image. */
function imageButton(intensities, shape, name, action) {
  const canvas = imageCanvas(shape);
  paint(canvas, intensities);
  const made = button("", action, { class: "vae-thumbnail", "aria-label": name, title: name });
  made.append(canvas);
  return made;
}

/** A row of canvases of which the reader picks one, whose number is trait `name`: these canvases, and the row under its heading. */
function picker(model, names, shape, name, text) {
  // in a group of its own, should the page show this explorer twice
  const group = `${name}${Math.random()}`, canvases = names.map(() => imageCanvas(shape));
  const inputs = names.map((said) => element("input", { type: "radio", name: group, "aria-label": said }));
  inputs.forEach((input, i) => input.addEventListener("change", () => assign(model, name, i)));
  const row = element("div", { class: "vae-picker", role: "radiogroup", "aria-label": text }, ...names.map((said, i) =>
    element("label", { class: "vae-thumbnail", title: said }, inputs[i], canvases[i])));
  // or the arrow keys take the notebook to another cell
  row.addEventListener("keydown", (event) => event.key.startsWith("Arrow") && event.stopPropagation());
  redraw(model, [name], () => { inputs[model.get(name)].checked = true; });
  return { canvases, parts: [heading(text), row] };
}

/**
 * A function that lets `draw` make picture 0 to count - 1, some between two images of the screen, so that what is costly
 * halts nothing; called again, it begins anew.
 */
function inSlices(count, draw, signal) {
  let request = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(request));
  const goOn = (next) => {
    request = requestAnimationFrame(() => {
      const end = performance.now() + 8;
      do draw(next++); while (next < count && performance.now() < end);
      if (next < count) goOn(next);
    });
  };
  return () => {
    cancelAnimationFrame(request);
    goOn(0);
  };
}

/** The names of the classes in their colours. */
function legend(names, colors) {
  return element("ul", { class: "vae-legend" }, ...names.map((name, i) =>
    element("li", {}, element("span", { class: "vae-swatch", style: `background: ${colors[i]}` }), name)));
}

/** Draw a dot for each point of a plane that reaches from -reach to reach; a canvas has its origin at the top left. */
function drawPoints(canvas, points, colors, reach, radius = 4) {
  const context = canvas.getContext("2d"), half = canvas.width / 2;
  context.clearRect(0, 0, canvas.width, canvas.height);
  points.forEach(([x, y], i) => {
    context.fillStyle = colors[i];
    context.beginPath();
    context.arc(half * (1 + x / reach), half * (1 - y / reach), radius, 0, 7);
    context.fill();
  });
}

/** A button for what needs no state of its own. */
function button(text, action, attributes = {}) {
  const made = element("button", { type: "button", class: "vae-button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

/** Where the arrow keys lead, on a plane whose second axis points up. */
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const clamp = (value, reach) => Math.max(-reach, Math.min(reach, value));

/** A draw from the standard normal (Box and Muller, 1958). */
const gaussian = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

/** Give a render function the signal that older anywidgets, Colab's among them, do without: they call what it returns at the end. */
const withSignal = (render) => async (context) => {
  if (context.signal) return render(context);
  const controller = new AbortController();
  await render({ ...context, signal: controller.signal });
  return () => controller.abort();
};
