// The page of a layer: its mask, the scores that it keeps and drops, and the share of kept entries of rows and columns.
import { Picture } from "./picture.js";
import { countText } from "./quantities.js";
import { steer } from "./steering.js";

/** Give a canvas the pixels of its box, and return its context. */
function brushOf(canvas) {
  const box = canvas.getBoundingClientRect();
  const density = devicePixelRatio || 1;
  canvas.width = Math.round(box.width * density);
  canvas.height = Math.round(box.height * density);
  return canvas.getContext("2d");
}

/** Draw the shares of rows or columns as bars, at most one per pixel: their mean, with the maximum behind it. */
function drawFill(canvas, label, counts, length) {
  const brush = brushOf(canvas);
  const style = getComputedStyle(document.documentElement);
  const bars = Math.min(counts.length, canvas.width);
  const width = canvas.width / bars;
  let [least, most, sum] = [Infinity, -Infinity, 0];
  for (let bar = 0; bar < bars; bar++) {
    const part = counts.subarray(Math.floor((bar * counts.length) / bars), Math.floor(((bar + 1) * counts.length) / bars));
    const shares = [Math.min(...part), part.reduce((a, b) => a + b, 0) / part.length, Math.max(...part)].map((count) => count / length);
    least = Math.min(least, shares[0]);
    most = Math.max(most, shares[2]);
    sum += shares[1];
    const draw = (share, name) => {
      brush.fillStyle = style.getPropertyValue(name);
      brush.fillRect(Math.floor(bar * width), canvas.height * (1 - share), Math.ceil(width), canvas.height * share);
    };
    draw(shares[2], "--mask-low");
    draw(shares[1], "--kept");
  }
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  label.textContent = least === most ? `all ${percent(least)}` : `${percent(least)} to ${percent(most)}, mean ${percent(sum / bars)}`;
}

/** Draw two histograms upon each other: of the scores that are dropped, and of those kept. */
function drawScores(canvas, label, { edges, kept_counts: kept, dropped_counts: dropped }) {
  const brush = brushOf(canvas);
  const style = getComputedStyle(document.documentElement);
  const highest = Math.max(1, ...kept.data.map((count, bin) => count + dropped.data[bin]));
  const width = canvas.width / kept.data.length;
  for (let bin = 0; bin < kept.data.length; bin++) {
    const [low, high] = [dropped.data[bin], dropped.data[bin] + kept.data[bin]].map((count) => (canvas.height * count) / highest);
    for (const [name, top, bottom] of [["--mask-dropped", low, 0], ["--kept", high, low]]) {
      brush.fillStyle = style.getPropertyValue(name);
      brush.fillRect(Math.floor(bin * width), canvas.height - top, Math.ceil(width) - (width > 4 ? 1 : 0), top - bottom);
    }
  }
  const sum = (counts) => counts.data.reduce((a, b) => a + b, 0);
  const mean = (counts) => counts.data.reduce((total, count, bin) => total + (count * (edges.data[bin] + edges.data[bin + 1])) / 2, 0) / Math.max(1, sum(counts));
  const most = edges.data[edges.data.length - 1];
  label.textContent = `from 0 to ${most.toPrecision(3)}: ${countText(sum(kept))} kept, about ${mean(kept).toPrecision(3)} in the mean; ${countText(sum(dropped))} dropped, about ${mean(dropped).toPrecision(3)}`;
}

const FEW_TILES = 4;
const picture = new Picture(document.querySelector(".viewer"));
try {
  const profile = await picture.open(FEW_TILES);
  steer(picture);
  const fills = () => {
    drawScores(document.getElementById("scores"), document.getElementById("score-range"), profile);
    drawFill(document.getElementById("rows"), document.getElementById("row-fill"), profile.row_kept.data, picture.cols);
    drawFill(document.getElementById("cols"), document.getElementById("col-fill"), profile.col_kept.data, picture.rows);
  };
  fills();
  document.addEventListener("theme", fills);
  addEventListener("resize", fills);
} catch (error) {
  picture.say(error.message);
}
