// Draws a mask: fetches the windows in view, at the resolution of the zoom level, and caches them.
import { ROOT, fetchTensors } from "./wire.js";

const CELLS = 256;
const HELD = 96;
const MAX_SCALE = 48;
const LINES_FROM = 5;

const colour = (name) => {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
};
const mix = (low, high, share) => low.map((value, place) => value + (high[place] - value) * share);

/** The colours of the current theme. */
function palette() {
  const [none, low, high, dropped] = ["--mask-none", "--mask-low", "--mask-high", "--mask-dropped"].map(colour);
  const grid = getComputedStyle(document.documentElement).getPropertyValue("--mask-grid").trim();
  return { none, low, high, dropped, grid, cursor: `rgb(${colour("--ember")})` };
}

export class Picture {
  /** @param {HTMLElement} section  the viewer, whose data name job, tensor and sizes */
  constructor(section) {
    const data = section.dataset;
    this.section = section;
    this.address = `${ROOT}v1/jobs/${data.job}/`;
    this.tensor = data.tensor;
    this.rows = Number(data.rows);
    this.cols = Number(data.cols);
    this.tile = [Number(data.tileRows), Number(data.tileCols)];
    // Tiles begin anew with every matrix of a stack, and where a matrix has parts that are solved alone.
    this.periods = [Number(data.matrixRows), this.cols];
    this.starts = [data.rowStarts, data.colStarts].map((text) => text.split(",").map(Number));
    this.canvas = section.querySelector(".picture");
    this.readout = section.querySelector(".readout");
    this.windows = new Map();
    this.top = 1;
    this.shows = { dropped: false, grid: true };
    this.cursor = null;
    this.follower = null;
    this.colours = palette();
    this.canvas.picture = this;
  }

  /** Fetch the profile, then show the first tiles, or the whole layer if `tiles` is 0. */
  async open(tiles = 0) {
    const profile = await fetchTensors(`${this.address}profile?${new URLSearchParams({ tensor: this.tensor })}`);
    this.top = profile.quantiles.data[99] || profile.quantiles.data[100] || 1;
    this.resize();
    if (tiles) this.zoomToTiles(tiles);
    else this.fit();
    this.drawRamp();
    return profile;
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.pixelRatio = devicePixelRatio || 1;
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.round(box.width * this.pixelRatio);
    this.canvas.height = Math.round(box.height * this.pixelRatio);
  }

  get fitting() {
    return Math.min(this.width / this.cols, this.height / this.rows, MAX_SCALE);
  }

  fit() {
    this.scale = this.fitting;
    this.row = (this.rows - this.height / this.scale) / 2;
    this.col = (this.cols - this.width / this.scale) / 2;
    this.changed();
  }

  /** Show about one tile, the one under the cursor or the first. */
  zoomToTile() {
    const [height, width] = this.tile.map((length, axis) => Math.min(length, axis ? this.cols : this.rows, 64));
    const [row, col] = this.cursor ?? [0, 0];
    this.scale = Math.min(MAX_SCALE, 0.8 * Math.min(this.width / width, this.height / height));
    this.row = this.tileStart(0, row) + height / 2 - this.height / this.scale / 2;
    this.col = this.tileStart(1, col) + width / 2 - this.width / this.scale / 2;
    this.changed();
  }

  /** Show the first tiles, `count` in each direction; the whole layer if it has fewer, or its tiles are large. */
  zoomToTiles(count) {
    const [height, width] = this.tile.map((length, axis) => Math.min(count * length, axis ? this.cols : this.rows));
    const scale = Math.min(MAX_SCALE, 0.96 * Math.min(this.width / width, this.height / height));
    if (scale < LINES_FROM || scale < this.fitting) { this.fit(); return; }
    this.scale = scale;
    this.row = this.col = -24 / scale;
    this.changed();
  }

  /** Zoom around a point of the canvas. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const next = Math.min(MAX_SCALE, Math.max(this.fitting / 2, this.scale * factor));
    this.row += y / this.scale - y / next;
    this.col += x / this.scale - x / next;
    this.scale = next;
    this.changed();
  }

  pan(right, down) {
    this.col += right / this.scale;
    this.row += down / this.scale;
    this.changed();
  }

  /** Show the same window and cursor as another picture. */
  follow(other) {
    this.scale = other.scale;
    this.row = other.row;
    this.col = other.col;
    this.cursor = other.cursor;
    this.draw();
  }

  changed() {
    // A layer smaller than the view is centred; a larger one can be moved a margin beyond the edges.
    const margin = 24 / this.scale;
    const clamp = (value, length, seen) =>
      length + 2 * margin <= seen ? (length - seen) / 2 : Math.max(-margin, Math.min(length - seen + margin, value));
    this.row = clamp(this.row, this.rows, this.height / this.scale);
    this.col = clamp(this.col, this.cols, this.width / this.scale);
    this.draw();
    this.follower?.follow(this);
  }

  /** Entries per cell: a power of two, so that zooming reuses cached windows. */
  get step() {
    return 2 ** Math.max(0, Math.floor(Math.log2(1 / this.scale) + 0.01));
  }

  /** The windows in view: [key, row, col]. */
  inView() {
    const side = CELLS * this.step;
    const windows = [];
    const last = [Math.min(this.rows, this.row + this.height / this.scale), Math.min(this.cols, this.col + this.width / this.scale)];
    for (let row = Math.max(0, Math.floor(this.row / side) * side); row < last[0]; row += side)
      for (let col = Math.max(0, Math.floor(this.col / side) * side); col < last[1]; col += side) windows.push([`${this.step}/${row}/${col}`, row, col]);
    return windows;
  }

  load(key, row, col) {
    const step = this.step;
    const query = new URLSearchParams({ tensor: this.tensor, row, col, rows: CELLS, cols: CELLS, step });
    const entry = { row, col, step, ready: false };
    this.windows.set(key, entry);
    fetchTensors(`${this.address}window?${query}`).then(
      (planes) => { Object.assign(entry, planes, { ready: true }); this.paint(entry); this.draw(); },
      (error) => { entry.failed = true; this.say(error.message); },
    );
    for (const old of this.windows.keys()) {
      if (this.windows.size <= HELD) break;
      this.windows.delete(old);
    }
    return entry;
  }

  /** Turn a window's numbers into pixels. */
  paint(entry) {
    const [height, width] = entry.kept.shape;
    const { none, low, high, dropped } = this.colours;
    const image = new ImageData(width, height);
    for (let place = 0; place < width * height; place++) {
      const share = entry.kept.data[place];
      const shade = Math.sqrt(Math.min(1, entry.kept_scores.data[place] / this.top));
      const mean = entry.scores.data[place];
      const rest = share < 1 ? Math.max(0, (mean - share * entry.kept_scores.data[place]) / (1 - share)) : 0;
      const ground = this.shows.dropped ? mix(none, dropped, Math.sqrt(Math.min(1, rest / this.top))) : none;
      const seen = mix(ground, mix(low, high, shade), share);
      image.data.set([...seen, 255], 4 * place);
    }
    entry.canvas = new OffscreenCanvas(width, height);
    entry.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  repaint() {
    this.colours = palette();
    for (const entry of this.windows.values()) if (entry.ready) this.paint(entry);
    this.drawRamp();
    this.draw();
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => { this.drawing = null; this.drawNow(); });
  }

  drawNow() {
    const context = this.canvas.getContext("2d");
    context.setTransform(this.pixelRatio, 0, 0, this.pixelRatio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.imageSmoothingEnabled = false;
    const wanted = this.inView();
    const shown = wanted.map(([key, row, col]) => this.windows.get(key) ?? this.load(key, row, col));
    const finished = shown.every((entry) => entry.ready);
    // Draw windows of other resolutions until the right ones are loaded.
    if (!finished) for (const entry of this.windows.values()) if (entry.ready && entry.step !== this.step) this.place(context, entry);
    for (const entry of shown) if (entry.ready) this.place(context, entry);
    if (this.shows.grid) this.drawGrid(context);
    this.drawCursor(context);
    this.section.dataset.ready = String(finished);
  }

  place(context, entry) {
    const [height, width] = entry.kept.shape;
    const unit = entry.step * this.scale;
    const x = (entry.col - this.col) * this.scale;
    const y = (entry.row - this.row) * this.scale;
    // The last cells may extend beyond the layer.
    const drawnWidth = Math.min(width * unit, (this.cols - entry.col) * this.scale);
    const drawnHeight = Math.min(height * unit, (this.rows - entry.row) * this.scale);
    context.drawImage(entry.canvas, 0, 0, drawnWidth / unit, drawnHeight / unit, x, y, drawnWidth, drawnHeight);
  }

  /** First row (axis 0) or column (axis 1) of the tile that contains an entry. */
  tileStart(axis, place) {
    const start = this.regionStart(axis, place);
    return start + Math.floor((place - start) / this.tile[axis]) * this.tile[axis];
  }

  /** First row or column of the tile behind the one that contains an entry; the last one of a region may be smaller. */
  nextTile(axis, place) {
    return Math.min(this.tileStart(axis, place) + this.tile[axis], this.regionEnd(axis, place));
  }

  /** First row or column of the matrix, or of its part, that contains an entry. */
  regionStart(axis, place) {
    const matrix = Math.floor(place / this.periods[axis]) * this.periods[axis];
    return matrix + this.starts[axis].findLast((start) => start <= place - matrix);
  }

  /** First row or column behind the matrix, or its part, that contains an entry. */
  regionEnd(axis, place) {
    const matrix = Math.floor(place / this.periods[axis]) * this.periods[axis];
    return matrix + (this.starts[axis].find((start) => start > place - matrix) ?? this.periods[axis]);
  }

  drawGrid(context) {
    const [tileHeight, tileWidth] = this.tile;
    const edge = { x: -this.col * this.scale, y: -this.row * this.scale, w: this.cols * this.scale, h: this.rows * this.scale };
    context.strokeStyle = this.colours.grid;
    context.lineWidth = this.scale > 6 ? 2 : 1;
    context.beginPath();
    if (tileHeight * this.scale >= LINES_FROM)
      for (let row = this.tileStart(0, Math.max(0, this.row)); row < Math.min(this.rows, this.row + this.height / this.scale); row = this.nextTile(0, row)) {
        const y = Math.round((row - this.row) * this.scale) + 0.5;
        context.moveTo(Math.max(0, edge.x), y);
        context.lineTo(Math.min(this.width, edge.x + edge.w), y);
      }
    if (tileWidth * this.scale >= LINES_FROM)
      for (let col = this.tileStart(1, Math.max(0, this.col)); col < Math.min(this.cols, this.col + this.width / this.scale); col = this.nextTile(1, col)) {
        const x = Math.round((col - this.col) * this.scale) + 0.5;
        context.moveTo(x, Math.max(0, edge.y));
        context.lineTo(x, Math.min(this.height, edge.y + edge.h));
      }
    context.stroke();
    context.strokeRect(Math.round(edge.x) + 0.5, Math.round(edge.y) + 0.5, Math.round(edge.w), Math.round(edge.h));
  }

  drawCursor(context) {
    if (!this.cursor) return;
    const side = Math.max(5, this.scale);
    context.strokeStyle = this.colours.cursor;
    context.lineWidth = 2;
    context.strokeRect((this.cursor[1] - this.col) * this.scale + (this.scale - side) / 2, (this.cursor[0] - this.row) * this.scale + (this.scale - side) / 2, side, side);
  }

  drawRamp() {
    const ramp = this.section.querySelector(".ramp");
    if (!ramp) return;
    const context = ramp.getContext("2d");
    for (let x = 0; x < ramp.width; x++) {
      context.fillStyle = `rgb(${mix(this.colours.low, this.colours.high, Math.sqrt(x / ramp.width)).map(Math.round)})`;
      context.fillRect(x, 0, 1, ramp.height);
    }
    this.section.querySelector(".top").textContent = `${this.top.toPrecision(2)} score of a kept weight`;
  }

  /** The entry at a point of the canvas, or null. */
  entryAt(x, y) {
    const row = Math.floor(this.row + y / this.scale);
    const col = Math.floor(this.col + x / this.scale);
    return row >= 0 && col >= 0 && row < this.rows && col < this.cols ? [row, col] : null;
  }

  /** Data of an entry: {kept, score, step}, or null while it is loading. */
  lookUp([row, col]) {
    const side = CELLS * this.step;
    const entry = this.windows.get(`${this.step}/${Math.floor(row / side) * side}/${Math.floor(col / side) * side}`);
    if (!entry?.ready) return null;
    const place = Math.floor((row - entry.row) / entry.step) * entry.kept.shape[1] + Math.floor((col - entry.col) / entry.step);
    return { kept: entry.kept.data[place], score: entry.scores.data[place], step: entry.step };
  }

  point(cursor) {
    this.show(cursor);
    this.follower?.show(cursor);
  }

  /** Move the cursor to an entry, and show its data. */
  show(cursor) {
    this.cursor = cursor;
    if (cursor) {
      const entry = this.lookUp(cursor);
      const [row, col] = cursor;
      const [down, across] = cursor.map((place, axis) => Math.floor((place - this.regionStart(axis, place)) / this.tile[axis]));
      const matrix = this.periods[0] < this.rows ? ` of matrix ${Math.floor(row / this.periods[0])}` : "";
      const tile = `tile ${down}, ${across}${matrix}`;
      const what = !entry ? "…" : entry.step === 1 ? `${entry.kept ? "kept" : "dropped"}, score ${entry.score.toPrecision(4)}`
        : `${(100 * entry.kept).toFixed(0)} % kept of ${entry.step} × ${entry.step} entries, mean score ${entry.score.toPrecision(4)}`;
      this.say(`row ${row}, column ${col} · ${what} · ${tile}`);
    }
    this.draw();
  }

  say(text) {
    this.readout.textContent = text;
  }
}
