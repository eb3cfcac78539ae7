// A sheet to draw on, whose state is the trait `strokes`, and the two terms of a drawing's bound.

const PAD_HINT = "Draw with mouse, finger or arrow keys (the space bar sets the pen down and lifts it).";
const MARGIN = PEN + 2 / SHEET;                 // the pen stays on the sheet
const APART = 0.006, KEY_STEP = 1 / 28;         // least way between two points of a stroke, and that of an arrow key, in sides
const PAUSE = 600;                              // milliseconds of rest before what is seen is also said

const nats = (value) => `${value.toFixed(1)} nats`;

/** Cross-entropy in nats of intensities under Bernoulli pixels whose logits are given. */
const crossEntropy = (logits, image) => logits.reduce((sum, l, i) => sum + Math.max(l, 0) - l * image[i] + Math.log1p(Math.exp(-Math.abs(l))), 0);

/** KL in nats from a diagonal Gaussian to the standard normal. */
const divergence = (mu, logvar) => mu.reduce((sum, m, i) => sum + 0.5 * (m * m + Math.expm1(logvar[i]) - logvar[i]), 0);

/** Draw strokes as a pen leaves them, on a canvas of any size. */
function inkStrokes(canvas, strokes) {
  const context = canvas.getContext("2d"), side = canvas.width;
  context.clearRect(0, 0, side, side);
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: 2 * PEN * side, strokeStyle: "#000" });
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * side - 0.01, stroke[0][1] * side);      // a dot must have a length, or nothing is drawn
    stroke.forEach(([x, y]) => context.lineTo(x * side, y * side));
    context.stroke();
  }
}

const onSheet = (value) => Math.round(1e4 * Math.min(1 - MARGIN, Math.max(MARGIN, value))) / 1e4;

/** What a pen does to the trait `strokes`: here at once, and in Python when a stroke is done. */
function penOf(model) {
  const strokes = () => model.get("strokes");
  return {
    begin(point) { model.set("strokes", [...strokes(), [point]]); },
    goOn(point) {
      const last = strokes().at(-1) ?? [], [x, y] = last.at(-1) ?? [2, 2];
      if (Math.hypot(point[0] - x, point[1] - y) >= APART) model.set("strokes", [...strokes().slice(0, -1), [...last, point]]);
    },
    end() { model.save_changes(); },
    undo() { assign(model, "strokes", strokes().slice(0, -1)); },
    clear() { assign(model, "strokes", []); },
  };
}

/** Let a pointer draw on the sheet. */
function drawByPointer(sheet, pen) {
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = sheet.getBoundingClientRect();
    return [onSheet((clientX - left) / width), onSheet((clientY - top) / height)];
  };
  const draws = (event) => sheet.hasPointerCapture(event.pointerId);
  sheet.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;      // a second finger, or another button, draws nothing
    sheet.setPointerCapture(event.pointerId);
    pen.begin(place(event));
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!draws(event)) return;
    const steps = event.getCoalescedEvents?.() ?? [];      // where the pointer was between two pictures of the screen
    for (const step of steps.length ? steps : [event]) pen.goOn(place(step));
  });
  sheet.addEventListener("lostpointercapture", () => pen.end());
}

/** Let keys move a pen over the sheet, put it down and lift it; `say` is told where it is. */
function drawByKeys(sheet, pen, say) {
  const tip = element("span", { class: "vae-pen" });
  let at = [0.5, 0.5], down = false;
  const show = () => {
    tip.style.left = `${100 * at[0]}%`;
    tip.style.top = `${100 * at[1]}%`;
    tip.classList.toggle("vae-down", down);
    say(`Pen ${down ? "down" : "lifted"}, at ${Math.round(100 * at[0])} percent from the left and ${Math.round(100 * at[1])} from the top.`);
  };
  const lift = () => {
    if (down) pen.end();
    down = false;
    show();
  };
  sheet.addEventListener("keydown", (event) => {
    const way = WAYS[event.key], press = event.key === " " || event.key === "Enter", undo = event.key === "Backspace";
    if (!way && !press && !undo && event.key !== "Escape") return;
    event.preventDefault();
    if (way) {
      const step = KEY_STEP * (event.shiftKey ? 3 : 1);
      at = [onSheet(at[0] + step * way[0]), onSheet(at[1] - step * way[1])];      // down the sheet, y grows
      if (down) pen.goOn(at);
      show();
    } else if (press && !down && !event.repeat) {
      down = true;
      pen.begin(at);
      show();
    } else if (!event.repeat || undo) {
      lift();
      if (undo) pen.undo();
    }
  });
  sheet.addEventListener("blur", lift);
  sheet.addEventListener("pointerdown", lift);
  tip.style.left = tip.style.top = "50%";
  return tip;
}

/** The sheet with its buttons. */
function drawingSheet(model, say) {
  const canvas = element("canvas", { width: 672, height: 672 }), pen = penOf(model);
  const invitation = element("span", { class: "vae-invitation", "aria-hidden": true }, "Draw a digit here");
  const sheet = element("div", { class: "vae-plane vae-sheet", tabindex: 0, role: "application", "aria-label": `Sheet to draw on. ${PAD_HINT}` },
                        canvas, invitation);
  drawByPointer(sheet, pen);
  sheet.append(drawByKeys(sheet, pen, say));
  redraw(model, ["strokes"], () => {
    inkStrokes(canvas, model.get("strokes"));
    invitation.hidden = model.get("strokes").length > 0;
  });
  const buttons = element("div", { class: "vae-buttons" }, button("Clear", () => pen.clear()), button("Undo", () => pen.undo(), { title: "take back the last stroke" }));
  return element("div", { class: "vae-drawn" }, sheet, element("p", { class: "vae-hint" }, PAD_HINT), buttons);
}

/** A text for those who do not see, and the function that writes it; what moves all the time is said when it rests. */
function speaker(signal) {
  const spoken = element("p", { class: "vae-spoken", "aria-live": "polite" }), sayings = {};
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return { spoken, say(what, text) {
    sayings[what] = text;
    clearTimeout(timer);
    timer = setTimeout(() => { spoken.textContent = Object.values(sayings).join(" "); }, PAUSE);
  } };
}
