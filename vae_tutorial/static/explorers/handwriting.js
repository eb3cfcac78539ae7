// From strokes to an image such as those of MNIST: the same steps as in the course's room "Handwriting of your own", number by number.

const SHEET = 224, PEN = 1 / 24;            // pixels of a drawing's side; radius of the pen in sides
const SIDE = 28, BOX = 20, GROUND = 16;     // pixels of the field and of the box; grey levels

/** Add to a drawing what a pen leaves on the way from one point to another. */
function addLine(ink, [ax, ay], [bx, by]) {
  const reach = PEN * SHEET + 1, dx = bx - ax, dy = by - ay, square = dx * dx + dy * dy;
  const first = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - reach)), last = (a, b) => Math.min(SHEET - 1, Math.ceil(Math.max(a, b) + reach));
  for (let row = first(ay, by); row <= last(ay, by); row++) {
    for (let column = first(ax, bx); column <= last(ax, bx); column++) {
      const x = column + 0.5 - ax, y = row + 0.5 - ay;
      const t = square ? Math.min(1, Math.max(0, (x * dx + y * dy) / square)) : 0;
      const far = Math.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2);
      const grey = Math.round(255 * Math.min(1, Math.max(0, PEN * SHEET + 0.5 - far))), at = row * SHEET + column;
      if (grey > ink[at]) ink[at] = grey;
    }
  }
}

/** Grey values of a drawing, bright on black; a stroke is a list of points from 0 to 1. */
function drawStrokes(strokes) {
  const ink = new Uint8Array(SHEET * SHEET);
  for (const stroke of strokes) {
    const points = stroke.map((point) => point.map((value) => value * SHEET));
    points.forEach((point, i) => addLine(ink, points[Math.max(0, i - 1)], point));
  }
  return ink;
}

/** For each of `fresh` pixels in a row, the `old` ones that it covers: [position, share]. */
function shares(old, fresh) {
  return Array.from({ length: fresh }, (_, i) => {
    const start = i * (old / fresh), end = start + old / fresh, covered = [];
    for (let pixel = Math.floor(start); pixel < Math.min(old, end); pixel++)
      covered.push([pixel, (Math.min(end, pixel + 1) - Math.max(start, pixel)) * (fresh / old)]);
    return covered;
  });
}

/** First and last row and column that have ink; undefined where there is none. */
function boundingBox(ink, width) {
  const box = { top: Infinity, left: Infinity, bottom: -1, right: -1 };
  for (let i = 0; i < ink.length; i++) {
    if (ink[i] < GROUND) continue;
    const row = Math.floor(i / width), column = i % width;
    box.top = Math.min(box.top, row);
    box.bottom = row;
    box.left = Math.min(box.left, column);
    box.right = Math.max(box.right, column);
  }
  return box.bottom < 0 ? undefined : box;
}

/** The ink of a box at another size: each new pixel is the mean of what it covers. */
function resizeBox(ink, width, { top, left, bottom, right }, rows, columns) {
  const down = shares(bottom - top + 1, rows), across = shares(right - left + 1, columns), small = new Float64Array(rows * columns);
  down.forEach((covered, i) => covered.forEach(([row, tall]) => across.forEach((reached, j) => reached.forEach(([column, wide]) => {
    const grey = ink[(top + row) * width + left + column];
    if (grey >= GROUND) small[i * columns + j] += tall * wide * grey;
  }))));
  return small;
}

/** Ink as MNIST would have it, 28 × 28 grey values; undefined where there is no ink. */
function centred(ink, width = SHEET) {
  const box = boundingBox(ink, width);
  if (!box) return undefined;
  const tall = box.bottom - box.top + 1, wide = box.right - box.left + 1;
  const [rows, columns] = [tall, wide].map((side) => Math.max(1, Math.round(side * (BOX / Math.max(tall, wide)))));
  const small = resizeBox(ink, width, box, rows, columns), whole = small.reduce((sum, grey) => sum + grey, 0), brightest = Math.max(...small);
  const mass = (position) => small.reduce((sum, grey, i) => sum + grey * position(i), 0) / whole;
  // what is symmetric lies between two pixels, and must not fall to one by rounding
  const place = (at, side) => Math.min(SIDE - side, Math.max(0, Math.round(SIDE / 2 - 1e-6 - at)));
  const top = place(mass((i) => Math.floor(i / columns)), rows), left = place(mass((i) => i % columns), columns);
  const field = new Uint8Array(SIDE * SIDE);
  small.forEach((grey, i) => { field[(top + Math.floor(i / columns)) * SIDE + left + i % columns] = Math.round(grey * (255 / brightest)); });
  return field;
}
