// Mouse, touch, keyboard and button controls of a picture.

const KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const STRIDE = 60;

/** Make a picture react to pointers, keys, buttons and check boxes. */
export function addControls(picture) {
  const { canvas, section } = picture;
  byPointer(picture, canvas);
  byKeys(picture, canvas);
  section.addEventListener("click", (event) => {
    const action = { fit: () => picture.fit(), tile: () => picture.zoomToTile(), in: () => picture.zoom(2), out: () => picture.zoom(0.5) }[event.target.dataset.do];
    action?.();
  });
  section.addEventListener("change", (event) => {
    const name = event.target.dataset.do;
    if (!(name in picture.shows)) return;
    picture.shows[name] = event.target.checked;
    picture.repaint();
  });
  new ResizeObserver(() => { picture.resize(); picture.changed(); }).observe(canvas);
  document.addEventListener("theme", () => picture.repaint());
}

function byPointer(picture, canvas) {
  const held = new Map();
  const place = (event) => [event.offsetX, event.offsetY];
  const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, place(event)); });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = held.get(event.pointerId);
    if (!before) { picture.point(picture.entryAt(...now)); return; }
    const lastSpread = held.size === 2 ? spread() : 0;
    held.set(event.pointerId, now);
    if (lastSpread) picture.zoom(spread() / lastSpread, ...now);
    else if (held.size === 1) picture.pan(before[0] - now[0], before[1] - now[1]);
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); picture.zoom(Math.exp(-event.deltaY / 300), ...place(event)); }, { passive: false });
  canvas.addEventListener("dblclick", (event) => picture.zoom(4, ...place(event)));
}

function byKeys(picture, canvas) {
  canvas.addEventListener("keydown", (event) => {
    const way = KEYS[event.key];
    if (way && event.shiftKey) picture.pan(STRIDE * way[1], STRIDE * way[0]);
    else if (way) moveCursor(picture, way);
    else if (event.key === "+" || event.key === "=") picture.zoom(2);
    else if (event.key === "-") picture.zoom(0.5);
    else if (event.key === "0") picture.fit();
    else return;
    event.preventDefault();
  });
}

function moveCursor(picture, [down, right]) {
  const middle = picture.entryAt(picture.width / 2, picture.height / 2) ?? [0, 0];
  const [row, col] = picture.cursor ?? middle;
  const step = picture.cursor ? picture.step : 0;
  const clamp = (value, length) => Math.max(0, Math.min(length - 1, value));
  const cursor = [clamp(row + down * step, picture.rows), clamp(col + right * step, picture.cols)];
  const y = (cursor[0] - picture.row) * picture.scale;
  const x = (cursor[1] - picture.col) * picture.scale;
  const beyond = (at, length) => (at < 0 ? at - 20 : at > length - picture.scale ? at - length + picture.scale + 20 : 0);
  picture.pan(beyond(x, picture.width), beyond(y, picture.height));
  picture.point(cursor);
}
