// The page of a layer: its mask, the scores that it keeps and drops, and the share of kept entries of rows and columns.
import { Picture } from "./picture.js";
import { countText } from "./quantities.js";
import { addControls } from "./controls.js";

/** Set a canvas's resolution to its size on the screen, and return its 2D context. */
function resizedContext(canvas) {
  const box = canvas.getBoundingClientRect();
  const pixelRatio = devicePixelRatio || 1;
  canvas.width = Math.round(box.width * pixelRatio);
  canvas.height = Math.round(box.height * pixelRatio);
  return canvas.getContext("2d");
}

/** Draw the shares of entries kept as bars of rows or columns, at most one per pixel: their mean, and behind it their maximum. */
function drawKeptShares(canvas, label, counts, length) {
  const context = resizedContext(canvas);
  const style = getComputedStyle(document.documentElement);
  const bars = Math.min(counts.length, canvas.width);
  const width = canvas.width / bars;
  let [lowest, highest, sum] = [Infinity, -Infinity, 0];
  for (let bar = 0; bar < bars; bar++) {
    const part = counts.subarray(Math.floor((bar * counts.length) / bars), Math.floor(((bar + 1) * counts.length) / bars));
    const [low, mean, high] = [Math.min(...part), part.reduce((a, b) => a + b, 0) / part.length, Math.max(...part)].map((count) => count / length);
    lowest = Math.min(lowest, low);
    highest = Math.max(highest, high);
    sum += mean;
    const draw = (share, name) => {
      context.fillStyle = style.getPropertyValue(name);
      context.fillRect(Math.floor(bar * width), canvas.height * (1 - share), Math.ceil(width), canvas.height * share);
    };
    draw(high, "--mask-low");
    draw(mean, "--kept");
  }
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  label.textContent = lowest === highest ? `all ${percent(lowest)}` : `${percent(lowest)} to ${percent(highest)}, mean ${percent(sum / bars)}`;
}

/** Draw a stacked histogram of the scores: dropped ones below, kept ones on top. */
function drawScores(canvas, label, { edges, kept_counts: kept, dropped_counts: dropped }) {
  const context = resizedContext(canvas);
  const style = getComputedStyle(document.documentElement);
  const mostEntries = Math.max(1, ...kept.data.map((count, bin) => count + dropped.data[bin]));
  const width = canvas.width / kept.data.length;
  for (let bin = 0; bin < kept.data.length; bin++) {
    const [low, high] = [dropped.data[bin], dropped.data[bin] + kept.data[bin]].map((count) => (canvas.height * count) / mostEntries);
    for (const [name, top, bottom] of [["--mask-dropped", low, 0], ["--kept", high, low]]) {
      context.fillStyle = style.getPropertyValue(name);
      context.fillRect(Math.floor(bin * width), canvas.height - top, Math.ceil(width) - (width > 4 ? 1 : 0), top - bottom);
    }
  }
  const sum = (counts) => counts.data.reduce((a, b) => a + b, 0);
  const mean = (counts) => counts.data.reduce((total, count, bin) => total + (count * (edges.data[bin] + edges.data[bin + 1])) / 2, 0) / Math.max(1, sum(counts));
  const highest = edges.data[edges.data.length - 1];
  label.textContent = `from 0 to ${highest.toPrecision(3)}: ${countText(sum(kept))} kept, mean about ${mean(kept).toPrecision(3)}; ${countText(sum(dropped))} dropped, mean about ${mean(dropped).toPrecision(3)}`;
}

const INITIAL_TILES = 4;
const picture = new Picture(document.querySelector(".viewer"));
try {
  const profile = await picture.open(INITIAL_TILES);
  addControls(picture);
  const drawCharts = () => {
    drawScores(document.getElementById("scores"), document.getElementById("score-range"), profile);
    drawKeptShares(document.getElementById("rows"), document.getElementById("row-fill"), profile.row_kept.data, picture.cols);
    drawKeptShares(document.getElementById("cols"), document.getElementById("col-fill"), profile.col_kept.data, picture.rows);
  };
  drawCharts();
  document.addEventListener("theme", drawCharts);
  addEventListener("resize", drawCharts);
} catch (error) {
  picture.say(error.message);
}
